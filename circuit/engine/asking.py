"""What somebody asks for, looked at before it is stored: pure."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from circuit.definition.versions import content_hash
from circuit.definition.workflow import Workflow
from circuit.engine.payload import PayloadFault, PayloadOversize, storable
from circuit.errors import InvalidRequest, PayloadTooLarge
from circuit.net.structure import Transition, Trigger
from circuit.security.principal import Principal

LONGEST_KEY = 200
LONGEST_SUBJECT = 300
MOST_SUBJECTS = 20


def check_fire(workflow: Workflow, name: str, form: Mapping[str, Any], principal: Principal) -> None:
    """Whether this principal may fire this transition with this form. Raises `InvalidRequest`, `Forbidden`."""
    transition = next(iter(workflow.net.named(name)), None)
    if transition is None:
        raise InvalidRequest(
            f"workflow {workflow.id} has no transition {name!r}{meant(name, workflow.net.transitions)}"
        )
    if transition.trigger is not Trigger.MANUAL:
        manual = [one.name for one in workflow.net.transitions.values() if one.trigger is Trigger.MANUAL]
        which = f"; manual ones are {', '.join(manual)}" if manual else "; this workflow has no manual ones"
        raise InvalidRequest(f"transition {name} fires by itself{which}")
    _check_person(transition, form, principal)


def _check_person(transition: Transition, form: Mapping[str, Any], principal: Principal) -> None:
    manual = transition.manual
    principal.require_task(manual.roles if manual is not None else (), f"transition {transition.name}")
    if manual is None:
        return
    if manual.form is not None and (faults := manual.form.faults(form)):
        raise InvalidRequest(
            f"the form of transition {transition.name} is not filled in as it asks: {'; '.join(faults)}",
            details={"faults": list(faults)},
        )


def starts_agents(workflow: Workflow, kind: str, payload: Mapping[str, Any]) -> bool:
    """Whether a command of this kind counts as a start of agents, as a new case does: it puts tokens into a case that
    has agents, asks for them itself, or fires what one of them does. To try again what failed does not count."""
    if kind == "fire":
        fired = {one.name for one in workflow.net.named(payload["transition"])}
        return any(action.kind == "agent" for name, action in workflow.actions.items() if name in fired)
    return bool(workflow.agents) and (kind == "summon" or bool(payload.get("put")) or bool(payload.get("move")))


def start_parameters(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a start may ask for, checked."""
    given = stored_object(dict(parameters or {}), "the parameters")
    unknown = sorted(given.keys() - {"models"})
    if unknown:
        raise InvalidRequest(f"unknown parameters of a start: {', '.join(unknown)}; there is `models`")
    models = given.get("models")
    if models is None:
        return {}
    if not isinstance(models, dict):
        raise InvalidRequest("`models` must be an object: {agent id or '*': {'type', 'model'}}")
    for agent, model in models.items():
        if not isinstance(model, dict) or not all(isinstance(model.get(name), str) for name in ("type", "model")):
            raise InvalidRequest(f"the model of agent {agent!r} must be an object with `type` and `model`, both text")
    return {"models": models} if models else {}


def fingerprint(key: str | None, request: Mapping[str, Any]) -> str | None:
    """The hash of a request that came with an idempotency key, by which it is known when it comes again. None without a
    key, and of what is refused anyhow, because it cannot be stored."""
    if key is None:
        return None
    try:
        return content_hash(storable(request))
    except (PayloadFault, PayloadOversize):
        return None


def stored_object(value: dict[str, Any], what: str) -> dict[str, Any]:
    """The object as it will read back. Raises `InvalidRequest`, `PayloadTooLarge`; `what` names it."""
    try:
        return storable(value)
    except PayloadFault as fault:
        raise InvalidRequest(f"{what} cannot be stored: {fault}", details={"faults": list(fault.faults)}) from None
    except PayloadOversize as oversize:
        raise PayloadTooLarge(f"{what} is too large: {oversize}") from None


def check_idempotency_key(key: str | None) -> None:
    """Raise `InvalidRequest` for a key that cannot be kept."""
    if key is not None and not (0 < len(key) <= LONGEST_KEY and key.isprintable()):
        raise InvalidRequest(f"an idempotency key has 1 to {LONGEST_KEY} printable characters")


def check_subjects(subjects: Collection[str]) -> None:
    """Raise `InvalidRequest` for names of subjects that are none."""
    if len(subjects) > MOST_SUBJECTS:
        raise InvalidRequest(f"a case is about {MOST_SUBJECTS} subjects at most, not {len(subjects)}")
    for subject in subjects:
        check_subject(subject)


def check_subject(subject: str) -> None:
    """Raise `InvalidRequest` for what is no name of a subject."""
    if not (0 < len(subject) <= LONGEST_SUBJECT) or not subject.isprintable():
        raise InvalidRequest(f"a subject is named by 1 to {LONGEST_SUBJECT} printable characters")


def meant(name: str, known: Iterable[str]) -> str:
    """What somebody may have meant, to be put behind the name that is not known."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
