"""What becomes of a firing that fails: another attempt, the token without the agent's output, `on_failure`, or an
incident that keeps the same binding from being tried again until somebody resolves it."""

from __future__ import annotations

from typing import Any

from circuit.engine.draft import Draft
from circuit.engine.memory import LiveFiring, Memory
from circuit.engine.retry import retry_at
from circuit.engine.suspension import take_along
from circuit.errors import BudgetExhausted, CircuitError
from circuit.events import BudgetUsedUp, FiringFailed, FiringRetried, IncidentResolved
from circuit.net import firing as rule
from circuit.net.binding import Binding
from circuit.net.timing import Rhythm
from circuit.storage.records import FiringState, IncidentRow
from circuit.value import replace

NO_FIRING = 0
"""Stands in for a firing's number while the tokens of a binding that never became a firing are diverted."""


def try_again_later(memory: Memory, live: LiveFiring, error: CircuitError, draft: Draft) -> bool:
    """Offer the firing again for a later time, if its policy allows. The next attempt has a journal of its own,
    but for what lasts."""
    row = live.row
    policy = memory.workflow.actions[row.transition].retry
    at = retry_at(policy, error, key=memory.key, firing=row.number, attempt=row.attempt, now=draft.now)
    if at is None:
        return False
    memory.change(live, draft, state=FiringState.OFFERED, attempt=row.attempt + 1, retry_at=at, error=error.as_dict())
    take_along(memory, live, draft)
    draft.record(
        FiringRetried(row.transition, row.number, memory.execution_id(row.number), row.attempt, error.as_dict(), at)
    )
    return True


def note_budget(memory: Memory, live: LiveFiring, error: CircuitError, draft: Draft) -> None:
    """Where an attempt failed for a budget is used up, the history says so in an event of its own."""
    if isinstance(error, BudgetExhausted) and error.details:
        row = live.row
        draft.record(BudgetUsedUp(row.transition, row.number, memory.execution_id(row.number), **error.details))


def fail_firing(memory: Memory, live: LiveFiring, error: CircuitError, draft: Draft) -> None:
    """A begun firing failed for good: its tokens go to `on_failure`, or stay with an incident."""
    error = memory.told(error)
    transition = memory.net.transitions[live.binding.transition]
    if isinstance(transition.timing, Rhythm) and not transition.timing.once:
        # The next run comes at its time.
        memory.give_back(live, draft)
        _record(memory, live.binding, error, draft, live=live)
    elif transition.on_failure is not None:
        memory.touch_held(live.binding, draft)
        effect = rule.divert(memory.net, memory.marking, live.binding, _note(error), draft.now)
        memory.settle(live.binding.transition, effect, draft)
        _record(memory, live.binding, error, draft, live=live, effect=effect)
    else:
        memory.give_back(live, draft, undone=True)
        _raise_incident(memory, live.binding, error, draft, live=live)
    memory.leave(live, FiringState.FAILED, draft, error=error.as_dict())


def fail_begin(memory: Memory, binding: Binding, error: CircuitError, draft: Draft) -> None:
    """A binding failed before it held anything: its tokens go to `on_failure` if that has room, else an incident."""
    error = memory.told(error)
    if _can_divert(memory, binding):
        rule.begin(memory.net, memory.marking, binding, NO_FIRING)
        effect = rule.divert(memory.net, memory.marking, binding, _note(error), draft.now)
        memory.settle(binding.transition, effect, draft)
        _record(memory, binding, error, draft, effect=effect)
    else:
        give_up(memory, binding, error, draft)


def give_up(memory: Memory, binding: Binding, error: CircuitError, draft: Draft) -> None:
    """Raise an incident for a binding that held nothing yet."""
    error = memory.told(error)
    _raise_incident(memory, binding, error, draft)
    memory.agenda.changed(binding.transition)


def resolve(memory: Memory, number: int, reason: str, draft: Draft, principal: str | None = None) -> None:
    """Close an incident: what it blocked may be tried again."""
    incident = memory.unblock(number)
    memory.agenda.everything()
    draft.change_incident(replace(incident, resolved_at=draft.now, resolved_by=principal or "circuit"))
    draft.record(IncidentResolved(number, incident.transition, reason, principal))


def supersede(memory: Memory, draft: Draft) -> None:
    """Close the incidents whose tokens have moved on by another way."""
    for incident in list(memory.incidents.values()):
        if not all(_lies_free(memory, number, version) for number, version in incident.blocks):
            resolve(memory, incident.number, "superseded", draft)


def _raise_incident(
    memory: Memory, binding: Binding, error: CircuitError, draft: Draft, *, live: LiveFiring | None = None
) -> None:
    number = memory.row.next_incident
    memory.row = replace(memory.row, next_incident=number + 1)
    incident = IncidentRow(
        number,
        binding.transition,
        live.row.number if live is not None else None,
        error.code,
        error.message,
        binding.blocks,
        draft.now,
    )
    memory.block(incident)
    draft.open_incident(incident)
    _record(memory, binding, error, draft, live=live, incident=number)


def _record(
    memory: Memory,
    binding: Binding,
    error: CircuitError,
    draft: Draft,
    *,
    live: LiveFiring | None = None,
    effect: rule.Effect | None = None,
    incident: int | None = None,
) -> None:
    draft.record(
        FiringFailed(
            binding.transition,
            error.as_dict(),
            firing=live.row.number if live is not None else None,
            execution_id=memory.execution_id(live.row.number) if live is not None else None,
            consumed=effect.consumed if effect is not None else (),
            produced=effect.produced if effect is not None else (),
            incident=incident,
        )
    )


def _note(error: CircuitError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message}


def _can_divert(memory: Memory, binding: Binding) -> bool:
    name = memory.net.transitions[binding.transition].on_failure
    if name is None:
        return False
    capacity = memory.net.places[name].capacity
    taken = memory.marking.count(name) + memory.marking.room_reserved(name)
    return capacity is None or taken + len(binding.consumed) <= capacity


def _lies_free(memory: Memory, number: int, version: int) -> bool:
    token = memory.marking.get(number)
    return token is not None and token.version == version and memory.marking.reserved_by(number) is None
