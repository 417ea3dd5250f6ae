"""Timers that interrupt: they take a token although a firing holds it, and the firing is cancelled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from circuit.net.binding import Binding, Blocked, is_blocked
from circuit.net.marking import Marking
from circuit.net.selection import barred, refusal
from circuit.net.structure import Net


class Interruption(NamedTuple):
    """A timer that takes what a firing holds, and from when on it does."""

    due: datetime
    firing: int
    binding: Binding


def interruptions(
    net: Net,
    marking: Marking,
    held: Mapping[int, Binding],
    case: Mapping[str, Any],
    now: datetime,
    blocked: Blocked = frozenset(),
) -> Iterator[Interruption]:
    """Every token that a firing holds and an interrupting timer would take. `held` are the bindings of firings."""
    for name in net.interrupting:
        transition = net.transitions[name]
        (arc,), timing, guard = transition.consumes, transition.timing, transition.guard
        if timing is None or barred(transition, marking, case) is not None:
            continue
        for firing, of_firing in list(held.items()):
            if net.transitions[of_firing.transition].refresh or of_firing.transition == name:
                continue
            for token in of_firing.consumed:
                binding = Binding(name, (token,))
                if token.place != arc.place or is_blocked(binding, blocked) or refusal(arc, token, case) is not None:
                    continue
                if guard is not None and not guard.judge(binding.scope(case)).holds:
                    continue
                due = timing.due((token,), (), case, now)
                if due is not None:
                    yield Interruption(due, firing, binding)
