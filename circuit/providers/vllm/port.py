"""The engine of a model, as its process sees it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol

from circuit.errors import ProviderError

Message = tuple[str, Any]

PIECES = ("text", "delta")
"""The kinds of messages that an answer may have several of."""
_TEXTS = ("content", "reasoning")


def joined(last: Message, new: Message) -> Message | None:
    """`last` with the text of `new`, which came behind it, or None where the two are not one text."""
    (kind, before), (other, after) = last, new
    if kind != other or kind not in PIECES:
        return None
    if kind == "text":
        return kind, before + after
    for name in _TEXTS:
        if before.keys() == after.keys() == {name}:
            return kind, {name: before[name] + after[name]}
    return None


class EngineFault(ProviderError):
    """What an engine cannot do, on its way to the other side, which makes one of its errors of it. `cause` is the code
    of that one, or the status that a server would have answered with."""

    def __init__(self, cause: str | int, message: str) -> None:
        super().__init__(message)
        self.cause = cause

    def as_dict(self) -> dict[str, Any]:
        return {"code": self.cause, "message": self.message}


class EngineDead(ProviderError):
    """The engine has ended under its requests: nothing that this process could still do would help."""


class Engine(Protocol):
    """A model that is loaded."""

    def about(self) -> Mapping[str, Any]:
        """What the other side is told of it: `context`, `tasks`, `version`."""
        ...

    def answer(self, kind: str, request_id: str, order: Mapping[str, Any]) -> AsyncGenerator[Message, None]:
        """The pieces of an answer and at last `("end", CONTENT)`. Closing it ends the request in the engine. Raises
        `EngineFault` and `EngineDead`."""
        ...

    async def close(self) -> None: ...
