"""One run of an agent: what is emitted, journalled and asked, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import orjson
import pytest
from surroundings import Book, Speaker

from circuit.agents import answer as answer_module
from circuit.agents.agent import ANSWER_STEP, run_agent
from circuit.agents.run import AgentRun
from circuit.errors import InvalidOutput, ModelRefusal, OutputTruncated, RateLimited, StreamCut
from circuit.events import StreamDelta
from circuit.providers.messages import Message, OpaquePart, ReasoningPart, Role, TextPart, part_from
from circuit.providers.provider import Finished, ModelChunk, ModelRequest, ReasoningChunk, TextChunk

SCHEMA = {"type": "object", "required": ["verdict"], "properties": {"verdict": {"enum": ["yes", "no"]}}}
END = Finished("stop", "model-7", {"input_tokens": 3, "output_tokens": 4})
KEPT = {
    "text": '{"verdict": "no"}',
    "finish": "stop",
    "usage": {"input_tokens": 1},
    "model": "m",
    "at": "2026-01-01T00:00:00.000Z",
}


def run(**more: Any) -> AgentRun:
    return AgentRun(model="model", messages=(Message.text(Role.USER, "?"),), **more)


async def test_what_no_row_holds_of_what_a_server_says_of_its_answer_is_left_out() -> None:
    sealed = ReasoningPart("why", {"protocol": "p", "signature": "\0"})
    parts = (TextPart("x"), sealed, OpaquePart({"protocol": "p", "n": 10**30}))
    odd = Finished("stop", "m\ud83d", {}, parts, {"n": 10**30}, "why\0")
    book = Book()
    await run_agent(run(), Speaker(TextChunk("x"), odd), book)
    kept = book.steps[ANSWER_STEP]
    assert (kept["model"], kept["detail"], kept.get("raw_usage")) == ("m?", "why\ufffd", None)
    assert [part_from(one) for one in kept["parts"]] == [TextPart("x"), ReasoningPart("why")]
    orjson.dumps(kept)


async def test_the_answer_is_streamed_journalled_and_only_then_interpreted() -> None:
    book = Book()
    speaker = Speaker(ReasoningChunk("hm"), TextChunk('{"verdict"'), TextChunk(': "yes"}'), END)
    result = await run_agent(run(output_schema=SCHEMA, occurrence=2, attempt=3), speaker, book, book.fault)
    assert result.output == {"verdict": "yes"}
    assert (result.answer.model, result.answer.usage) == ("model-7", {"input_tokens": 3, "output_tokens": 4})
    assert book.deltas == [
        StreamDelta.thinking("reasoning", "hm"),
        StreamDelta.content('{"verdict"'),
        StreamDelta.content(': "yes"}'),
    ]
    assert book.order == [
        "thinking",
        "content_chunk",
        "before_answer",
        "content_chunk",
        "after_answer",
        f"record {ANSWER_STEP}",
        "after_journal",
    ]
    assert book.steps[ANSWER_STEP] == {
        "text": '{"verdict": "yes"}',
        "finish": "stop",
        "usage": {"input_tokens": 3, "output_tokens": 4},
        "model": "model-7",
        "at": "2026-11-21T09:30:00.250Z",
    }
    assert (speaker.requests[0].occurrence, speaker.requests[0].attempt) == (2, 3)
    assert speaker.closed == 1


async def test_a_journalled_answer_is_used_and_nothing_is_asked() -> None:
    book, speaker = Book({ANSWER_STEP: KEPT}), Speaker()
    result = await run_agent(run(output_schema=SCHEMA), speaker, book, book.fault)
    assert speaker.requests == []
    assert result.output == {"verdict": "no"}
    assert result.answer.as_dict() == KEPT
    assert book.text == KEPT["text"]
    assert book.order == ["content_chunk"]


async def test_a_long_journalled_answer_is_emitted_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_module, "REPLAY_PIECE", 4)
    book = Book({ANSWER_STEP: KEPT | {"text": "0123456789"}})
    await run_agent(run(), Speaker(), book)
    assert [delta.fields["content"] for delta in book.deltas] == ["0123", "4567", "89"]


async def test_the_first_write_into_the_journal_wins() -> None:
    class Forestalled(Book):
        async def record(self, step: str, value: Any) -> Any:
            return KEPT

    result = await run_agent(run(output_schema=SCHEMA), Speaker(TextChunk('{"verdict": "yes"}'), END), Forestalled())
    assert result.output == {"verdict": "no"}


async def test_an_answer_of_no_use_is_journalled_all_the_same() -> None:
    for chunks, error in (
        ((TextChunk("no json"), END), InvalidOutput),
        ((TextChunk("{"), Finished("length", "m")), OutputTruncated),
        ((TextChunk("never"), Finished("refusal", "m")), ModelRefusal),
    ):
        book = Book()
        with pytest.raises(error):
            await run_agent(run(output_schema=SCHEMA), Speaker(*chunks), book)
        assert ANSWER_STEP in book.steps


@pytest.mark.parametrize("text", ["a\0b", "a\ud83d"])
@pytest.mark.parametrize("kind", [TextChunk, ReasoningChunk])
async def test_text_that_no_row_can_hold_is_refused_before_it_is_emitted(kind: Any, text: str) -> None:
    book, speaker = Book(), Speaker(TextChunk("fine"), kind(text), END)
    with pytest.raises(InvalidOutput):
        await run_agent(run(), speaker, book)
    assert (book.text, book.steps, speaker.closed) == ("fine", {}, 1)


async def test_an_endless_answer_is_cut_off() -> None:
    said = 0

    class Endless:
        async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
            nonlocal said
            while True:
                said += 1
                yield TextChunk("ü" * 256 * 1024)

    with pytest.raises(InvalidOutput, match="longer than"):
        await run_agent(run(), Endless(), Book())
    assert said == 9


async def test_errors_of_the_provider_pass_and_leave_the_journal_empty() -> None:
    for speaker, error in (
        (Speaker(TextChunk("half"), RateLimited("slow", retry_after=3)), RateLimited),
        (Speaker(TextChunk("half")), StreamCut),
    ):
        book = Book()
        with pytest.raises(error):
            await run_agent(run(), speaker, book)
        assert (book.text, book.steps) == ("half", {})


async def test_cancelling_closes_the_stream() -> None:
    waiting = asyncio.Event()
    closed = False

    class Stuck:
        async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
            nonlocal closed
            try:
                yield TextChunk("half")
                waiting.set()
                await asyncio.Event().wait()
            finally:
                closed = True

    task = asyncio.ensure_future(run_agent(run(), Stuck(), Book()))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed


async def test_an_emit_that_fails_closes_the_stream() -> None:
    class Broken(Book):
        async def emit(self, delta: StreamDelta) -> None:
            raise RuntimeError("the outlet is closed")

    speaker = Speaker(TextChunk("a"), END)
    with pytest.raises(RuntimeError):
        await run_agent(run(), speaker, Broken())
    assert speaker.closed == 1
