"""Whose execution gets a slot: tenants and cases in turn, and a part that no case with many may take."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

from parts import call

from circuit.engine.firings import Start
from circuit.engine.turns import Turns
from circuit.ids import CaseKey


def start(tenant: int, case: int, firing: int) -> Start:
    return Start(call(key=CaseKey(tenant, UUID(int=case)), firing=firing), None)


def drained(turns: Turns) -> list[tuple[int, int, int]]:
    order: list[tuple[int, int, int]] = []
    while (taken := turns.take(lambda _: True)) is not None:
        order.append((taken.call.key.tenant, taken.call.key.case.int, taken.call.firing))
    return order


def test_tenants_and_cases_come_in_turn() -> None:
    turns = Turns()
    for firing in range(1, 4):
        turns.add(start(1, 10, firing))
    turns.add(start(1, 11, 1))
    turns.add(start(2, 20, 1))
    turns.add(start(2, 20, 2))
    assert len(turns) == 6
    assert drained(turns) == [(1, 10, 1), (2, 20, 1), (1, 11, 1), (2, 20, 2), (1, 10, 2), (1, 10, 3)]
    assert len(turns) == 0 and turns.take(lambda _: True) is None


def test_who_may_not_begin_is_passed_over_and_keeps_its_place() -> None:
    turns = Turns()
    for case in (10, 11):
        turns.add(start(1, case, 1))
    taken = turns.take(lambda one: one.call.key.case.int == 11)
    assert taken is not None and taken.call.key.case.int == 11
    assert turns.take(lambda one: False) is None
    assert drained(turns) == [(1, 10, 1)]


def test_what_is_cancelled_waits_no_more() -> None:
    turns = Turns()
    for case in (10, 11):
        for firing in (1, 2):
            turns.add(start(1, case, firing))
    turns.remove(CaseKey(1, UUID(int=10)), 1)
    turns.remove(CaseKey(1, UUID(int=11)))
    turns.remove(CaseKey(3, UUID(int=11)))
    assert len(turns) == 1
    assert drained(turns) == [(1, 10, 2)]
    turns.add(start(1, 10, 1))
    turns.clear()
    assert len(turns) == 0


def test_every_tenant_gets_as_much_as_the_others_while_it_waits() -> None:
    turns = Turns()
    for number in range(300):
        turns.add(start(1, number % 100, number))
    for number in range(10):
        turns.add(start(2, 1000, number))
    first = Counter(tenant for tenant, _, _ in drained(turns)[:20])
    assert first == {1: 10, 2: 10}
