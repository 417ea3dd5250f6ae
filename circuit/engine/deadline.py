"""When timers interrupt the firings of a case."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from circuit.engine.memory import LiveFiring, Memory
from circuit.net.binding import Binding, has_room
from circuit.net.interruption import Interruption, interruptions


def due_interruptions(memory: Memory, now: datetime) -> Iterator[tuple[LiveFiring, Binding]]:
    """What is due: the firing that is to be cancelled, and the timer's binding with one of its tokens."""
    for due, number, binding in _all(memory, now):
        if due <= now and _possible(memory, number, binding):
            yield memory.firings[number], binding


def next_interruption(memory: Memory, now: datetime) -> datetime | None:
    """When a timer interrupts next, if nothing happens before. That may have passed: a commit takes its time."""
    found = (due for due, number, binding in _all(memory, now) if due > now or _possible(memory, number, binding))
    return min(found, default=None)


def _possible(memory: Memory, number: int, binding: Binding) -> bool:
    """Whether a timer that is due interrupts the firing, or waits until something else of the case changes."""
    return number in memory.firings and has_room(memory.net, memory.marking, binding.transition)


def _all(memory: Memory, now: datetime) -> Iterator[Interruption]:
    held = {number: live.binding for number, live in memory.firings.items()}
    return interruptions(memory.net, memory.marking, held, memory.case, now, memory.blocked)
