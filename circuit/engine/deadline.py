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
        live = memory.firings.get(number)
        if due <= now and live is not None and has_room(memory.net, memory.marking, binding.transition):
            yield live, binding


def next_interruption(memory: Memory, now: datetime) -> datetime | None:
    """When a timer interrupts next, if nothing happens before."""
    return min((one.due for one in _all(memory, now) if one.due > now), default=None)


def _all(memory: Memory, now: datetime) -> Iterator[Interruption]:
    held = {number: live.binding for number, live in memory.firings.items()}
    return interruptions(memory.net, memory.marking, held, memory.case, now, memory.blocked)
