"""Runs bytes through the parser of a protocol and through the official SDK of its provider, for comparison."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx
import httpx2
import ollama
import openai
from google import genai

from circuit.errors import ProviderError, ProviderUnavailable
from circuit.providers.anthropic import AnthropicWire
from circuit.providers.completion import ChatWire
from circuit.providers.google import GoogleWire
from circuit.providers.messages import Message, Role, calls_of
from circuit.providers.ollama import OllamaWire
from circuit.providers.parser import Parser
from circuit.providers.provider import Finished, ModelChunk, ModelRequest, ReasoningChunk, TextChunk, ToolCallChunk
from circuit.providers.responses import ResponsesWire
from circuit.providers.wire import Wire

WIRES: dict[str, Wire] = {
    "chat": ChatWire(),
    "responses": ResponsesWire(),
    "anthropic": AnthropicWire(),
    "google": GoogleWire(),
    "ollama": OllamaWire(),
}
ASKED = ModelRequest("asked-for", (Message.text(Role.USER, "?"),))


@dataclass(frozen=True)
class Heard:
    """What an answer came to: its text, its calls (name and arguments), why it ended, its counts; or that it failed."""

    text: str
    reasoning: str
    reason: str | None
    usage: tuple[int, int] | None
    calls: tuple[tuple[str, Any], ...] = ()
    failed: bool = False


FAILED = Heard("", "", None, None, failed=True)


def parser(protocol: str = "chat") -> Parser:
    return WIRES[protocol].parser(ASKED, "http://server", lambda error: ProviderUnavailable(str(error)))


def parse(pieces: Iterable[bytes], protocol: str = "chat") -> list[ModelChunk]:
    """All chunks of a body that comes in `pieces`."""
    reader = parser(protocol)
    chunks: list[ModelChunk] = []
    for piece in pieces:
        chunks += reader.feed(piece)
    return chunks + reader.finish()


def text_of(chunks: Iterable[ModelChunk]) -> str:
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, TextChunk))


def reasoning_of(chunks: Iterable[ModelChunk]) -> str:
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, ReasoningChunk))


def said_calls(chunks: Iterable[ModelChunk]) -> list[tuple[str, str, str]]:
    """Id, name and arguments of the calls, put together from their chunks."""
    calls: dict[int, tuple[str, str, str]] = {}
    for chunk in chunks:
        if isinstance(chunk, ToolCallChunk):
            _, _, before = calls.get(chunk.index, ("", "", ""))
            calls[chunk.index] = (chunk.id, chunk.name, before + chunk.arguments)
    return list(calls.values())


def finished_of(chunks: list[ModelChunk]) -> Finished:
    last = chunks[-1]
    assert isinstance(last, Finished)
    assert sum(isinstance(chunk, Finished) for chunk in chunks) == 1
    return last


def heard_by_circuit(pieces: Iterable[bytes], protocol: str = "chat") -> Heard:
    try:
        chunks = parse(pieces, protocol)
    except ProviderError:
        return FAILED
    end = finished_of(chunks)
    assert said_calls(chunks) == [(call.id, call.name, call.arguments) for call in calls_of(end.parts)]
    usage = (end.usage["input_tokens"], end.usage["output_tokens"]) if end.usage else None
    calls = tuple((name, json.loads(arguments or "{}")) for _, name, arguments in said_calls(chunks))
    return Heard(text_of(chunks), reasoning_of(chunks), end.reason, usage, calls)


async def heard_by_sdk(pieces: list[bytes], protocol: str = "chat") -> Heard:
    """The same, by the provider's own SDK, which gets the same pieces from its transport."""
    return await _SDKS[protocol](pieces)


def transport(library: Any, pieces: list[bytes], kind: str = "text/event-stream") -> Any:
    class Body(library.AsyncByteStream):  # type: ignore[misc,name-defined]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

    return library.MockTransport(lambda _: library.Response(200, headers={"content-type": kind}, stream=Body()))


async def _chat(pieces: list[bytes]) -> Heard:
    text = reasoning = ""
    reason: str | None = None
    usage: tuple[int, int] | None = None
    calls: dict[int, list[str]] = {}
    http_client = httpx2.AsyncClient(transport=transport(httpx2, pieces))
    async with openai.AsyncOpenAI(api_key="none", max_retries=0, http_client=http_client) as client:
        try:
            stream: Any = await client.chat.completions.create(
                model="asked-for", messages=[{"role": "user", "content": "?"}], stream=True
            )
            async for chunk in stream:
                for choice in chunk.choices:
                    text += choice.delta.content or ""
                    extra = choice.delta.model_extra or {}
                    told = "".join(one.get("text", "") for one in extra.get("reasoning_details") or ())
                    reasoning += extra.get("reasoning") or extra.get("reasoning_content") or told
                    reason = choice.finish_reason or reason
                    for call in choice.delta.tool_calls or ():
                        entry = calls.setdefault(call.index, ["", ""])
                        entry[0] += call.function.name or ""
                        entry[1] += call.function.arguments or ""
                if chunk.usage is not None:
                    usage = (chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
        except openai.APIError:
            return FAILED
    said = tuple((name, json.loads(arguments or "{}")) for name, arguments in calls.values())
    return Heard(text, reasoning, reason, usage, said)


async def _responses(pieces: list[bytes]) -> Heard:
    http_client = httpx2.AsyncClient(transport=transport(httpx2, pieces))
    last: Any = None
    async with openai.AsyncOpenAI(api_key="none", max_retries=0, http_client=http_client) as client:
        try:
            async for event in await client.responses.create(model="asked-for", input="?", stream=True):
                if event.type in ("response.completed", "response.incomplete"):
                    last = event.response
        except openai.APIError:
            return FAILED
    if last is None:
        return FAILED
    thoughts: list[str] = []
    for item in last.output:
        if item.type == "reasoning":
            sections = item.summary or item.content or []
            thoughts.append("\n\n".join(section.text for section in sections))
    calls = tuple((item.name, json.loads(item.arguments)) for item in last.output if item.type == "function_call")
    reason = "length" if last.status == "incomplete" else "tool_calls" if calls else "stop"
    usage = (last.usage.input_tokens, last.usage.output_tokens) if last.usage else None
    return Heard(last.output_text, "".join(thoughts), reason, usage, calls)


async def _anthropic(pieces: list[bytes]) -> Heard:
    http_client = httpx2.AsyncClient(transport=transport(httpx2, pieces))
    async with anthropic.AsyncAnthropic(api_key="none", max_retries=0, http_client=http_client) as client:
        try:
            async with client.messages.stream(
                model="asked-for", max_tokens=9, messages=[{"role": "user", "content": "?"}]
            ) as stream:
                message = await stream.get_final_message()
        except anthropic.APIError:
            return FAILED
    reasons = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}
    usage = message.usage
    cached = (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)
    return Heard(
        "".join(block.text for block in message.content if block.type == "text"),
        "".join(block.thinking for block in message.content if block.type == "thinking"),
        reasons.get(message.stop_reason or "", message.stop_reason),
        (usage.input_tokens + cached, usage.output_tokens),
        tuple((block.name, block.input) for block in message.content if block.type == "tool_use"),
    )


async def _google(pieces: list[bytes]) -> Heard:
    options = {"httpx_async_client": httpx2.AsyncClient(transport=transport(httpx2, pieces))}
    client = genai.Client(api_key="none", http_options=options)  # type: ignore[arg-type]
    text = reasoning = ""
    reason: str | None = None
    usage: tuple[int, int] | None = None
    calls: list[tuple[str, Any]] = []
    try:
        async for chunk in await client.aio.models.generate_content_stream(model="asked-for", contents="?"):
            for candidate in chunk.candidates or ():
                for part in (candidate.content and candidate.content.parts) or ():
                    if part.function_call:
                        calls.append((part.function_call.name or "", part.function_call.args or {}))
                    elif part.thought:
                        reasoning += part.text or ""
                    else:
                        text += part.text or ""
                reason = (candidate.finish_reason and candidate.finish_reason.value) or reason
            if (counted := chunk.usage_metadata) is not None:
                prompt = (counted.prompt_token_count or 0) + (counted.tool_use_prompt_token_count or 0)
                usage = (prompt, (counted.candidates_token_count or 0) + (counted.thoughts_token_count or 0))
    except genai.errors.APIError:
        return FAILED
    word = "tool_calls" if calls and reason == "STOP" else {"STOP": "stop", "MAX_TOKENS": "length"}.get(reason or "")
    return Heard(text, reasoning, word, usage, tuple(calls))


async def _ollama(pieces: list[bytes]) -> Heard:
    client = ollama.AsyncClient(transport=transport(httpx, pieces, "application/x-ndjson"))
    text = reasoning = ""
    reason: str | None = None
    usage: tuple[int, int] | None = None
    calls: list[tuple[str, Any]] = []
    try:
        async for line in await client.chat(model="asked-for", messages=[], stream=True):
            text += line.message.content or ""
            reasoning += line.message.thinking or ""
            calls += [(call.function.name, dict(call.function.arguments)) for call in line.message.tool_calls or ()]
            if line.done:
                reason, usage = line.done_reason, (line.prompt_eval_count or 0, line.eval_count or 0)
    except ollama.ResponseError:
        return FAILED
    return Heard(text, reasoning, "tool_calls" if calls and reason == "stop" else reason, usage, tuple(calls))


_SDKS: dict[str, Callable[[list[bytes]], Awaitable[Heard]]] = {
    "chat": _chat,
    "responses": _responses,
    "anthropic": _anthropic,
    "google": _google,
    "ollama": _ollama,
}
