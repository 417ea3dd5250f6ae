"""Timers that interrupt: they take a token although a firing holds it, and the firing is cancelled."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from circuit.engine.memory import LiveFiring, Memory
from circuit.net.binding import Binding, has_room, is_blocked


def due_interruptions(memory: Memory, now: datetime) -> Iterator[tuple[LiveFiring, Binding]]:
    """What is due: the firing that is to be cancelled, and the timer's binding with one of its tokens."""
    for due, live, binding in _interruptions(memory, now):
        if (
            due <= now
            and live.row.number in memory.firings
            and has_room(memory.net, memory.marking, binding.transition)
        ):
            yield live, binding


def next_interruption(memory: Memory, now: datetime) -> datetime | None:
    """When a timer interrupts next, if nothing happens before."""
    return min((due for due, _, _ in _interruptions(memory, now) if due > now), default=None)


def _interruptions(memory: Memory, now: datetime) -> Iterator[tuple[datetime, LiveFiring, Binding]]:
    """Every token that a firing holds and an interrupting timer would take, with the time from which it does."""
    for name in memory.net.interrupting:
        transition = memory.net.transitions[name]
        place, timing = transition.inputs[0].place, transition.timing
        for live in list(memory.firings.values()):
            if memory.net.transitions[live.row.transition].refresh or live.row.transition == name or timing is None:
                continue
            for token in live.binding.consumed:
                binding = Binding(name, (token,))
                if token.place != place or is_blocked(binding, memory.blocked):
                    continue
                guard = transition.guard
                if guard is not None and not guard.judge(binding.scope(memory.case)).holds:
                    continue
                due = timing.due((token,), (), memory.case, now)
                if due is not None:
                    yield due, live, binding
