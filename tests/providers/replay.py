"""Runs bytes through the parser and through the official SDK, for comparison."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

import httpx2
import openai

from circuit.errors import ProviderError, ProviderUnavailable
from circuit.providers.completion import ChatParser
from circuit.providers.provider import Finished, ModelChunk, ReasoningChunk, TextChunk


@dataclass(frozen=True)
class Heard:
    """What an answer came to: its text, its finish reason as the server sent it, its counts, or the error."""

    text: str
    reasoning: str
    reason: str | None
    usage: tuple[int, int] | None
    failed: bool = False


def parser(model: str = "asked-for") -> ChatParser:
    return ChatParser(model, "http://server", lambda error: ProviderUnavailable(str(error)))


def parse(pieces: Iterable[bytes]) -> list[ModelChunk]:
    """All chunks of a body that comes in `pieces`."""
    reader = parser()
    chunks: list[ModelChunk] = []
    for piece in pieces:
        chunks += reader.feed(piece)
    return chunks + reader.finish()


def text_of(chunks: Iterable[ModelChunk]) -> str:
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, TextChunk))


def reasoning_of(chunks: Iterable[ModelChunk]) -> str:
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, ReasoningChunk))


def finished_of(chunks: list[ModelChunk]) -> Finished:
    last = chunks[-1]
    assert isinstance(last, Finished)
    assert sum(isinstance(chunk, Finished) for chunk in chunks) == 1
    return last


def heard_by_circuit(pieces: Iterable[bytes]) -> Heard:
    try:
        chunks = parse(pieces)
    except ProviderError:
        return Heard("", "", None, None, failed=True)
    end = finished_of(chunks)
    usage = (end.usage["input_tokens"], end.usage["output_tokens"]) if end.usage else None
    return Heard(text_of(chunks), reasoning_of(chunks), end.reason, usage)


async def heard_by_sdk(pieces: list[bytes]) -> Heard:
    """The same, by OpenAI's own SDK, which gets the same pieces from its transport."""

    class Body(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

    def handle(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Body())

    text = reasoning = ""
    reason: str | None = None
    usage: tuple[int, int] | None = None
    http_client = httpx2.AsyncClient(transport=httpx2.MockTransport(handle))
    async with openai.AsyncOpenAI(api_key="none", max_retries=0, http_client=http_client) as client:
        try:
            stream: Any = await client.chat.completions.create(
                model="asked-for", messages=[{"role": "user", "content": "?"}], stream=True
            )
            async for chunk in stream:
                for choice in chunk.choices:
                    text += choice.delta.content or ""
                    extra = choice.delta.model_extra or {}
                    reasoning += extra.get("reasoning") or extra.get("reasoning_content") or ""
                    reason = choice.finish_reason or reason
                if chunk.usage is not None:
                    usage = (chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
        except openai.APIError:
            return Heard("", "", None, None, failed=True)
    return Heard(text, reasoning, reason, usage)
