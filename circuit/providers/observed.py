"""Looks at each call of a provider from outside: what it is, how long it takes, what comes of it.

It stands directly around a provider, behind the cache and each choice of a fallback, so that what it sees are the
calls that are made. Each is counted, and is a span where its execution is traced.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext
from typing import Any

from circuit.providers import genai
from circuit.providers.calls import Calls, Tally
from circuit.providers.pricing import Price, ready
from circuit.providers.provider import Finished, ModelChunk, ModelRequest, Provider, Restarted, TextChunk
from circuit.providers.retrieval import Embedder, EmbeddingRequest, Embeddings, Ranked, Reranker, RerankRequest
from circuit.tracing import Attributes, Kind, Span, below, current

_UNTRACED: AbstractContextManager[None] = nullcontext()


class _Observed:
    """What is seen of the provider that `spec` names, counted in `calls`."""

    def __init__(
        self, spec: Mapping[str, Any], calls: Calls, monotonic: Callable[[], float] = time.perf_counter
    ) -> None:
        self._kind = str(spec.get("type") or "")
        price: Mapping[str, float] | None = (spec.get("options") or {}).get("price")
        self._price = None if price is None else Price(price.get("input", 0.0), price.get("output", 0.0))
        self._calls = calls
        self._monotonic = monotonic

    @contextmanager
    def _counted(self, model: str, attributes: Attributes) -> Generator[tuple[Tally, Span | None]]:
        """The block is a call: it is counted, and a piece of what goes on here where that is traced."""
        tally, above, began = self._calls.of(self._kind, model), current(), self._monotonic()
        span: Span | None = None
        if above is not None:
            span = above.child(f"{attributes['gen_ai.operation.name']} {model}".strip(), attributes, Kind.CLIENT)
        fault: BaseException | None = None
        try:
            yield tally, span
        except BaseException as error:
            fault = error
            raise
        finally:
            tally.ended(self._monotonic() - began, fault)
            if span is not None:
                span.end(fault)


class ObservedProvider(_Observed):
    """Asks `inner`, a provider of models that answer."""

    def __init__(self, inner: Provider, spec: Mapping[str, Any], calls: Calls, **options: Any) -> None:
        super().__init__(spec, calls, **options)
        self._inner = inner

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
        began = self._monotonic()
        first: float | None = None
        with self._counted(request.model, genai.request_of(self._kind, request)) as (tally, span):
            content = span is not None and span.content
            if span is not None and content:
                span.set(genai.said_to(request, span.shown))
            pieces: list[str] = []
            async with aclosing(self._inner.stream(request)) as chunks:
                while True:
                    # Only while the provider works: between two chunks it is the reader's turn.
                    with _UNTRACED if span is None else below(span):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        break
                    if first is None:
                        first = self._monotonic() - began
                        tally.first.add(first)
                    if isinstance(chunk, Finished):
                        await ready(self._kind, self._price)
                        model = chunk.model or request.model
                        tally.answered(chunk.usage, model, self._kind, self._price, chunk.raw_usage)
                        if span is not None:
                            span.set({**genai.answer_of(chunk), "gen_ai.response.time_to_first_chunk": first})
                        if span is not None and content:
                            span.set(genai.said_by(chunk, "".join(pieces), span.shown))
                    elif content and isinstance(chunk, Restarted):
                        pieces.clear()
                    elif content and isinstance(chunk, TextChunk):
                        pieces.append(chunk.text)
                    yield chunk


class ObservedEmbedder(_Observed):
    """Asks `inner` for vectors."""

    def __init__(self, inner: Embedder, spec: Mapping[str, Any], calls: Calls) -> None:
        super().__init__(spec, calls)
        self._inner = inner

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        attributes = genai.retrieval_of("embeddings", self._kind, request.model)
        with self._counted(request.model, attributes) as (tally, span), _UNTRACED if span is None else below(span):
            made = await self._inner.embed(request)
            await ready(self._kind, self._price)
            tally.answered(made.usage, made.model or request.model, self._kind, self._price)
            if span is not None:
                span.set(genai.vectors_of(made))
            return made


class ObservedReranker(_Observed):
    """Asks `inner` for an order."""

    def __init__(self, inner: Reranker, spec: Mapping[str, Any], calls: Calls) -> None:
        super().__init__(spec, calls)
        self._inner = inner

    async def rerank(self, request: RerankRequest) -> tuple[Ranked, ...]:
        attributes = genai.retrieval_of("rerank", self._kind, request.model)
        with self._counted(request.model, attributes) as (_, span), _UNTRACED if span is None else below(span):
            return await self._inner.rerank(request)
