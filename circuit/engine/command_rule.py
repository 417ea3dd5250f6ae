"""What each kind of command does to a case, and when it is refused.

A command is applied once, by the case's owner, and its result is written in the same commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from circuit.engine.draft import Draft
from circuit.engine.migration import migrate
from circuit.engine.modification import Modification, modify
from circuit.engine.reception import Message
from circuit.engine.repair import patch_incident, put_back
from circuit.engine.summons import summon
from circuit.errors import CircuitError, Conflict, Forbidden, InvalidRequest
from circuit.net.binding import Binding
from circuit.net.diagnosis import why
from circuit.net.structure import Trigger
from circuit.security.principal import Principal
from circuit.storage.records import TRACEPARENT, CaseStatus, CommandResult, CommandRow, CommandState

if TYPE_CHECKING:
    from circuit.engine.owner import Owner


def answer(owner: Owner, command: CommandRow, draft: Draft) -> CommandResult:
    """Apply `command` to the case of `owner`, or refuse it with an error that says why."""
    if command.kind == "message":
        draft.answer_message()
    try:
        rule = _RULES.get(command.kind)
        if rule is None:
            raise InvalidRequest(f"there is no command {command.kind!r}; this release knows {', '.join(_RULES)}")
        if owner.memory.row.status.terminal:
            raise Conflict(f"case {owner.memory.key} is {owner.memory.row.status.value}: nothing changes it any more")
        principal = Principal.from_json(command.principal, owner.memory.key.tenant)
        result = rule(owner, command.payload, principal, draft)
    except CircuitError as error:
        return CommandResult(command.id, CommandState.REFUSED, {"error": owner.memory.told(error).as_dict()})
    traceparent = command.principal.get(TRACEPARENT)
    if isinstance(traceparent, str):
        draft.callers = (*draft.callers, traceparent)
    return CommandResult(command.id, CommandState.APPLIED, result)


def _fire(owner: Owner, payload: Mapping[str, Any], principal: Principal, draft: Draft) -> dict[str, Any]:
    memory = owner.memory
    name, form = payload.get("transition"), payload.get("form") or {}
    if not isinstance(name, str) or not isinstance(form, dict):
        raise InvalidRequest("a command of the kind fire needs a transition (text) and a form (an object)")
    choices = memory.net.named(name)
    if not choices:
        raise InvalidRequest(f"workflow {memory.row.workflow_id} has no transition {name!r}")
    transition = choices[0]
    if transition.trigger is not Trigger.MANUAL:
        raise InvalidRequest(f"transition {name} fires by itself; only manual transitions are fired by a person")
    manual = transition.manual
    if manual is not None and not principal.may(manual.roles):
        raise Forbidden(f"transition {name} asks for one of the roles {', '.join(sorted(manual.roles))}")
    if manual is not None and manual.form is not None and (faults := manual.form.faults(form)):
        raise InvalidRequest(f"the form of transition {name} is not filled in as it asks: {'; '.join(faults)}")
    fired = owner.fire_manually(name, form, principal.subject, draft)
    if fired is None:
        found = [why(memory.net, memory.marking, one.name, memory.case, draft.now, memory.blocked) for one in choices]
        reasons = "; ".join(reason.message for diagnosis in found for reason in diagnosis.reasons)
        raise Conflict(f"transition {name} is not enabled: {reasons}")
    return fired


def _signal(owner: Owner, payload: Mapping[str, Any], principal: Principal, draft: Draft) -> dict[str, Any]:
    number, key = payload.get("firing"), payload.get("key")
    if not isinstance(number, int) or isinstance(number, bool) or not isinstance(key, str | None):
        raise InvalidRequest("a command of the kind signal needs a firing (its number) and may have a key (text)")
    return owner.signal(number, key, payload.get("payload"), principal, draft)


def _child_ended(owner: Owner, payload: Mapping[str, Any], principal: Principal, draft: Draft) -> dict[str, Any]:
    number, case, result = payload.get("firing"), payload.get("case"), payload.get("result")
    if not isinstance(number, int) or not isinstance(case, str) or not isinstance(result, dict):
        raise InvalidRequest("a command of the kind child_ended needs a firing (its number), a case and its result")
    return owner.child_ended(number, case, result, draft)


def _message(owner: Owner, payload: Mapping[str, Any], principal: Principal, draft: Draft) -> dict[str, Any]:
    """A message that this case was found to wait for. Where it does not (any more), another may have it."""
    return owner.receive(Message.of_json(payload), principal.subject, draft)


def _retry(owner: Owner, payload: Mapping[str, Any], principal: Principal, draft: Draft) -> dict[str, Any]:
    numbers = owner.retry_incidents(payload.get("incident"), principal.subject, draft)
    if not numbers:
        raise Conflict(f"case {owner.memory.key} has no such open incident: there is nothing to retry")
    return {"incidents": numbers}


def _resolve(owner: Owner, payload: Mapping[str, Any], principal: Principal, draft: Draft) -> dict[str, Any]:
    """As a retry, after a change of the data of the tokens that the incident is about."""
    number, changes, token = payload.get("incident"), payload.get("set"), payload.get("token")
    if not isinstance(number, int) or not isinstance(changes, dict) or not changes:
        raise InvalidRequest("a command of the kind resolve needs an incident (its number) and what to set (by path)")
    if number not in owner.memory.incidents:
        raise Conflict(f"case {owner.memory.key} has no open incident {number}")
    patch_incident(owner.memory, number, changes, token, principal, draft)
    return {"incidents": owner.retry_incidents(number, principal.subject, draft)}


def _put_back(owner: Owner, payload: Mapping[str, Any], principal: Principal, draft: Draft) -> dict[str, Any]:
    return {"tokens": put_back(owner.memory, payload.get("token"), payload.get("place"), principal, draft)}


def _modify(owner: Owner, payload: Mapping[str, Any], principal: Principal, draft: Draft) -> dict[str, Any]:
    wanted = Modification.of_payload(payload)
    return modify(owner.memory, wanted, principal, draft, lambda live: owner.firings.cancel(live, draft))


def _migrate(owner: Owner, payload: Mapping[str, Any], principal: Principal, draft: Draft) -> dict[str, Any]:
    return migrate(owner.memory, payload, principal.subject, draft, lambda live: owner.firings.cancel(live, draft))


def _summon(owner: Owner, payload: Mapping[str, Any], principal: Principal, draft: Draft) -> dict[str, Any]:
    def run(binding: Binding) -> int | None:
        return owner.firings.run_now(binding, draft, principal.subject)

    return summon(owner.memory, payload, principal, run)


def _granted(owner: Owner, payload: Mapping[str, Any], principal: Principal, draft: Draft) -> dict[str, Any]:
    """What a firing asked of shared places is its own now. One that has ended meanwhile has given it back."""
    number = payload.get("firing")
    if not isinstance(number, int) or not owner.granted(number, draft):
        raise Conflict(f"firing {number} of case {owner.memory.key} does not wait for a shared place (any more)")
    return {"firing": number}


def _cancel(owner: Owner, payload: Mapping[str, Any], principal: Principal, draft: Draft) -> dict[str, Any]:
    owner.end(CaseStatus.CANCELLED, str(payload.get("reason", "")), draft, principal.subject)
    return {"status": CaseStatus.CANCELLED.value}


_RULES: dict[str, Callable[[Owner, Mapping[str, Any], Principal, Draft], dict[str, Any]]] = {
    "fire": _fire,
    "signal": _signal,
    "message": _message,
    "child_ended": _child_ended,
    "retry": _retry,
    "resolve": _resolve,
    "put_back": _put_back,
    "modify": _modify,
    "migrate": _migrate,
    "summon": _summon,
    "granted": _granted,
    "cancel": _cancel,
}
