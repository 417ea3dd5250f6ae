"""What every adapter must do, run on each of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import jsonschema_rs
import pytest
from chat_server import ChatServer
from replay import finished_of, reasoning_of, text_of

from circuit.errors import BadResponse, ModelRequestRefused, ProviderError, ProviderUnavailable, RateLimited, StreamCut
from circuit.providers.messages import Message, Role
from circuit.providers.provider import ModelChunk, ModelRequest, Provider, TextChunk
from circuit.providers.registry import ProviderRegistry

SCHEMA = {
    "type": "object",
    "required": ["verdict", "score"],
    "properties": {"verdict": {"enum": ["yes", "no"]}, "score": {"type": "integer", "minimum": 1, "maximum": 10}},
}
TEXT = "Der Text geht über Grenzen:\u2028 und weiter \u0085 … 😀"


def request(**more: Any) -> ModelRequest:
    messages = (Message.text(Role.SYSTEM, "Be brief."), Message.text(Role.USER, "Well?"))
    return ModelRequest(model="some-model", messages=messages, **more)


@dataclass
class Bench:
    """A provider that will answer as `replies` say, and how to see that a cancelled request ended on its side."""

    provider: Provider
    at_pause: Callable[[], Any]
    ended: Callable[[], Any]


@asynccontextmanager
async def remote(kind: str, replies: list[dict[str, Any]]) -> AsyncIterator[Bench]:
    async with ChatServer(replies) as server:
        environment = {"OPENAI_BASE_URL": server.url} if kind == "openai" else {}
        options = {"base_url": server.url} if kind == "custom" else {}
        registry = ProviderRegistry(environment)
        provider = registry.provider({"type": kind, "model": "some-model", "options": options})
        yield Bench(provider, server.at_gate, lambda: server.wait_for(lambda s: s.requests[-1].disconnected))
        await registry.aclose()


@asynccontextmanager
async def scripted(replies: list[dict[str, Any]]) -> AsyncIterator[Bench]:
    """The same replies as a script; a gate becomes a delay that only a cancellation ends."""
    paused, ended = asyncio.Event(), asyncio.Event()
    spoken = 0

    async def sleep(_: float) -> None:
        nonlocal spoken
        spoken += 1
        if any("gate" in reply for reply in replies) and spoken > 2:
            paused.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

    registry = ProviderRegistry({}, sleep=sleep)
    responses = [_script(reply) for reply in replies]
    options = {"responses": responses, "delay_seconds": 1, "chunk_size": 4}
    provider = registry.provider({"type": "scripted", "model": "some-model", "options": options})
    yield Bench(provider, paused.wait, ended.wait)
    await registry.aclose()


_CODES = {429: "rate_limit", 500: "unavailable", 400: "provider_refused"}


def _script(reply: Mapping[str, Any]) -> Any:
    if "status" in reply:
        entry: dict[str, Any] = {"error": _CODES[reply["status"]], "message": "scripted"}
        if "Retry-After" in reply.get("headers", {}):
            entry["retry_after"] = float(reply["headers"]["Retry-After"])
        return entry
    if "cut_after" in reply:
        return {"error": "stream_cut", "text": "Half"}
    if "raw" in reply:
        return {"error": "bad_response"}
    return {
        "response": reply.get("object", reply.get("text")),
        "reasoning": reply.get("reasoning", ""),
        "finish": reply.get("finish", "stop"),
    }


@pytest.fixture(params=["openai", "custom", "scripted"])
def bench(request: pytest.FixtureRequest) -> Callable[[list[dict[str, Any]]], Any]:
    kind = request.param
    return scripted if kind == "scripted" else lambda replies: remote(kind, replies)


async def collect(provider: Provider, asked: ModelRequest) -> list[ModelChunk]:
    async with aclosing(provider.stream(asked)) as chunks:
        return [chunk async for chunk in chunks]


async def test_text_comes_in_pieces_and_whole(bench: Any) -> None:
    async with bench([{"text": TEXT, "cuts": 7}]) as made:
        chunks = await collect(made.provider, request())
    assert text_of(chunks) == TEXT
    assert sum(isinstance(chunk, TextChunk) for chunk in chunks) > 2
    end = finished_of(chunks)
    assert (end.reason, bool(end.model)) == ("stop", True)


async def test_usage_is_counted(bench: Any) -> None:
    async with bench([{"text": TEXT}]) as made:
        usage = finished_of(await collect(made.provider, request())).usage
    assert usage["input_tokens"] > 0
    assert usage["output_tokens"] > 0


async def test_reasoning_is_apart_from_text(bench: Any) -> None:
    async with bench([{"text": "yes", "reasoning": "because of this and that"}]) as made:
        chunks = await collect(made.provider, request())
    assert (text_of(chunks), reasoning_of(chunks)) == ("yes", "because of this and that")


async def test_structured_output_is_json_that_fits(bench: Any) -> None:
    async with bench([{"object": {"verdict": "no", "score": 3}}]) as made:
        chunks = await collect(made.provider, request(output_schema=SCHEMA))
    assert json.loads(text_of(chunks)) == {"verdict": "no", "score": 3}
    jsonschema_rs.validate(SCHEMA, json.loads(text_of(chunks)))


async def test_the_finish_reason_is_said(bench: Any) -> None:
    async with bench([{"text": "half of", "finish": "length"}]) as made:
        assert finished_of(await collect(made.provider, request())).reason == "length"


async def test_one_provider_serves_many_requests_at_once(bench: Any) -> None:
    async with bench([{"text": TEXT, "cuts": 3}]) as made:
        answers = await asyncio.gather(*(collect(made.provider, request()) for _ in range(10)))
    assert {text_of(chunks) for chunks in answers} == {TEXT}


async def test_cancelling_ends_the_request(bench: Any) -> None:
    async with bench([{"text": TEXT, "gate": 600}]) as made:
        task = asyncio.ensure_future(collect(made.provider, request()))
        await made.at_pause()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await made.ended()


async def test_closing_the_stream_early_is_clean(bench: Any) -> None:
    async with bench([{"text": TEXT}]) as made, aclosing(made.provider.stream(request())) as chunks:
        async for chunk in chunks:
            assert isinstance(chunk, TextChunk)
            break


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ({"status": 429, "headers": {"Retry-After": "7"}}, RateLimited),
        ({"status": 500}, ProviderUnavailable),
        ({"status": 400, "body": {"error": {"message": "no such thing"}}}, ModelRequestRefused),
        ({"text": TEXT, "cut_after": 700}, StreamCut),
        ({"raw": "<html>hello</html>"}, BadResponse),
    ],
)
async def test_failures_have_one_name_each(bench: Any, reply: dict[str, Any], error: type[ProviderError]) -> None:
    async with bench([reply, {"text": "better"}]) as made:
        with pytest.raises(error) as caught:
            await collect(made.provider, request())
        if error is RateLimited:
            assert caught.value.retry_after == 7
        # A failed request leaves the provider as it was.
        assert text_of(await collect(made.provider, request(turn=1))) == "better"
