"""One answer of a model: heard as it comes, kept as the journal keeps it, said again after a crash."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import field
from datetime import UTC
from typing import Any

from circuit.agents.output import check_size, check_text, unstorable
from circuit.agents.ports import Journal
from circuit.errors import StreamCut
from circuit.events import StreamDelta
from circuit.providers.messages import (
    ImagePart,
    OpaquePart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    calls_of,
    part_from,
    part_json,
)
from circuit.providers.provider import Finished, ModelChunk, ReasoningChunk, Restarted, ToolCallChunk
from circuit.value import dataclass, replace

REPLAY_PIECE = 16 * 1024
"""How many characters of a journalled answer go into one stream event."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's whole answer, as the journal keeps it. `at` is when it was whole (ISO 8601, UTC); `cost` is in US
    dollars, None where no price is known; `note` is what a strategy keeps with it. `cached`: no model was
    asked for it. `choice` is which of its run's models answered; `agent`, `provider` (its type) and `asked` (the name
    of the model) say who asked whom."""

    text: str
    finish: str
    usage: Mapping[str, Any]
    model: str
    at: str
    parts: tuple[Part, ...] = ()
    raw_usage: Mapping[str, Any] = field(default_factory=dict[str, Any])
    detail: str = ""
    cost: float | None = None
    note: Mapping[str, Any] = field(default_factory=dict[str, Any])
    cached: bool = False
    restarts: int = 0
    choice: int = 0
    agent: str = ""
    provider: str = ""
    asked: str = ""

    @property
    def calls(self) -> tuple[ToolCallPart, ...]:
        return calls_of(self.parts)

    @property
    def account(self) -> dict[str, Any]:
        """What it took, as JSON, without anything that it said."""
        return replace(self, text="", parts=(), detail="", note={}).as_dict()

    def as_dict(self) -> dict[str, Any]:
        """The answer as JSON; what the text alone says is not said twice."""
        plain = self.parts in ((), (TextPart(self.text),))
        more = {
            "parts": [] if plain else [part_json(part) for part in self.parts],
            "raw_usage": dict(self.raw_usage),
            "detail": self.detail,
            "note": dict(self.note),
            "cached": self.cached,
            "agent": self.agent,
            "provider": self.provider,
            "asked": self.asked,
        }
        return {
            "text": self.text,
            "finish": self.finish,
            "usage": dict(self.usage),
            "model": self.model,
            "at": self.at,
            **{name: value for name, value in more.items() if value},
            **({} if self.cost is None else {"cost": self.cost}),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Answer:
        text = value["text"]
        parts = tuple(part_from(part) for part in value.get("parts", ()))
        return cls(
            text,
            value["finish"],
            value["usage"],
            value["model"],
            value["at"],
            parts or ((TextPart(text),) if text else ()),
            value.get("raw_usage", {}),
            value.get("detail", ""),
            value.get("cost", 0.0 if value.get("cached") else None),
            value.get("note", {}),
            value.get("cached", False),
            agent=value.get("agent", ""),
            provider=value.get("provider", ""),
            asked=value.get("asked", ""),
        )


class Voice:
    """How what a model says is told to the readers: as the answer itself, or as thinking under a status."""

    def __init__(self, journal: Journal, status: str = "") -> None:
        self._journal = journal
        self._status = status

    async def say(self, text: str) -> None:
        if self._status:
            await self._journal.emit(StreamDelta.thinking(self._status, text))
        else:
            await self._journal.emit(StreamDelta.content(text))

    async def think(self, text: str) -> None:
        await self._journal.emit(StreamDelta.thinking("reasoning", text))

    async def restart(self, reason: str) -> None:
        await self._journal.emit(StreamDelta.restarted(reason))

    async def again(self, text: str) -> None:
        """Say a whole text, in pieces that a reader can take."""
        for begin in range(0, len(text), REPLAY_PIECE):
            await self.say(text[begin : begin + REPLAY_PIECE])


class Silence(Voice):
    """Tells the readers nothing: somebody looks at the answer first."""

    async def say(self, text: str) -> None:
        return None

    async def think(self, text: str) -> None:
        return None

    async def restart(self, reason: str) -> None:
        return None


async def hear(
    stream: AsyncGenerator[ModelChunk, None],
    voice: Voice,
    journal: Journal,
    model: str,
    begin: Callable[[], None] = lambda: None,
) -> Answer:
    """The whole answer of a stream; what it says is told as it comes.

    Raises `InvalidOutput` for what no row can hold, `StreamCut` where the stream has no end. `begin` is called when
    the first text was said.
    """
    pieces: list[str] = []
    finished: Finished | None = None
    size = restarts = 0
    # Closing the stream, however this ends, closes the connection and so cancels the request.
    async with aclosing(stream) as chunks:
        async for chunk in chunks:
            if isinstance(chunk, Finished):
                finished = chunk
                continue
            if isinstance(chunk, Restarted):
                pieces.clear()
                size = 0
                restarts += 1
                await voice.restart(chunk.reason)
                continue
            text = chunk.arguments if isinstance(chunk, ToolCallChunk) else chunk.text
            size += len(text.encode("utf-8", "surrogatepass"))
            check_size(size)
            if isinstance(chunk, ToolCallChunk):
                continue
            check_text(text)
            if isinstance(chunk, ReasoningChunk):
                await voice.think(text)
                continue
            pieces.append(text)
            await voice.say(text)
            if len(pieces) == 1:
                begin()
    if finished is None:
        raise StreamCut("the provider ended its stream before the answer was whole")
    at = journal.now().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    text = "".join(pieces)
    raw = {} if unstorable(finished.raw_usage) else finished.raw_usage
    kept = (_storable(part) for part in finished.parts)
    parts = tuple(part for part in kept if part is not None) or ((TextPart(text),) if text else ())
    return Answer(
        text,
        finished.reason,
        finished.usage,
        _clean(finished.model) or model,
        at,
        parts,
        raw,
        _clean(finished.detail),
        cached=finished.cached,
        restarts=restarts,
        choice=finished.choice,
    )


def _storable(part: Part) -> Part | None:
    """What comes from outside may hold anything: what no row can hold becomes U+FFFD, and a provider's own note that
    holds such is left out."""
    if isinstance(part, ImagePart | ToolResultPart):
        return part
    state = None if part.state is None or unstorable(part.state) else part.state
    if isinstance(part, ToolCallPart):
        return ToolCallPart(_clean(part.id), _clean(part.name), _clean(part.arguments), state)
    if isinstance(part, OpaquePart):
        return None if state is None else part
    return (ReasoningPart if isinstance(part, ReasoningPart) else TextPart)(_clean(part.text), state)


def _clean(text: str) -> str:
    return (
        text
        if text.isascii() and "\0" not in text
        else text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    )
