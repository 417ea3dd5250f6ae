"""Looks at each call of a provider from outside: what it is, how long it takes, what comes of it.

It stands directly around a provider, behind the cache and each choice of a fallback, so that what it sees are the
calls that are made. Each is a span where its execution is traced.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from circuit.providers import genai
from circuit.providers.provider import Finished, ModelChunk, ModelRequest, Provider, Restarted, TextChunk
from circuit.tracing import Kind, Span, below, current


class ObservedProvider:
    """Asks `inner`, a provider of the type `kind`."""

    def __init__(self, inner: Provider, kind: str, monotonic: Callable[[], float] = time.perf_counter) -> None:
        self._inner = inner
        self._kind = kind
        self._monotonic = monotonic

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
        above = current()
        return self._inner.stream(request) if above is None else self._traced(request, above)

    async def _traced(self, request: ModelRequest, above: Span) -> AsyncGenerator[ModelChunk, None]:
        span = above.child(f"chat {request.model}".strip(), genai.request_of(self._kind, request), Kind.CLIENT)
        if span.content:
            span.set(genai.said_to(request))
        began = self._monotonic()
        first = True
        pieces: list[str] = []
        try:
            async with aclosing(self._inner.stream(request)) as chunks:
                while True:
                    # Only while the provider works: between two chunks it is the reader's turn.
                    with below(span):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        break
                    if first:
                        first = False
                        span.set({"gen_ai.response.time_to_first_chunk": self._monotonic() - began})
                    if isinstance(chunk, Finished):
                        span.set(genai.answer_of(chunk))
                        if span.content:
                            span.set(genai.said_by(chunk, "".join(pieces)))
                    elif isinstance(chunk, Restarted):
                        pieces.clear()
                    elif isinstance(chunk, TextChunk) and span.content:
                        pieces.append(chunk.text)
                    yield chunk
        except BaseException as error:
            span.end(error)
            raise
        span.end()
