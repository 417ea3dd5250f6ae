"""Why a case is where it is, in words: pure, from the rows of the case and the net's own diagnosis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from circuit.definition.workflow import Workflow
from circuit.engine.kinship import CHILD
from circuit.engine.memory import LiveFiring, Memory
from circuit.engine.suspension import APPROVAL
from circuit.engine.views import CaseWhy, Obstacle, TransitionWhy, instant
from circuit.errors import BudgetExhausted
from circuit.net.completion import incompleteness
from circuit.net.diagnosis import Reason, ReasonKind, why
from circuit.net.structure import Trigger
from circuit.storage.records import CaseState, CaseStatus
from circuit.storage.resources import Standing


def explain(workflow: Workflow, state: CaseState, now: datetime, standings: Sequence[Standing] = ()) -> CaseWhy:
    """What each transition of a case waits for: its arcs, guard, room, role, its firings and its incidents, and the
    shared places that its firings wait for, as `standings` has them."""
    row = state.row
    if row.status.terminal:
        ended = f" since {instant(row.finished_at)}" if row.finished_at is not None else ""
        return CaseWhy(state.key, row.status, f"The case is {row.status.value}{ended}: nothing fires any more.", ())
    memory = Memory(workflow, state)
    transitions = tuple(_transition(memory, name, now, standings) for name in memory.net.transitions)
    return CaseWhy(state.key, row.status, _summary(memory, transitions), transitions)


def explain_some(memory: Memory, names: Sequence[str], now: datetime) -> tuple[TransitionWhy, ...]:
    """What these transitions of a case wait for; in a case that has ended, nothing fires any more."""
    return () if memory.row.status.terminal else tuple(_transition(memory, name, now, ()) for name in names)


def _transition(memory: Memory, name: str, now: datetime, standings: Sequence[Standing]) -> TransitionWhy:
    found = why(memory.net, memory.marking, name, memory.case, now, memory.blocked)
    obstacles = [_obstacle(reason) for reason in found.reasons]
    for live in memory.firings.values():
        if live.row.transition == name:
            obstacles[:0] = _of_firing(memory, live, standings)
    obstacles += _of_incidents(memory, name)
    return TransitionWhy(name, found.enabled, tuple(obstacles))


def _obstacle(reason: Reason) -> Obstacle:
    return Obstacle(reason.kind.value, reason.subject, reason.have, reason.need, reason.message)


def _of_firing(memory: Memory, live: LiveFiring, standings: Sequence[Standing]) -> list[Obstacle]:
    queued = [standing for standing in standings if standing.firing == live.row.number]
    if live.row.start == 0 and queued:
        return [_of_resource(memory, standing) for standing in queued]
    return [_of_attempt(memory, live)]


def _of_resource(memory: Memory, standing: Standing) -> Obstacle:
    free = max(0, standing.capacity - standing.held)
    holders = f", held by {', '.join(standing.holders)}" if standing.holders else ""
    ahead = f"; {standing.ahead} wait before it" if standing.ahead else ""
    kind, colon, name = standing.place.partition(":")
    if colon:
        message = (
            f"execution {memory.execution_id(standing.firing)} waits for its turn: {kind} {name} runs no more"
            f" executions at once than it may (`circuit limits`){ahead}"
        )
        return Obstacle("turn", standing.place, None, None, message)
    again = f"; more is there at {instant(standing.due_at)}" if standing.due_at is not None else ""
    message = (
        f"execution {memory.execution_id(standing.firing)} waits for {standing.amount} of {standing.place}:"
        f" {free} of {standing.capacity} are free{holders}{ahead}{again}"
    )
    return Obstacle("resource", standing.place, free, standing.amount, message)


def _of_attempt(memory: Memory, live: LiveFiring) -> Obstacle:
    row = live.row
    execution = memory.execution_id(row.number)
    if live.running:
        since = f" since {instant(row.begun_at)}" if row.begun_at is not None else ""
        message = f"execution {execution} runs{since} (attempt {row.attempt}, start {row.start})"
        return Obstacle("running", execution, row.attempt, None, message)
    if row.awaits is not None:
        key = f" {row.awaits['key']!r}" if row.awaits["key"] else ""
        until = f", until {instant(row.wake_at)}" if row.wake_at is not None else ""
        since = instant(datetime.fromisoformat(row.awaits["since"]))
        if CHILD in row.awaits:
            called = row.awaits["payload"]["workflow"]
            child = row.awaits[CHILD]
            message = f"execution {execution} waits since {since}{until} for case {child} of {called} to end"
            return Obstacle("child", child, None, None, message)
        if row.awaits["kind"] == APPROVAL:
            roles = ", ".join(row.awaits.get("roles", ()))
            who = f"somebody of {roles}" if roles else "somebody"
            asked: Any = row.awaits["payload"]
            tool = cast("Mapping[str, Any]", asked).get("tool", "a tool") if isinstance(asked, Mapping) else "a tool"
            message = f"execution {execution} waits since {since}{until} for {who} to allow its call of {tool}"
            return Obstacle("approval", execution, None, asked, message)
        message = f"execution {execution} waits for {row.awaits['kind']}{key} since {since}{until}"
        return Obstacle("suspended", execution, None, None, message)
    failure = f" after {row.error['code']}: {row.error['message']}" if row.error else ""
    when = f" at {instant(row.retry_at)}" if row.retry_at is not None else ""
    message = f"execution {execution} waits for attempt {row.attempt}{when}{failure}"
    return Obstacle("retry", execution, row.attempt, None, message)


def _of_incidents(memory: Memory, name: str) -> Iterator[Obstacle]:
    for incident in memory.incidents.values():
        if incident.transition == name:
            message = (
                f"incident {incident.number} is open since {instant(incident.raised_at)}: {incident.code}: "
                f"{incident.message}"
            )
            yield Obstacle("incident", str(incident.number), None, None, message)


def _summary(memory: Memory, transitions: tuple[TransitionWhy, ...]) -> str:
    """One sentence for the case as a whole."""
    status = memory.row.status
    if status is CaseStatus.ATTENTION:
        if memory.incidents:
            number = len(memory.incidents)
            used_up = [one for one in memory.incidents.values() if one.code == BudgetExhausted.code]
            if used_up:
                more = f" (incident {used_up[0].number} of {number})" if number > 1 else ""
                return f"{used_up[0].message}{more}."
            return f"{number} incident{'' if number == 1 else 's'} must be resolved before the case goes on."
        dead = [place for place in memory.marking.places() if memory.net.places[place].dead_letter]
        return f"Tokens lie in {', '.join(dead)} and wait for somebody to look at them."
    if status is CaseStatus.STUCK:
        lacks = incompleteness(memory.net, memory.marking, memory.case)
        return f"No transition is enabled, nothing is awaited, and {lacks}."
    waits = [
        obstacle.message
        for transition in transitions
        for obstacle in transition.obstacles
        if obstacle.kind in ("running", "retry", "suspended", "approval", "resource", "turn", "child")
    ]
    people = [
        f"{transition.transition} {obstacle.message}"
        for transition in transitions
        for obstacle in transition.obstacles
        if obstacle.kind in (ReasonKind.PERSON.value, ReasonKind.MESSAGE.value)
    ]
    if waits or people:
        return "; ".join([*waits, *people]) + "."
    enabled = [
        transition.transition
        for transition in transitions
        if transition.enabled and memory.net.transitions[transition.transition].trigger is Trigger.AUTO
    ]
    if enabled:
        return f"{', '.join(enabled)} can fire: no worker has come to the case yet. Is one running?"
    return "No worker has looked at the case since its last change."
