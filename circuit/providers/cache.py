"""Answers an identical request from a store instead of asking the model again.

Two requests are identical where all that a model sees of them is: its name, the messages, the parameters, the tools,
the schema; and where they would go to the same provider with the same settings. Which execution asks, and in which
turn, makes no difference. Only answers that came to a regular end are kept. A second attempt at something asks the
model: the answer that is kept may be the one that failed.

A store that fails costs no answer: the model is asked then.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol

import orjson

from circuit.errors import CircuitError
from circuit.providers.messages import Part, ReasoningPart, TextPart, ToolCallPart, message_json, part_from, part_json
from circuit.providers.provider import (
    Finished,
    ModelChunk,
    ModelRequest,
    Provider,
    ReasoningChunk,
    Restarted,
    TextChunk,
    ToolCallChunk,
)

logger = logging.getLogger(__name__)

KEPT = ("stop", "tool_calls")
"""The reasons of answers that are kept."""
USAGE: Mapping[str, Any] = {"input_tokens": 0, "output_tokens": 0, "cached_answers": 1}
_UNSEEN = ("api_key", "limits", "price")
"""Options of a provider that have no part in what it answers."""


class AnswerStore(Protocol):
    """Where answers are kept. `circuit.engine.answers` supplies it."""

    async def find(self, digest: bytes) -> Mapping[str, Any] | None:
        """The answer that is kept under `digest`, unless its time is over."""
        ...

    async def keep(self, digest: bytes, answer: Mapping[str, Any], seconds: float) -> None:
        """Keep `answer` (JSON) for so long, in the place of what was kept before."""
        ...


class CachedProvider:
    """Asks `inner`, of the provider that `spec` names, and keeps what it answers in `store`, which is looked into
    before."""

    def __init__(self, inner: Provider, spec: Mapping[str, Any], store: AnswerStore, seconds: float) -> None:
        self._inner = inner
        self._place = place_of(spec)
        self._store = store
        self._seconds = seconds

    async def recall(self, request: ModelRequest) -> Sequence[ModelChunk] | None:
        kept = await self._found(digest_of(self._place, request)) if request.attempt == 1 else None
        return None if kept is None else _said_again(kept)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
        digest = digest_of(self._place, request)
        pieces: list[str] = []
        async with aclosing(self._inner.stream(request)) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, TextChunk):
                    pieces.append(chunk.text)
                elif isinstance(chunk, Restarted):
                    pieces.clear()
                elif isinstance(chunk, Finished) and chunk.reason in KEPT:
                    await self._keep(digest, _answer(chunk, "".join(pieces)))
                yield chunk

    async def _found(self, digest: bytes) -> Mapping[str, Any] | None:
        try:
            return await self._store.find(digest)
        except CircuitError as error:
            logger.warning("the cache of answers cannot be read, so the model is asked: %s", error)
            return None

    async def _keep(self, digest: bytes, answer: Mapping[str, Any]) -> None:
        try:
            await self._store.keep(digest, answer, self._seconds)
        except CircuitError as error:
            logger.warning("an answer is not kept in the cache: %s", error)


def place_of(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a provider, what its answers depend on. Secrets are references in it, and are not looked up."""
    options: Mapping[str, Any] = spec.get("options") or {}
    seen = {name: value for name, value in options.items() if name not in _UNSEEN}
    return {"type": spec.get("type"), "options": seen}


def digest_of(place: Mapping[str, Any], request: ModelRequest) -> bytes:
    """What stands for `request` at `place`: the SHA-256 of both as canonical JSON."""
    told = {
        "place": place,
        "model": request.model,
        "messages": [message_json(message) for message in request.messages],
        "parameters": request.parameters,
        "output_schema": request.output_schema,
        "schema_name": request.schema_name,
        "tools": [[tool.name, tool.description, tool.parameters] for tool in request.tools],
        "tool_choice": request.tool_choice,
    }
    return hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS)).digest()


def _answer(finished: Finished, text: str) -> dict[str, Any]:
    """A whole answer as JSON."""
    parts = finished.parts or ((TextPart(text),) if text else ())
    return {
        "reason": finished.reason,
        "model": finished.model,
        "usage": dict(finished.usage),
        "detail": finished.detail,
        "parts": [part_json(part) for part in parts],
    }


def _said_again(kept: Mapping[str, Any]) -> list[ModelChunk]:
    """The chunks of a kept answer. It took nothing; what the first one took is its provider's own account."""
    parts: tuple[Part, ...] = tuple(part_from(part) for part in kept["parts"])
    chunks: list[ModelChunk] = []
    calls = 0
    for part in parts:
        if isinstance(part, TextPart) and part.text:
            chunks.append(TextChunk(part.text))
        elif isinstance(part, ReasoningPart) and part.text:
            chunks.append(ReasoningChunk(part.text))
        elif isinstance(part, ToolCallPart):
            chunks.append(ToolCallChunk(calls, part.id, part.name, part.arguments))
            calls += 1
    return [*chunks, Finished(kept["reason"], kept["model"], USAGE, parts, kept["usage"], kept["detail"], cached=True)]
