"""What a client of `/stream` may say, and what it is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import orjson
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from circuit.api.problems import shown
from circuit.errors import CircuitError, InvalidRequest

LONGEST_MESSAGE = 64 * 1024
"""Bytes of a client's message."""

Id = Annotated[str, Field(min_length=1, max_length=100)]


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Init(_Said):
    """Who asks, where the handshake did not say it."""

    type: Literal["init"]
    authorization: str


class Subscribe(_Said):
    """Begins a subscription to one of the three. `after` is where it goes on: the cursor of a frame, the number of a
    case's event, or the mark of a workflow's."""

    type: Literal["subscribe"]
    id: Id
    execution: str | None = None
    case: str | None = None
    workflow: str | None = None
    after: Annotated[str | int | None, Field(validation_alias=AliasChoices("after", "since"))] = None


class Unsubscribe(_Said):
    """Ends a subscription."""

    type: Literal["unsubscribe"]
    id: Id


class Ping(_Said):
    """Is answered with `pong`."""

    type: Literal["ping"]


Said = Init | Subscribe | Unsubscribe | Ping
_SAID: TypeAdapter[Said] = TypeAdapter(Annotated[Said, Field(discriminator="type")])


def said(text: str) -> tuple[Said | None, str | None, InvalidRequest | None]:
    """The message in `text`; or what is wrong with it, and the id that it named, if it named one."""
    try:
        value: Any = orjson.loads(text)
    except ValueError:
        return None, None, InvalidRequest("a message is a JSON object in a text frame, and this is no JSON")
    if not isinstance(value, dict):
        return None, None, InvalidRequest("a message is a JSON object with a `type`, and this is none")
    try:
        message = _SAID.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in first["loc"][1:])
        fault = InvalidRequest(f"this message cannot be used: {f'{path}: ' if path else ''}{first['msg']}")
        return None, _id_of(value), fault
    if isinstance(message, Subscribe):
        targets = [one for one in (message.execution, message.case, message.workflow) if one is not None]
        if len(targets) != 1:
            fault = InvalidRequest("subscribe names one of execution, case and workflow")
            return None, message.id, fault
    return message, None, None


def _id_of(value: Any) -> str | None:
    found: Any = value.get("id") if isinstance(value, dict) else None
    return found if isinstance(found, str) and len(found) <= 100 else None


def told(kind: str, subscription: str | None = None, **fields: Any) -> str:
    """A message to the client."""
    named: Mapping[str, Any] = {} if subscription is None else {"id": subscription}
    return orjson.dumps({"type": kind, **named, **fields}).decode()


def failure(error: CircuitError, subscription: str | None = None) -> str:
    """An error as a message: of one subscription, which it ends, or of something that the client said."""
    return told("error", subscription, error=shown(error).as_dict())


def before_frame(subscription: str) -> str:
    """What stands before a frame in the message that carries it; a brace closes it."""
    return f'{{"type":"next","id":{orjson.dumps(subscription).decode()},"frame":'
