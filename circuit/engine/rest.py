"""Where a case stands of which nothing runs: over, waiting, in need of somebody, or stuck."""

from __future__ import annotations

from datetime import datetime

from circuit.engine.memory import Memory
from circuit.net import completion
from circuit.net.binding import bindings
from circuit.net.structure import Trigger
from circuit.storage.records import CaseStatus


def is_complete(memory: Memory) -> bool:
    """Whether the predicate of the workflow holds; where it has none, whether no firing holds a token, and every token
    lies in a terminal place or only tells what was done."""
    net = memory.net
    # A refresh holds nothing, so it holds up nobody.
    holding = any(not net.transitions[live.row.transition].refresh for live in memory.firings.values())
    if holding and net.complete_when is None:
        return False
    return completion.is_complete(net, memory.marking, memory.case)


def status_at_rest(memory: Memory, now: datetime) -> CaseStatus:
    """The status of a case that is not over, and of which nothing runs."""
    if memory.firings or memory.agenda.due_at is not None or memory.awaited or _person_awaited(memory, now):
        return CaseStatus.WAITING
    if memory.incidents or any(memory.net.places[name].dead_letter for name in memory.marking.places()):
        return CaseStatus.ATTENTION
    return CaseStatus.STUCK


def _person_awaited(memory: Memory, now: datetime) -> bool:
    return any(
        next(bindings(memory.net, memory.marking, transition.name, memory.case, now, blocked=memory.blocked), None)
        for transition in memory.net.transitions.values()
        if transition.trigger is Trigger.MANUAL
    )
