"""The provider `vllm`: a request to a model inside, in the terms of all providers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from typing import Any

from circuit.errors import BadResponse, ModelUnsupported, StreamCut
from circuit.providers.assembly import Assembly
from circuit.providers.completion import PROTOCOL, request_body, usage_of
from circuit.providers.parser import mapping, sequence, text
from circuit.providers.profiles import DEFAULT
from circuit.providers.provider import Finished, ModelChunk, ModelRequest
from circuit.providers.retrieval import EmbeddingRequest, Embeddings, Ranked, RerankRequest
from circuit.providers.vllm.fault import PLACE
from circuit.providers.vllm.model import HostedModel
from circuit.providers.vllm.spec import ModelSpec
from circuit.providers.wire import plain_name

_NEEDED = (
    "set `tool_parser` to the parser of calls that fits the model (hermes, llama3_json, mistral, openai, ...), or take"
    " the agent's tools away"
)


class VllmProvider:
    """Streams from the model that `spec` says. `model` gives it; it raises what keeps it from that."""

    def __init__(self, spec: ModelSpec, model: Callable[[ModelSpec], HostedModel]) -> None:
        self._spec = spec
        self._model = model

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
        if request.tools and request.tool_choice != "none" and not self._spec.load.tool_parser:
            raise ModelUnsupported(f"{request.model} is loaded without a parser of tool calls: {_NEEDED}")
        model = self._model(self._spec)
        answer = _Answer(request)
        order: dict[str, Any] = {"body": self._body(request)}
        if self._spec.adapter is not None:
            order["adapter"] = self._spec.adapter
        async with aclosing(model.ask("chat", **order)) as messages:
            async for batch in messages:
                for kind, content in batch:
                    for chunk in answer.hear(kind, content):
                        yield chunk
        yield answer.finished()

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        model = self._model(self._spec)
        told = await model.call("embed", texts=list(request.texts), dimensions=request.dimensions)
        vectors = tuple(tuple(vector) for vector in told["vectors"])
        return Embeddings(vectors, self._spec.load.model, usage_of(mapping(told.get("usage"))))

    async def rerank(self, request: RerankRequest) -> tuple[Ranked, ...]:
        told = await self._model(self._spec).call("rerank", query=request.query, texts=list(request.texts))
        ranked = [Ranked(index, score) for index, score in enumerate(told["scores"])]
        return tuple(sorted(ranked, key=lambda one: one.score, reverse=True)[: request.top])

    def _body(self, request: ModelRequest) -> dict[str, Any]:
        """The body of a chat completion; the provider's own further keys count more."""
        return {
            **request_body(request, DEFAULT, own=False, server=PLACE),
            **self._spec.request,
            "stream": True,
            "n": 1,
        }


class _Answer:
    """One answer as its pieces come."""

    def __init__(self, request: ModelRequest) -> None:
        self._model = request.model
        self._tools = request.tools
        self._assembly = Assembly(PROTOCOL, f"call_{request.turn}")
        self._end: Mapping[str, Any] | None = None

    def hear(self, kind: str, content: Any) -> Iterator[ModelChunk]:
        if kind == "text":
            yield from self._assembly.text("text", content)
        elif kind == "delta":
            yield from self._delta(mapping(content))
        elif kind == "end":
            self._end = mapping(content)
            yield from self._assembly.rest()
        else:
            raise BadResponse(f"{PLACE} sent a message of the unknown kind {kind!r}")

    def finished(self) -> Finished:
        end = self._end
        reason = text(end.get("reason")) if end is not None else ""
        if end is None or reason == "abort":
            raise StreamCut(f"{PLACE} ended its stream before the answer was whole")
        if reason == "stop" and self._assembly.calls:
            reason = "tool_calls"
        raw = mapping(end.get("usage"))
        return Finished(reason, self._model, usage_of(raw), self._assembly.parts(), dict(raw))

    def _delta(self, delta: Mapping[str, Any]) -> Iterator[ModelChunk]:
        if thought := text(delta.get("reasoning")):
            yield from self._assembly.reasoning("reasoning", thought)
            self._assembly.note("reasoning", "reasoning", field="reasoning", server=PLACE)
        if said := text(delta.get("content")):
            yield from self._assembly.text("text", said)
        for item in sequence(delta.get("tool_calls")):
            call = mapping(item)
            function = mapping(call.get("function"))
            yield from self._assembly.call(
                ("call", call.get("index") or 0),
                text(function.get("arguments")),
                call_id=text(call.get("id")),
                name=plain_name(self._tools, text(function.get("name"))),
            )
