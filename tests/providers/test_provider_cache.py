"""The cache of answers: which requests are identical, what is kept, and that it costs no answer when it fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from replay import ASKED

from circuit.errors import DatabaseUnreachable, StreamCut
from circuit.providers.cache import CachedProvider, digest_of, place_of
from circuit.providers.messages import Message, ReasoningPart, Role, TextPart, ToolCallPart
from circuit.providers.provider import (
    Finished,
    ModelChunk,
    ModelRequest,
    ReasoningChunk,
    Restarted,
    TextChunk,
    ToolCallChunk,
    ToolSpec,
)

SPEC = {"type": "openai", "model": "m", "options": {"base_url": "https://a", "api_key": "${A}"}}
CALL = ToolCallPart("c1", "look", '{"a": 1}', {"protocol": "p", "id": 7})
WHOLE = Finished(
    "tool_calls", "m-1", {"input_tokens": 9}, (ReasoningPart("hm"), TextPart("Let me look."), CALL), {"raw": 1}, "d"
)
SAID: tuple[ModelChunk, ...] = (
    ReasoningChunk("hm"),
    TextChunk("Let me "),
    TextChunk("look."),
    ToolCallChunk(0, "c1", "look", '{"a": 1}'),
    WHOLE,
)


class Model:
    def __init__(self, *chunks: ModelChunk | Exception) -> None:
        self.chunks = chunks or SAID
        self.asked = 0

    async def stream(self, request: ModelRequest) -> Any:
        self.asked += 1
        for chunk in self.chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk


class Store:
    def __init__(self, fails: bool = False) -> None:
        self.kept: dict[bytes, tuple[Mapping[str, Any], float]] = {}
        self.fails = fails

    async def find(self, digest: bytes) -> Mapping[str, Any] | None:
        if self.fails:
            raise DatabaseUnreachable("gone")
        return self.kept[digest][0] if digest in self.kept else None

    async def keep(self, digest: bytes, answer: Mapping[str, Any], seconds: float) -> None:
        if self.fails:
            raise DatabaseUnreachable("gone")
        self.kept[digest] = (answer, seconds)


async def hear(model: Model, store: Store, asked: ModelRequest = ASKED) -> list[ModelChunk]:
    """As an agent does: it looks first whether the answer is there."""
    provider = CachedProvider(model, SPEC, store, 60.0)
    kept = await provider.recall(asked)
    return [chunk async for chunk in provider.stream(asked)] if kept is None else list(kept)


async def test_the_second_time_nobody_is_asked() -> None:
    model, store = Model(), Store()
    assert await hear(model, store) == list(SAID)
    again = await hear(model, store, replace(ASKED, turn=3, occurrence=2))
    assert model.asked == 1
    assert [type(chunk) for chunk in again] == [ReasoningChunk, TextChunk, ToolCallChunk, Finished]
    end = again[-1]
    assert isinstance(end, Finished)
    assert (end.parts, end.reason, end.model, end.detail, end.cached) == (WHOLE.parts, "tool_calls", "m-1", "d", True)
    assert end.usage == {"input_tokens": 0, "output_tokens": 0, "cached_answers": 1}
    assert end.raw_usage == {"input_tokens": 9}
    assert [seconds for _, seconds in store.kept.values()] == [60.0]


async def test_a_second_attempt_asks_and_its_answer_counts_from_then_on() -> None:
    model, store = Model(TextChunk("one"), Finished("stop", "m")), Store()
    await hear(model, store)
    model.chunks = (TextChunk("lost"), Restarted("x"), TextChunk("two"), Finished("stop", "m"))
    await hear(model, store, replace(ASKED, attempt=2))
    again = await hear(model, store)
    assert model.asked == 2
    assert again[0] == TextChunk("two")


@pytest.mark.parametrize(
    "chunks",
    [
        (TextChunk("half"), Finished("length", "m")),
        (TextChunk("no"), Finished("refusal", "m")),
        (Finished("content_filter", "m"),),
        (TextChunk("half"), StreamCut("cut")),
        (TextChunk("half"),),
    ],
)
async def test_what_came_to_no_regular_end_is_not_kept(chunks: tuple[Any, ...]) -> None:
    model, store = Model(*chunks), Store()
    for _ in range(2):
        try:
            await hear(model, store)
        except StreamCut:
            continue
    assert (model.asked, store.kept) == (2, {})


async def test_a_store_that_fails_costs_no_answer() -> None:
    model = Model()
    assert await hear(model, Store(fails=True)) == list(SAID)


def test_requests_are_identical_where_the_model_sees_no_difference() -> None:
    same = digest_of(place_of(SPEC), ASKED)
    other_key = {**SPEC, "options": {"base_url": "https://a", "api_key": "${B}", "limits": {"concurrency": 1}}}
    assert digest_of(place_of(other_key), replace(ASKED, turn=9, occurrence=9)) == same
    tool = ToolSpec("t", "does", {"type": "object"})
    different = [
        digest_of(place_of({**SPEC, "type": "custom"}), ASKED),
        digest_of(place_of({**SPEC, "options": {"base_url": "https://b"}}), ASKED),
        *[
            digest_of(place_of(SPEC), replace(ASKED, **change))
            for change in (
                {"model": "other"},
                {"messages": (*ASKED.messages, Message.text(Role.USER, "more"))},
                {"messages": tuple(Message(Role.SYSTEM, message.parts) for message in ASKED.messages)},
                {"parameters": {"temperature": 0.1}},
                {"output_schema": {"type": "object"}},
                {"tools": (tool,)},
                {"tools": (replace(tool, description="does more"),)},
                {"tool_choice": "none"},
            )
        ],
    ]
    assert len({same, *different}) == len(different) + 1
