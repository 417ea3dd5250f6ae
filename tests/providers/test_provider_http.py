"""The remote adapters against a real server that misbehaves, and what their errors say."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import pytest
from chat_server import ChatServer
from provider_shapes import stream_bytes
from replay import finished_of, parser, text_of

from circuit.errors import (
    AuthenticationRefused,
    BadResponse,
    CircuitError,
    ContentFiltered,
    ContextTooLong,
    ModelNotFound,
    ModelOutOfMemory,
    ModelRequestRefused,
    ProviderError,
    ProviderMisconfigured,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExceeded,
    RateLimited,
    StreamCut,
)
from circuit.http import Timeouts
from circuit.providers.messages import Message, Role
from circuit.providers.provider import ModelChunk, ModelRequest
from circuit.providers.registry import ProviderRegistry
from circuit.settings import Settings

KEY = "sk-proj-abcdefghijklmnop1234"
PATIENT = Timeouts(connect=60, first_byte=60, idle=60)
REQUEST = ModelRequest(model="some-model", messages=(Message.text(Role.USER, "Well?"),))


async def ask(
    spec: dict[str, Any], environment: dict[str, str], timeouts: Timeouts = PATIENT, asked: ModelRequest = REQUEST
) -> list[ModelChunk]:
    registry = ProviderRegistry(environment, timeouts=timeouts)
    try:
        async with aclosing(registry.provider(spec).stream(asked)) as chunks:
            return [chunk async for chunk in chunks]
    finally:
        await registry.aclose()


async def ask_server(reply: dict[str, Any], timeouts: Timeouts = PATIENT, key: str = KEY) -> list[ModelChunk]:
    async with ChatServer([reply]) as server:
        return await ask({"type": "openai"}, {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": key}, timeouts)


def everything(error: BaseException) -> str:
    """All that an exception could show, its causes and contexts included."""
    shown: list[str] = []
    pending: list[BaseException] = [error]
    while pending:
        one = pending.pop()
        shown += [str(one), repr(one), repr(vars(one)), "".join(traceback.format_exception(one))]
        pending += [inner for inner in (one.__cause__, one.__context__) if inner is not None]
    return "\n".join(shown)


async def test_the_request_is_what_the_protocol_asks_for() -> None:
    async with ChatServer() as server:
        await ask({"type": "openai"}, {"OPENAI_BASE_URL": server.url + "/", "OPENAI_API_KEY": KEY + "\n"})
        (received,) = server.requests
    assert (received.method, received.path) == ("POST", "/v1/chat/completions")
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert received.headers["content-type"] == "application/json"
    assert received.body == {
        "model": "some-model",
        "messages": [{"role": "user", "content": "Well?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_a_compatible_server_needs_no_key() -> None:
    async with ChatServer() as server:
        chunks = await ask({"type": "openai", "options": {"base_url": server.url}}, {})
        assert "authorization" not in server.requests[0].headers
    assert text_of(chunks) == "Hello from the loopback server."


async def test_openai_itself_needs_a_key() -> None:
    with pytest.raises(ProviderMisconfigured, match="OPENAI_API_KEY is not set"):
        await ask({"type": "openai"}, {})
    with pytest.raises(ProviderMisconfigured, match="OPENAI_API_KEY is not set"):
        await ask({"type": "openai", "options": {"base_url": "https://api.openai.com/v1/"}}, {"OPENAI_API_KEY": " "})


async def test_a_custom_provider_sends_its_headers_and_keeps_none() -> None:
    async with ChatServer() as server:
        options = {
            "base_url": "${MY_SERVER}/v1?api-version=2",
            "headers": {"X-Team": "reviews", "Authorization": "Token ${MY_TOKEN}"},
            "api_key": "${MY_KEY}",
        }
        environment = {"MY_SERVER": server.url.removesuffix("/v1"), "MY_TOKEN": "tok-1", "MY_KEY": KEY}
        registry = ProviderRegistry(environment)
        provider = registry.provider({"type": "custom", "options": options})
        for token in ("tok-1", "tok-2"):
            environment["MY_TOKEN"] = token
            assert [chunk async for chunk in provider.stream(REQUEST)]
        await registry.aclose()
        assert [received.headers["authorization"] for received in server.requests] == ["Token tok-1", "Token tok-2"]
        assert server.requests[0].headers["x-team"] == "reviews"
        assert server.requests[0].path == "/v1/chat/completions?api-version=2"
        assert server.connections == 1, "an answer that was read to its end leaves the connection usable"


async def test_a_custom_providers_key_is_a_bearer_token() -> None:
    async with ChatServer() as server:
        options = {"base_url": server.url, "api_key": "${MY_KEY}"}
        await ask({"type": "custom", "options": options}, {"MY_KEY": KEY, "OPENAI_API_KEY": "another"})
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"type": "custom"}, "base_url"),
        ({"type": "custom", "options": {"base_url": "http://x", "headers": {"A": "${MISSING_ONE}"}}}, "MISSING_ONE"),
        ({"type": "custom", "options": {"base_url": "${MISSING_URL}"}}, "MISSING_URL"),
        ({"type": "custom", "options": {"base_url": "http://x", "api_key": "${MISSING_KEY}"}}, "MISSING_KEY"),
        ({"type": "custom", "options": {"base_url": "http://x", "api_key": "literal-key"}}, r"\$\{MY_KEY\}"),
        ({"type": "custom", "options": {"base_url": "ftp://x"}}, "must begin with http"),
        ({"type": "custom", "options": {"base_url": "http://x:99999"}}, "must begin with http"),
        ({"type": "custom", "options": {"base_url": "nonsense"}}, "must begin with http"),
        ({"type": "custom", "options": {"base_url": "http://x", "headers": {"A": "ü"}}}, "the header A"),
        ({"type": "custom", "options": {"base_url": "http://x", "headers": {"A b": "c"}}}, "name of a header"),
        ({"type": "anthropic"}, "ANTHROPIC_API_KEY is not set"),
        ({"type": "google"}, "GOOGLE_API_KEY is not set"),
        ({"type": "openai", "options": {"api": "assistants", "base_url": "http://x"}}, "use chat or responses"),
        ({"type": "azure"}, "'azure' is not supported yet; supported are anthropic, custom"),
        ({"type": "vllm"}, "needs `model`"),
        ({}, "not supported"),
    ],
)
async def test_what_is_set_up_wrongly_is_named(spec: dict[str, Any], named: str) -> None:
    with pytest.raises(ProviderMisconfigured, match=named) as caught:
        await ask(spec, {})
    assert "literal-key" not in everything(caught.value)


async def test_a_key_with_a_line_break_inside_is_refused_and_not_shown() -> None:
    with pytest.raises(ProviderMisconfigured, match="the header Authorization") as caught:
        await ask_server({}, key=f"{KEY}\nX-Injected: 1")
    assert KEY not in everything(caught.value)


@pytest.mark.parametrize(
    ("reply", "error", "says"),
    [
        ({"status": 401, "body": {"error": {"message": f"Wrong: {KEY}"}}}, AuthenticationRefused, "OPENAI_API_KEY"),
        ({"status": 403, "body": {"error": {"message": "no access"}}}, AuthenticationRefused, "no access"),
        ({"status": 404, "body": {"error": {"message": "model not found"}}}, ModelNotFound, "model not found"),
        ({"status": 402, "body": {"error": {"message": "top up"}}}, QuotaExceeded, "top up"),
        ({"status": 429, "body": {"error": {"code": "insufficient_quota", "message": "q"}}}, QuotaExceeded, "q"),
        ({"status": 429, "body": {"error": {"details": [{"quotaId": "RequestsPerDay"}]}}}, QuotaExceeded, "429"),
        ({"status": 400, "body": {"error": {"code": "context_length_exceeded"}}}, ContextTooLong, "can hold"),
        ({"status": 400, "body": {"error": {"message": "prompt is too long: 9 > 8"}}}, ContextTooLong, "too long"),
        ({"status": 400, "body": {"error": {"code": "content_filter", "message": "m"}}}, ContentFiltered, "filter"),
        ({"status": 400, "body": {"error": {"status": "API_KEY_INVALID"}}}, AuthenticationRefused, "OPENAI_API_KEY"),
        ({"status": 400, "body": {"error": {"message": "Incorrect API key provided"}}}, AuthenticationRefused, "400"),
        ({"status": 404, "body": {"error": {"code": "DeploymentNotFound", "message": "m"}}}, ModelNotFound, "m"),
        ({"status": 400, "body": {"error": {"message": "Model Not Exist"}}}, ModelNotFound, "Not Exist"),
        ({"status": 400, "body": {"error": {"code": "tool_use_failed", "message": "m"}}}, BadResponse, "not read"),
        ({"status": 429, "body": {"error": {"message": "Request too large for m on TPM"}}}, ContextTooLong, "large"),
        ({"status": 400, "body": {"error": {"message": "input exceeds the context limit"}}}, ContextTooLong, "hold"),
        ({"raw": 'data: {"error": {"type": "billing_error", "message": "m"}}\n\n'}, QuotaExceeded, "m"),
        ({"status": 500, "body": {"error": "model requires more system memory (8 GiB)"}}, ModelOutOfMemory, "8 GiB"),
        ({"status": 404, "body": ""}, ModelRequestRefused, "/v1"),
        ({"status": 400, "body": {"detail": f"bad {KEY} here"}}, ModelRequestRefused, r"bad \*\*\* here"),
        ({"status": 422, "body": "plain words"}, ModelRequestRefused, "plain words"),
        ({"status": 413, "body": "x" * 5000}, ModelRequestRefused, "413"),
        ({"status": 429, "body": {"error": {"message": "slow down"}}}, RateLimited, "slow down"),
        ({"status": 408}, ProviderUnavailable, "408"),
        ({"status": 409}, ProviderUnavailable, "409"),
        ({"status": 500, "body": "<html>oops</html>"}, ProviderUnavailable, "500"),
        ({"status": 529, "body": {"type": "error", "error": {"message": "busy"}}}, ProviderUnavailable, "busy"),
        ({"status": 302, "headers": {"Location": "http://127.0.0.1:1/"}}, ProviderMisconfigured, "redirect"),
        ({"raw": "not a stream"}, BadResponse, "not a chat completion"),
        ({"raw": "", "content_type": "application/json"}, StreamCut, "ended its stream"),
        ({"raw": '{"error": {"message": "no", "code": 429}}', "content_type": "application/json"}, RateLimited, "no"),
        ({"raw": 'data: {"error": {"type": "rate_limit_exceeded", "message": "m"}}\n\n'}, RateLimited, "m"),
        ({"raw": 'data: {"error": {"type": "invalid_request_error", "message": "m"}}\n\n'}, ModelRequestRefused, "m"),
        ({"raw": 'data: {"error": "just words"}\n\n'}, ProviderUnavailable, "just words"),
        ({"raw": 'data: {"error": "model \'m\' not found"}\n\n'}, ModelNotFound, "in its answer"),
        ({"garbage": "SSH-2.0-OpenSSH_9.9\r\n\r\n"}, BadResponse, "not HTTP"),
        ({"garbage": ""}, ProviderUnavailable, "without an answer"),
        ({"text": "A long answer that is cut.", "cut_after": 600}, StreamCut, "broke in the middle"),
        ({"text": "A long answer.", "finish": None, "usage": None, "done": False}, StreamCut, "ended its stream"),
    ],
)  # fmt: skip
async def test_refusals(reply: dict[str, Any], error: type[CircuitError], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        await ask_server(reply)
    assert type(caught.value) is error
    assert KEY not in everything(caught.value)
    assert len(caught.value.message) < 900
    assert caught.value.__context__ is None or isinstance(caught.value.__context__, CircuitError)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "2.5"}, 2.5),
        ({"retry-after-ms": "1500", "Retry-After": "9"}, 1.5),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:40 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 40.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-4"}, None),
        ({"Retry-After": "inf"}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after(status: int, headers: dict[str, str], seconds: float | None) -> None:
    with pytest.raises(ProviderError) as caught:
        await ask_server({"status": status, "headers": headers})
    assert caught.value.retryable
    assert caught.value.retry_after == seconds


async def test_what_a_strict_server_does_not_know_is_left_away_from_then_on() -> None:
    forbidden = {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options", "include_usage"]}]}
    async with ChatServer([{"status": 422, "body": {"message": forbidden}}, {"text": "fine"}]) as server:
        registry = ProviderRegistry({})
        more = {"temperature": None, "seed": 7}
        provider = registry.provider({"type": "custom", "options": {"base_url": server.url, "options": more}})
        for _ in range(2):
            async with aclosing(provider.stream(replace(REQUEST, parameters={"temperature": 0.5}))) as chunks:
                assert text_of([chunk async for chunk in chunks]) == "fine"
        await registry.aclose()
        sent = [set(one.body) for one in server.requests]
    # What `options` make null is no part of it either.
    assert sent == [{"model", "messages", "stream", "seed", *known} for known in (["stream_options"], [], [])]


async def test_nobody_listens() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://user:{KEY}@127.0.0.1:{closed.getsockname()[1]}/v1/{KEY}"
        with pytest.raises(ProviderUnavailable, match=r"cannot connect to http://127\.0\.0\.1:\d+: ") as caught:
            await ask({"type": "custom", "options": {"base_url": url}}, {})
    assert "refused" in caught.value.message.lower() or "failed" in caught.value.message.lower()
    assert KEY not in everything(caught.value)


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port that takes no more connections: its queue is full and nobody accepts."""
    waiting: list[socket.socket] = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
            waiting.append(client)
        yield port
        for client in waiting:
            client.close()


async def test_a_connection_that_never_comes() -> None:
    with deaf_port() as port, pytest.raises(ProviderTimeout, match=r"no connection to .* within 0\.3 s"):
        hasty = replace(PATIENT, connect=0.3)
        await ask({"type": "custom", "options": {"base_url": f"http://127.0.0.1:{port}"}}, {}, hasty)


@pytest.mark.parametrize(
    ("hang", "says"), [("first_byte", "did not begin to answer within"), ("content", "no content within")]
)
async def test_an_answer_that_never_begins_and_headers_and_then_nothing(hang: str, says: str) -> None:
    """One time is for the connection, the headers and the first content. A machine that is too busy to come as far as
    this is about gets more of it."""
    for seconds in (0.3, 3.0, 30.0):
        with pytest.raises(ProviderTimeout) as caught:
            await ask_server({"hang": hang}, Timeouts(connect=seconds, first_byte=seconds, idle=60))
        if says in caught.value.message:
            break
    assert f"{says} {seconds:g} s" in caught.value.message


async def test_an_answer_that_stops_in_the_middle() -> None:
    with pytest.raises(ProviderTimeout, match=r"no content for 0\.3 s"):
        await ask_server({"text": "A long answer that hangs.", "hang": 900}, replace(PATIENT, idle=0.3))


async def test_comments_are_no_content() -> None:
    """A server that only keeps the connection alive has stopped answering all the same."""
    beginning = stream_bytes({"text": "x", "finish": None, "usage": None, "done": False})
    stopped = asyncio.Event()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + beginning)
        closed = asyncio.ensure_future(reader.read())
        while not closed.done():
            writer.write(b': ping\n\ndata: {"choices":[{"delta":{}}]}\n\n')
            await asyncio.wait([closed], timeout=0.02)
        writer.close()
        stopped.set()

    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(ProviderTimeout, match="no content for"):
            async with asyncio.timeout(60):
                hasty = replace(PATIENT, idle=0.3)
                await ask({"type": "custom", "options": {"base_url": f"http://127.0.0.1:{port}"}}, {}, hasty)
        await asyncio.wait_for(stopped.wait(), 60)


@pytest.mark.parametrize(
    ("protocol", "events", "moved"),
    [
        ("anthropic", {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta"}}, True),
        ("anthropic", {"type": "ping"}, False),
        ("responses", {"type": "response.web_search_call.searching", "output_index": 0}, True),
        ("responses", {"type": "response.in_progress", "response": {}}, False),
        ("responses", {"type": "keepalive"}, False),
        ("responses", {}, False),
        ("chat", {"choices": [{"index": 0, "delta": {}}]}, False),
    ],
)
def test_what_a_provider_does_itself_is_no_silence(protocol: str, events: dict[str, Any], moved: bool) -> None:
    """A search of the provider's own takes minutes, in which nothing is said."""
    reader = parser(protocol)
    name = f"event: {events['type']}\n" if "type" in events else ""
    assert reader.feed(f"{name}data: {json.dumps(events)}\n\n".encode()) == []
    assert reader.moved is moved


def test_how_long_servers_are_waited_for_is_a_setting() -> None:
    given = {"CIRCUIT_ANSWER_SECONDS": "900", "CIRCUIT_SILENCE_SECONDS": "60", "CONNECTION_TIMEOUT": "4"}
    registry = ProviderRegistry({}, waits=Settings.from_environment(given).waits)
    assert registry.http()._timeouts == Timeouts(connect=4.0, first_byte=900.0, idle=60.0)
    assert ProviderRegistry({}, waits=Settings.from_environment({}).waits).http()._timeouts == Timeouts()


async def test_a_whole_answer_counts_though_its_end_is_missing() -> None:
    body = stream_bytes({"text": "All of it.", "done": False, "usage": None})
    for reply in ({"hang": len(body)}, {"cut_after": len(body)}):
        # The body goes on, so that the break comes after the finish reason and before the end.
        raw = (body + b": and then").decode()
        chunks = await ask_server({"raw": raw} | reply, replace(PATIENT, idle=1.0))
        assert text_of(chunks) == "All of it."
        assert finished_of(chunks).usage == {}


async def test_the_first_text_comes_before_the_answer_is_whole() -> None:
    async with ChatServer([{"text": "first second", "pieces": 6, "gate": 500}]) as server:
        registry = ProviderRegistry({})
        provider = registry.provider({"type": "custom", "options": {"base_url": server.url}})
        async with aclosing(provider.stream(REQUEST)) as chunks:
            first = await anext(chunks)
            await server.at_gate()
            server.release()
            rest = [chunk async for chunk in chunks]
        await registry.aclose()
    assert text_of([first]) == "first "
    assert text_of(rest) == "second"


async def test_closing_between_two_chunks_closes_the_connection() -> None:
    async with ChatServer([{"text": "first second", "pieces": 6, "gate": 500}]) as server:
        registry = ProviderRegistry({})
        provider = registry.provider({"type": "custom", "options": {"base_url": server.url}})
        async with aclosing(provider.stream(REQUEST)) as chunks:
            await anext(chunks)
            await server.at_gate()
        await server.wait_for(lambda s: s.requests[0].disconnected)
        await registry.aclose()


async def test_cancelling_while_connecting_leaves_nothing_behind() -> None:
    with deaf_port() as port:
        registry = ProviderRegistry({})
        provider = registry.provider({"type": "custom", "options": {"base_url": f"http://127.0.0.1:{port}"}})
        task = asyncio.ensure_future(anext(provider.stream(REQUEST)))
        await asyncio.wait([task], timeout=0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await registry.aclose()
        await registry.aclose()


@asynccontextmanager
async def cookie_server() -> AsyncIterator[ChatServer]:
    async with ChatServer([{"status": 400, "headers": {"Set-Cookie": "a=b"}}]) as server:
        yield server


async def test_no_cookie_is_kept() -> None:
    async with cookie_server() as server:
        registry = ProviderRegistry({})
        provider = registry.provider({"type": "custom", "options": {"base_url": server.url}})
        for _ in range(2):
            with pytest.raises(ModelRequestRefused):
                await anext(provider.stream(REQUEST))
        await registry.aclose()
        assert "cookie" not in server.requests[1].headers


async def test_logs_hold_no_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(AuthenticationRefused):
        await ask_server({"status": 401})
    assert KEY not in caplog.text
