"""What every adapter must do, run on each of them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from chat_server import ChatServer
from provider_shapes import protocol_of, stream_bytes
from replay import finished_of, reasoning_of, said_calls, text_of

from circuit.agents.output import interpret
from circuit.errors import (
    BadResponse,
    ModelRequestRefused,
    OutputTruncated,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    StreamCut,
)
from circuit.providers.messages import Message, Role, ToolResultPart, calls_of
from circuit.providers.messages import text_of as text_in
from circuit.providers.provider import ModelChunk, ModelRequest, Provider, TextChunk, ToolSpec
from circuit.providers.registry import ProviderRegistry
from circuit.providers.vllm.process import Launch
from circuit.providers.vllm.spec import ModelSpec

SCHEMA = {
    "type": "object",
    "required": ["verdict", "score"],
    "properties": {"verdict": {"enum": ["yes", "no"]}, "score": {"type": "integer", "minimum": 1, "maximum": 10}},
}
TEXT = "Der Text geht über Grenzen:\u2028 und weiter \u0085 … 😀"
TOOLS = (
    ToolSpec("fs.read_file", "Reads a file.", {"type": "object", "properties": {"path": {"type": "string"}}}),
    ToolSpec("now"),
)
CALLS = [{"name": "fs_read_file", "arguments": {"path": "ä\u2028😀.txt"}}, {"name": "now", "arguments": {}}]
HOST = (sys.executable, str(Path(__file__).with_name("vllm_host.py")))
KINDS = ["openai", "responses", "azure", "custom", "anthropic", "google", "ollama"]


def request(**more: Any) -> ModelRequest:
    messages = (Message.text(Role.SYSTEM, "Be brief."), Message.text(Role.USER, "Well?"))
    return ModelRequest(**{"model": "some-model", "messages": messages} | more)


@dataclass
class Bench:
    """A provider that will answer as `replies` say, and how to see that a cancelled request ended on its side."""

    provider: Provider
    at_pause: Callable[[], Any]
    ended: Callable[[], Any]
    server: ChatServer | None = None
    pieces: int = 3
    """How many pieces an answer comes in at least."""


def spec_of(kind: str, server: ChatServer) -> dict[str, Any]:
    """The provider of `kind` that `server` plays."""
    options: dict[str, Any] = {"base_url": server.url if kind in ("openai", "custom", "responses") else server.root}
    if kind == "responses":
        options["api"] = "responses"
    if kind == "azure":
        options["api_version"] = "2024-10-21"
    named = {"responses": "openai", "azure": "openai"}
    return {"type": named.get(kind, kind), "model": "some-model", "options": options}


@asynccontextmanager
async def remote(kind: str, replies: list[dict[str, Any]]) -> AsyncIterator[Bench]:
    async with ChatServer(replies) as server:
        registry = ProviderRegistry({})
        provider = registry.provider(spec_of(kind, server))
        ended = lambda: server.wait_for(lambda s: s.requests[-1].disconnected)  # noqa: E731
        yield Bench(provider, server.at_gate, ended, server)
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
    calls = [{**call, "name": call["name"].replace("fs_", "fs.")} for call in reply.get("calls", ())]
    return {
        "response": reply.get("object", reply.get("text", "")),
        "reasoning": reply.get("reasoning", ""),
        "finish": reply.get("finish", "stop"),
        "tool_calls": calls,
    }


@asynccontextmanager
async def inside(replies: list[dict[str, Any]]) -> AsyncIterator[Bench]:
    """The same replies from a process as vLLM's engine runs in."""
    registry = ProviderRegistry({}, launch=Launch(os.environ, HOST))
    options = {"options": {"replies": [_script_inside(reply) for reply in replies]}, "tool_parser": "hermes"}
    spec = {"type": "vllm", "model": "some-model", "options": options}
    model = registry.models.model(ModelSpec.of(spec))
    paused, aborted = (partial(model.call, "wait", name=name) for name in ("paused", "aborted"))
    # What has come before it is read is read as one.
    yield Bench(registry.provider(spec), paused, aborted, pieces=1)
    await registry.aclose()


def _script_inside(reply: Mapping[str, Any]) -> dict[str, Any]:
    """The engine breaks an answer off by aborting it."""
    return {**reply, "finish": "abort"} if "cut_after" in reply else dict(reply)


@pytest.fixture(params=[*KINDS, "scripted", "vllm"])
def bench(request: pytest.FixtureRequest) -> Callable[[list[dict[str, Any]]], Any]:
    local = {"scripted": scripted, "vllm": inside}
    return local.get(request.param) or partial(remote, request.param)


async def collect(provider: Provider, asked: ModelRequest) -> list[ModelChunk]:
    async with aclosing(provider.stream(asked)) as chunks:
        return [chunk async for chunk in chunks]


async def test_text_comes_in_pieces_and_whole(bench: Any) -> None:
    async with bench([{"text": TEXT, "cuts": 7}]) as made:
        chunks = await collect(made.provider, request())
    assert text_of(chunks) == TEXT
    assert sum(isinstance(chunk, TextChunk) for chunk in chunks) >= made.pieces
    end = finished_of(chunks)
    assert (end.reason, bool(end.model)) == ("stop", True)
    assert text_in(end.parts) == TEXT


async def test_usage_is_counted(bench: Any) -> None:
    async with bench([{"text": TEXT}]) as made:
        end = finished_of(await collect(made.provider, request()))
    assert end.usage["input_tokens"] > 0
    assert end.usage["output_tokens"] > 0
    assert end.raw_usage


async def test_reasoning_is_apart_from_text(bench: Any) -> None:
    async with bench([{"text": "yes", "reasoning": "because of this and that"}]) as made:
        chunks = await collect(made.provider, request())
    assert (text_of(chunks), reasoning_of(chunks)) == ("yes", "because of this and that")


async def test_calls_are_parallel_and_their_arguments_whole(bench: Any) -> None:
    async with bench([{"text": "Let me look.", "calls": CALLS, "cuts": 11}]) as made:
        chunks = await collect(made.provider, request(tools=TOOLS))
    end = finished_of(chunks)
    assert end.reason == "tool_calls"
    said = said_calls(chunks)
    assert [(name, json.loads(arguments or "{}")) for _, name, arguments in said] == [
        ("fs.read_file", {"path": "ä\u2028😀.txt"}),
        ("now", {}),
    ]
    assert len({call_id for call_id, _, _ in said if call_id}) == 2
    assert said == [(call.id, call.name, call.arguments) for call in calls_of(end.parts)]


async def test_an_answer_goes_back_with_the_results_of_its_calls(bench: Any) -> None:
    async with bench([{"calls": CALLS, "reasoning": "hm"}, {"text": "Done."}]) as made:
        first = finished_of(await collect(made.provider, request(tools=TOOLS)))
        results = tuple(
            ToolResultPart(call.id, call.name, "read so far", failed=False) for call in calls_of(first.parts)
        )
        messages = (*request().messages, Message(Role.ASSISTANT, first.parts), Message(Role.TOOL, results))
        second = await collect(made.provider, request(messages=messages, tools=TOOLS, turn=1))
    assert text_of(second) == "Done."
    if made.server is not None:
        sent = json.dumps(made.server.requests[1].body)
        assert sent.count("read so far") == 2
        assert "fs_read_file" in sent
        assert "fs.read_file" not in sent, "no provider takes a dot in the name of a tool"


async def test_structured_output_is_json_that_fits(bench: Any) -> None:
    async with bench([{"object": {"verdict": "no", "score": 3}}]) as made:
        chunks = await collect(made.provider, request(output_schema=SCHEMA))
    assert json.loads(text_of(chunks)) == {"verdict": "no", "score": 3}
    jsonschema_rs.validate(SCHEMA, json.loads(text_of(chunks)))
    if made.server is not None:
        assert '"maximum": 10' in json.dumps(made.server.requests[0].body).replace('\\"', '"').replace(":10", ": 10")


async def test_the_finish_reason_is_said(bench: Any) -> None:
    async with bench([{"text": '{"verdict": "y', "finish": "length"}]) as made:
        end = finished_of(await collect(made.provider, request()))
    assert end.reason == "length"
    with pytest.raises(OutputTruncated):
        interpret(text_in(end.parts), end.reason, SCHEMA)


async def test_one_provider_serves_many_requests_at_once(bench: Any) -> None:
    async with bench([{"text": TEXT, "cuts": 3}]) as made:
        answers = await asyncio.gather(*(collect(made.provider, request()) for _ in range(10)))
    assert {text_of(chunks) for chunks in answers} == {TEXT}


async def test_cancelling_ends_the_request(bench: Any) -> None:
    async with bench([{"text": TEXT, "gate": 400}]) as made:
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


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_that_ends_early_never_passes_for_a_whole_one(kind: str) -> None:
    """The body ends in order, at the boundary of an event, and the marker of its end lacks."""
    async with remote(kind, [{"text": TEXT, "done": False, "finish": "stop" if kind == "anthropic" else None}]) as made:
        with pytest.raises(StreamCut):
            await collect(made.provider, request())


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_inside_a_stream_is_raised(kind: str) -> None:
    async with ChatServer() as probe:
        registry = ProviderRegistry({})
        await collect(registry.provider(spec_of(kind, probe)), request())
        protocol = protocol_of(probe.requests[0].path)
        await registry.aclose()
    body = stream_bytes({"text": TEXT}, protocol)
    half = body[: body.index(b"\n", len(body) // 2) + 1].decode(errors="ignore")
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "busy", "code": 503}}
    line = json.dumps({"error": "busy"}) + "\n" if protocol == "ollama" else f"\n\ndata: {json.dumps(error)}\n\n"
    async with remote(kind, [{"raw": half + line}]) as made:
        with pytest.raises(ProviderUnavailable, match="busy"):
            await collect(made.provider, request())
