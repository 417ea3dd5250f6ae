"""What becomes of a case that a chat client waits for, piece by piece, from its events and its stream.

A chat client cannot be told that what it heard no longer counts. Where an execution starts again, what it says again is
left out as long as it is the same; where it is not, the stream fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import orjson

from circuit.errors import Conflict, NoWorker
from circuit.events import (
    CaseEnded,
    CaseEvent,
    CaseMigrated,
    CaseStarted,
    FiringBegun,
    FiringFailed,
    Frame,
    StreamType,
    TokenImage,
    TokensChanged,
    TransitionFired,
)
from circuit.ids import CaseKey, parse_numbered
from circuit.streams.subscription import Streams


@dataclass(frozen=True, slots=True)
class Begun:
    """An execution has begun."""

    execution_id: str


@dataclass(frozen=True, slots=True)
class Said:
    """A piece of the answer, or (`thought`) of the reasoning before it."""

    text: str
    thought: bool = False


@dataclass(frozen=True, slots=True)
class Called:
    """A call that the client has to make. `number` counts them from 0."""

    number: int
    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The end: the answer of a consultation, or what a workflow came to."""

    answer: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """The end: there is no answer. `error` is `{code, message, retryable}`."""

    error: Mapping[str, Any]


Piece = Begun | Said | Called | Answered | Failed


async def consulted(
    streams: Streams, key: CaseKey, functions: Collection[str], *, aloud: bool
) -> AsyncGenerator[Piece, None]:
    """The pieces of a consultation; what it says before its end only where it is heard `aloud`."""
    telling = _Telling(functions)
    answer: Any = None
    error: Mapping[str, Any] | None = None
    async with aclosing(streams.follow(key)) as events:
        async for _, _, event in events:
            if isinstance(event, FiringBegun):
                yield Begun(event.execution_id)
                execution = parse_numbered(event.execution_id)
                if aloud and execution is not None:
                    async with aclosing(streams.subscribe(execution, key.tenant)) as frames:
                        async for frame in frames:
                            for piece in telling.pieces(frame):
                                yield piece
            elif isinstance(event, TransitionFired) and event.produced:
                answer = event.produced[0].data.get("answer")
            elif isinstance(event, FiringFailed):
                error = event.error
            elif isinstance(event, CaseEnded):
                yield Answered(answer) if answer is not None else Failed(error or _ended(event))


async def ran(streams: Streams, key: CaseKey) -> AsyncGenerator[Piece, None]:
    """The end of a workflow's case: the data of the token that it came to, or a list where there are several."""
    tokens: dict[int, TokenImage] = {}
    async with aclosing(streams.follow(key)) as events:
        async for _, _, event in events:
            _move(tokens, event)
            if isinstance(event, FiringFailed) and event.incident is not None:
                yield Failed(event.error)
                return
            if isinstance(event, CaseEnded):
                data = [tokens[number].data for number in sorted(tokens)]
                output = data[0] if len(data) == 1 else data
                yield Answered(output) if event.status == "completed" else Failed(_ended(event))


async def attended(
    pieces: AsyncGenerator[Piece, None], missing: Callable[[], Awaitable[str]], seconds: float
) -> AsyncGenerator[Piece, None]:
    """`pieces`, as long as somebody can come to them. Raises `NoWorker` where `missing` says twice, each time after so
    many `seconds` without a piece, why nobody takes the case: a worker may be about to follow another."""
    async with aclosing(pieces):
        while True:
            following = asyncio.ensure_future(anext(pieces, None))
            try:
                said = ""
                while not (await asyncio.wait([following], timeout=seconds))[0]:
                    before, said = said, await missing()
                    if before and said:
                        raise NoWorker(said)
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            piece = following.result()
            if piece is None:
                return
            yield piece


def _move(tokens: dict[int, TokenImage], event: CaseEvent) -> None:
    if isinstance(event, TransitionFired | FiringFailed | TokensChanged | CaseMigrated):
        removed = event.removed if isinstance(event, TransitionFired) else ()
        for gone in (*event.consumed, *removed):
            tokens.pop(gone.number, None)
    if isinstance(event, CaseStarted | TransitionFired | FiringFailed | TokensChanged | CaseMigrated):
        tokens.update({token.number: token for token in event.produced})


def _ended(event: CaseEnded) -> Mapping[str, Any]:
    code = "cancelled" if event.status == "cancelled" else "case_failed"
    reason = f": {event.reason}" if event.reason else ""
    return {"code": code, "message": f"the case ended as {event.status}{reason}", "retryable": False}


class _Telling:
    """What one listener has heard of an execution."""

    def __init__(self, functions: Collection[str]) -> None:
        self._functions = functions
        self._heard = ""
        self._place = 0
        self._calls: dict[str, int] = {}

    def pieces(self, frame: Frame) -> list[Piece]:
        """What `frame` adds. Raises `Conflict` where it contradicts what was heard."""
        if frame.type is StreamType.RESTARTED:
            self._place = 0
            return []
        if frame.type not in (StreamType.CONTENT_CHUNK, StreamType.THINKING, StreamType.TOOL_CALL):
            if frame.type is StreamType.COMPLETED and self._place < len(self._heard):
                raise _contradiction()
            return []
        fields: Mapping[str, Any] = orjson.loads(frame.body)
        if frame.type is StreamType.TOOL_CALL:
            return self._called(fields)
        text = fields.get("content") or ""
        if frame.type is StreamType.THINKING:
            return [Said(text, thought=True)] if text else []
        again = self._heard[self._place : self._place + len(text)]
        if not text.startswith(again):
            raise _contradiction()
        new = text[len(again) :]
        self._heard += new
        self._place += len(text)
        return [Said(new)] if new else []

    def _called(self, fields: Mapping[str, Any]) -> list[Piece]:
        name, call_id = fields["toolName"], str(fields.get("callId") or "")
        if name not in self._functions or call_id in self._calls:
            return []
        number = self._calls[call_id] = len(self._calls)
        return [Called(number, call_id, name, orjson.dumps(fields.get("arguments") or {}).decode())]


def _contradiction() -> Conflict:
    return Conflict(
        "the agent began its answer anew, and what was streamed before no longer counts: ask without stream"
    )
