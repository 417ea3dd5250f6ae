"""Limits of providers over all processes: no minute has more than the limit, nobody is starved, and what is not used
comes back. The processes run here in one, over a register that stands for the database."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuit.level import Want, level
from circuit.minute import MINUTE, Sent
from circuit.ration import LASTS, MARGIN, Decision, Ration

LOOK, STEP = 0.25, 2.5


class World:
    """A true time, a register of claims with a clock of its own, and what was sent by whom."""

    def __init__(self, requests: int | None, tokens: int | None) -> None:
        self.limits = requests, tokens
        self.now = 1_000.0
        self.version, self.claims = 0, dict[str, Any]()
        self.sent: list[Sent] = []
        self.begun = 0

    @property
    def at(self) -> float:
        return self.now + 1.7e9

    def process(self) -> Process:
        self.begun += 1
        return Process(self, f"process {self.begun}")

    def check(self, size: int) -> None:
        """One of `size` is to be sent now."""
        requests, tokens = self.limits
        counting = [sent for sent in self.sent if sent.at > self.now - MINUTE]
        assert requests is None or len(counting) < requests
        spent = sum(sent.tokens for sent in counting)
        assert tokens is None or spent + size <= tokens or not spent


class Process:
    """A process with a clock that began at some other time."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.ration = Ration(lambda: world.now - 900.0, *world.limits, shared=True)
        self.waiting: list[int] = []
        self.own: list[tuple[Sent, Sent]] = []
        self.decided: tuple[int, Decision] | None = None

    def ask(self, size: int) -> None:
        self.waiting.append(size)
        self.ration.queue.requests += 1
        self.ration.queue.tokens += size
        self._stand()

    def look(self, *, over: bool = False) -> None:
        world = self.world
        decision = self.ration.decide(world.claims, self.name, world.at, world.now - 900.0, over=over)
        self.decided = (world.version, decision)

    def put(self) -> None:
        if self.decided is None:
            return
        (version, decision), self.decided = self.decided, None
        if decision.claims is not None:
            if version != self.world.version:
                return
            self.world.version, self.world.claims = version + 1, dict(decision.claims)
        self.ration.take(decision)

    def balance(self, *, over: bool = False) -> None:
        self.look(over=over)
        self.put()

    def send(self) -> bool:
        if not self.waiting or self.ration.delay(self.waiting[0]) > 0:
            return False
        size = self.waiting.pop(0)
        self.world.check(size)
        self.ration.queue.requests -= 1
        self.ration.queue.tokens -= size
        self.ration.queue.first = None
        self.own.append((self.ration.send(size), Sent(self.world.now, size)))
        self.world.sent.append(self.own[-1][1])
        self._stand()
        return True

    def settle(self, part: float) -> None:
        if self.own:
            mine, true = self.own.pop(0)
            true.tokens = int(true.tokens * part)
            self.ration.correct(mine, true.tokens)

    def _stand(self) -> None:
        queue = self.ration.queue
        if self.waiting and queue.first is None:
            queue.first, queue.first_at = self.waiting[0], self.world.now - 900.0


MOVES = {"pass": 4, "ask": 6, "send": 6, "look": 5, "put": 4, "balance": 2, "settle": 1, "die": 0.2, "stop": 0.4}


@settings(max_examples=200)
@given(
    limits=st.tuples(st.none() | st.integers(1, 12), st.none() | st.integers(1, 100)),
    seed=st.integers(0, 2**32),
)
def test_no_minute_has_more_than_the_limit_whatever_the_order(limits: tuple[int | None, int | None], seed: int) -> None:
    """Whoever looked may put long after others did, or die, or end between the two."""
    world, draw = World(*limits), Random(seed)
    processes = [world.process() for _ in range(3)]
    for what in draw.choices([*MOVES], [*MOVES.values()], k=400):
        number = draw.randrange(3)
        one = processes[number]
        match what:
            case "pass":
                world.now += draw.choice([0.1, 1.0, 3.0, 9.0, 20.0])
            case "ask":
                for _ in range(draw.randint(1, 4)):
                    one.ask(draw.randint(1, 60))
            case "send":
                while one.send():
                    pass
            case "settle":
                one.settle(draw.random())
            case "die":
                processes[number] = world.process()
            case "stop":
                one.balance(over=True)
                assert not one.send()
                processes[number] = world.process()
            case _:
                getattr(one, what)()


@settings(max_examples=30)
@given(
    sizes=st.lists(st.lists(st.integers(1, 120), min_size=1, max_size=4), min_size=1, max_size=4),
    requests=st.none() | st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_whatever_waits_is_sent_in_its_turn(sizes: list[list[int]], requests: int | None, seed: int) -> None:
    """Small ones beside large ones, ones that are larger than the limit, and more processes than requests a minute."""
    world = World(requests, 100)
    processes = [world.process() for _ in sizes]
    for one, waiting in zip(processes, sizes, strict=True):
        for size in waiting:
            one.ask(size)
    turn, order = (MINUTE + 2 * STEP) * (len(processes) + 1), Random(seed)
    since = dict.fromkeys(processes, world.now)
    while any(one.waiting for one in processes):
        for one in order.sample(processes, len(processes)):
            one.balance()
            while one.send():
                since[one] = world.now
            assert not one.waiting or world.now - since[one] < turn
        world.now += STEP


def test_one_that_is_alone_has_it_all_and_sends_as_if_nothing_were_shared() -> None:
    world = World(5, 100)
    one, own = world.process(), Ration(lambda: world.now, 5, 100)
    times: list[float] = []
    puts = 0
    for size in (10, 10, 10, 10, 10, 40, 70, 200, 10, 1):
        while own.delay(size) > 0:
            world.now += own.delay(size)
        own.send(size)
        times.append(world.now)
        one.ask(size)
        before = world.version
        if not one.send():
            one.balance()
            assert one.send(), "at the same instant"
        puts += world.version - before
        world.now += 1.0
    assert times[5] == times[0] + MINUTE
    # Within its ration nobody is asked.
    assert puts <= 6


def test_two_that_have_much_to_send_have_halves_and_one_that_ends_leaves_all_to_the_other() -> None:
    world = World(60, None)
    one, other = world.process(), world.process()
    for process in (one, other):
        for _ in range(200):
            process.ask(0)

    def minute(*processes: Process) -> list[int]:
        before = [len(process.waiting) for process in processes]
        for _ in range(int(MINUTE / LOOK)):
            for process in processes:
                process.balance()
                while process.send():
                    pass
            world.now += LOOK
        return [left - len(process.waiting) for left, process in zip(before, processes, strict=True)]

    assert minute(one) == [60]
    minute(one, other)
    assert minute(one, other) == [30, 30]
    one.balance(over=True)
    world.now += MINUTE + MARGIN
    assert minute(other) == [60]
    # One that is gone without a word holds what it had for as long as that may count, and no longer.
    dead, later = other, world.process()
    later.ask(0)
    later.balance()
    assert not later.send()
    dead.waiting.clear()
    world.now += LASTS + MINUTE + MARGIN
    later.balance()
    assert later.send()


def test_of_one_that_is_gone_only_what_it_could_still_have_sent_is_lost_for_longer_than_a_minute() -> None:
    world = World(10, None)
    dead, other = world.process(), world.process()
    for _ in range(10):
        dead.ask(0)
    dead.balance()
    while dead.send():
        pass
    for _ in range(20):
        other.ask(0)
    # It sees that the other one wants half of it, which is to be had when a minute is over.
    for process in (other, dead, other):
        process.balance()
    assert not other.send()
    world.now += MINUTE + MARGIN
    other.balance()
    assert [other.send() for _ in range(6)] == [True] * 5 + [False]
    world.now += LASTS
    other.balance()
    assert [other.send() for _ in range(6)] == [True] * 5 + [False]


def test_one_that_can_ask_nobody_sends_what_it_has_for_some_seconds() -> None:
    world = World(10, None)
    one = world.process()
    for _ in range(4):
        one.ask(0)
    one.balance()
    assert one.send()
    world.now += LASTS - 0.5
    assert one.send()
    world.now += 0.5
    assert not one.send()
    # What it may have sent until then counts for a minute from then on, at the least.
    other = world.process()
    for _ in range(10):
        other.ask(0)
    world.now += MINUTE
    other.balance()
    assert [other.send() for _ in range(2)] == [True, False]
    one.balance()
    assert one.send()


def test_what_is_not_used_comes_back_at_once() -> None:
    world = World(100, None)
    one, other = world.process(), world.process()
    one.ask(0)
    one.balance()
    assert one.send()
    for _ in range(50):
        other.ask(0)
    # Nobody knows yet that this one must wait.
    assert not other.ration.short
    other.balance()
    assert other.ration.short
    # A tenth was left for one that comes, and the rest when the other one looks.
    assert [other.send() for _ in range(11)] == [True] * 10 + [False]
    one.balance()
    other.balance()
    assert not other.ration.short
    assert all(other.send() for _ in range(40))
    # What lies idle is not claimed at all.
    world.now += MINUTE
    for process in (one, other):
        process.balance()
    assert world.claims == {}


def test_what_the_provider_said_to_one_the_others_keep_to() -> None:
    world = World(100, None)
    one, other = world.process(), world.process()
    one.ration.close(one.ration._now() + 30)
    one.balance()
    other.ask(0)
    other.balance()
    assert other.ration.told_until == pytest.approx(other.ration._now() + 30)
    one.ration.close(0.0)
    one.balance()
    other.balance()
    assert other.ration.told_until < other.ration._now()


@given(
    limit=st.integers(0, 1_000),
    wants=st.dictionaries(
        st.text("abcdefgh", min_size=1, max_size=2),
        st.tuples(st.integers(0, 1_500), st.integers(0, 1_500), st.integers(0, 3)),
        max_size=6,
    ),
)
def test_parts_are_within_the_limit_and_as_equal_as_they_can_be(
    limit: int, wants: Mapping[str, tuple[int, int, int]]
) -> None:
    asked = {
        name: Want(min(limit, max(all_, first)), min(limit, first), float(since))
        for name, (all_, first, since) in wants.items()
    }
    parts = level(limit, asked)
    assert parts.keys() == asked.keys()
    assert sum(parts.values()) <= limit
    assert all(0 <= parts[name] <= asked[name].all for name in asked)
    # In the order in which they have waited each gets what it waits for, unless those before it need too much.
    left = limit
    for name in sorted(asked, key=lambda name: (asked[name].since, name)):
        if asked[name].first <= left:
            assert parts[name] >= asked[name].first
            left -= asked[name].first
        else:
            assert parts[name] == 0
    if not any(want.first for want in asked.values()):
        total = sum(want.all for want in asked.values())
        assert sum(parts.values()) == min(limit, total)
        highest = max(parts.values(), default=0)
        assert all(parts[name] == asked[name].all or parts[name] >= highest - 1 for name in asked)
