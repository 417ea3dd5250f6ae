"""What a new case starts with, checked: pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from circuit.definition.workflow import Workflow
from circuit.engine.payload import PayloadFault, PayloadOversize, storable
from circuit.engine.requirement import requirement
from circuit.errors import InvalidRequest, PayloadTooLarge, TokenRefused
from circuit.events import CaseStarted, TokenImage
from circuit.ids import CaseKey
from circuit.net.marking import Token
from circuit.storage.records import CaseRow, CaseStatus, NewCase
from circuit.value import replace


@dataclass(frozen=True, slots=True)
class TokenInput:
    """A token from outside. Both are JSON objects."""

    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])


def open_case(
    workflow: Workflow,
    token: TokenInput | None,
    key: CaseKey,
    now: datetime,
    principal: str,
    parameters: Mapping[str, Any] | None = None,
    subjects: Collection[str] = (),
) -> NewCase:
    """A new case of `workflow`, about `subjects` beside those that it finds in its tokens. Raises as `opening_tokens`
    does."""
    wanted = parameters or {}
    tokens = opening_tokens(workflow, token, now)
    images = tuple(TokenImage(one.number, one.version, one.place, one.data, one.metadata) for one in tokens)
    event = CaseStarted(workflow.id, workflow.hash, images, principal)
    row = CaseRow(workflow.id, workflow.hash, CaseStatus.RUNNING, 1, len(tokens) + 1, 1, 1, now, parameters=wanted)
    needs, leaving = requirement(workflow, wanted), event.kind in workflow.outbox
    return NewCase(key, row, tokens, event, needs, leaving, (*subjects_of(workflow, tokens), *subjects))


def subjects_of(workflow: Workflow, tokens: Sequence[Token]) -> tuple[str, ...]:
    """Whom a case is about that starts with these tokens, each once. Numbers count as their texts; what is neither is
    nobody."""
    found: dict[str, None] = {}
    for path in workflow.subject:
        for token in tokens:
            value = path.get({"data": token.data, "metadata": token.metadata})
            if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
                found[str(value)] = None
    return tuple(found)


def traced(new: NewCase, traceparent: str | None) -> NewCase:
    """`new` in the trace of whoever starts it, if he is traced."""
    return new if traceparent is None else replace(new, row=replace(new.row, traceparent=traceparent))


def opening_tokens(workflow: Workflow, token: TokenInput | None, now: datetime) -> list[Token]:
    """What a new case of `workflow` starts with: the tokens that its places hold from the beginning, and `token` (an
    empty one, where none is given and no place holds any) in its initial place.

    Raises `TokenRefused` with every fault, `PayloadTooLarge`, and `InvalidRequest` where the workflow has no place
    for the token.
    """
    laid = [(one.place, TokenInput(one.data, one.metadata)) for one in workflow.initial_tokens]
    initial = workflow.net.initial_place
    if token is None and not laid:
        if initial is None:
            raise InvalidRequest(
                f"workflow {workflow.id} has no initial place and no place that holds tokens: a case could not begin"
            )
        token = TokenInput()
    if token is not None:
        if initial is None:
            raise InvalidRequest(
                f"workflow {workflow.id} has no initial place for a token; start it without one, or mark a place "
                "`initial: true`"
            )
        laid.insert(0, (initial.name, token))
    tokens = [_checked(workflow, number, place, one, now) for number, (place, one) in enumerate(laid, 1)]
    for place, count in Counter(token.place for token in tokens).items():
        capacity = workflow.net.places[place].capacity
        if capacity is not None and count > capacity:
            raise TokenRefused(f"place {place} takes {capacity} tokens, and a case would start with {count} there")
    return tokens


def _named(fault: str) -> str:
    """A fault of the pair of data and metadata, told by their names."""
    for number, name in enumerate(("data", "metadata")):
        if fault.startswith(f"[{number}]"):
            return name + fault[3:]
    return fault


def _checked(workflow: Workflow, number: int, place: str, token: TokenInput, now: datetime) -> Token:
    for name, part in (("data", token.data), ("metadata", token.metadata)):
        if not isinstance(part, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TokenRefused(f"the {name} of a token is a JSON object, not {type(part).__name__}")
    try:
        data, metadata = storable([dict(token.data), dict(token.metadata)])
    except PayloadFault as fault:
        faults = [_named(text) for text in fault.faults]
        raise TokenRefused(
            f"the token for place {place} cannot be stored: {'; '.join(faults)}", details={"faults": faults}
        ) from None
    except PayloadOversize as oversize:
        raise PayloadTooLarge(
            f"the token for place {place} is too large: {oversize}. Store the document elsewhere and refer to it."
        ) from None
    colour = workflow.net.places[place].colour
    if colour is not None and (faults := colour.faults(data)):
        raise TokenRefused(
            f"the token does not fit place {place} (colour {colour.name}): {'; '.join(faults)}",
            details={"faults": list(faults)},
        )
    return Token(number, 1, place, data, metadata, now)
