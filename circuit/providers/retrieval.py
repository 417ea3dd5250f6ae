"""The two doors beside `stream`: vectors of texts, and texts in the order of their closeness to a question.

Bodies and answers are values here, without IO; `remote` and `scripted` bring them about.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, Protocol
from urllib.parse import quote

from circuit.errors import BadResponse, ProviderMisconfigured
from circuit.providers.parser import counts, mapping, sequence
from circuit.value import dataclass

MOST_TEXTS = 2_048


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """Texts to be made vectors of. `dimensions` asks for vectors of this length, where the model can."""

    model: str
    texts: tuple[str, ...]
    dimensions: int | None = None


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector for each text, in the order of the texts."""

    vectors: tuple[tuple[float, ...], ...]
    model: str
    usage: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """Texts to be put in the order of how well they answer `query`; the first `top`, or all."""

    model: str
    query: str
    texts: tuple[str, ...]
    top: int | None = None


@dataclass(frozen=True, slots=True)
class Ranked:
    """A text by its place in the request, and how well it fits: more is better."""

    index: int
    score: float


class Embedder(Protocol):
    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """The vectors. Raises `ProviderError`."""
        ...


class Reranker(Protocol):
    async def rerank(self, request: RerankRequest) -> tuple[Ranked, ...]:
        """The best first. Raises `ProviderError`."""
        ...


@dataclass(frozen=True, slots=True)
class EmbeddingWire:
    """How one protocol asks for vectors, and reads them. `most` is how many texts it takes at once."""

    path: Callable[[EmbeddingRequest], str]
    body: Callable[[EmbeddingRequest], dict[str, Any]]
    read: Callable[[Any], tuple[list[Any], dict[str, int]]]
    most: int = MOST_TEXTS


def embedding_wire(kind: str) -> EmbeddingWire:
    """The protocol of a provider's type. Raises `ProviderMisconfigured` where it makes no vectors."""
    wire = _EMBEDDING.get(kind)
    if wire is None:
        raise ProviderMisconfigured(f"a provider of the type {kind} makes no vectors: use {', '.join(_EMBEDDING)}")
    return wire


def embeddings_of(wire: EmbeddingWire, request: EmbeddingRequest, value: Any, place: str) -> Embeddings:
    """The vectors in an answer. Raises `BadResponse` where they are not one for each text, and numbers."""
    found, usage = wire.read(value)
    vectors: list[tuple[float, ...]] = []
    for vector in found:
        numbers = sequence(vector)
        if not numbers or not all(_finite(number) for number in numbers):
            raise BadResponse(f"{place} answered with a vector that is none")
        vectors.append(tuple(float(number) for number in numbers))
    if len(vectors) != len(request.texts) or len({len(vector) for vector in vectors}) > 1:
        raise BadResponse(f"{place} answered with {len(vectors)} vectors for {len(request.texts)} texts")
    return Embeddings(tuple(vectors), str(mapping(value).get("model") or request.model), usage)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def rerank_body(request: RerankRequest) -> dict[str, Any]:
    """The body of `/rerank`, as Cohere, Jina, vLLM and others take it."""
    body: dict[str, Any] = {"model": request.model, "query": request.query, "documents": list(request.texts)}
    return body | ({"top_n": request.top} if request.top is not None else {})


def ranked_of(request: RerankRequest, value: Any, place: str) -> tuple[Ranked, ...]:
    """The order in an answer, the best first. Raises `BadResponse`."""
    found: list[Ranked] = []
    answer = mapping(value)
    # Voyage's name is the second.
    for item in sequence(answer.get("results")) or sequence(answer.get("data")):
        entry = mapping(item)
        index, score = entry.get("index"), entry.get("relevance_score", entry.get("score"))
        if not isinstance(index, int) or not 0 <= index < len(request.texts) or not _finite(score):
            raise BadResponse(f"{place} answered with an order that is none")
        found.append(Ranked(index, float(score)))
    if not found and request.texts:
        raise BadResponse(f"{place} answered with no order")
    found.sort(key=lambda one: one.score, reverse=True)
    return tuple(found[: request.top])


def _openai_body(request: EmbeddingRequest) -> dict[str, Any]:
    body: dict[str, Any] = {"model": request.model, "input": list(request.texts), "encoding_format": "float"}
    return body | ({"dimensions": request.dimensions} if request.dimensions is not None else {})


def _openai_read(value: Any) -> tuple[list[Any], dict[str, int]]:
    data = [mapping(item) for item in sequence(mapping(value).get("data"))]
    data.sort(key=lambda item: index if isinstance(index := item.get("index"), int) else 0)
    usage = counts(input_tokens=mapping(mapping(value).get("usage")).get("prompt_tokens"))
    return [item.get("embedding") for item in data], usage


def _google_body(request: EmbeddingRequest) -> dict[str, Any]:
    name = f"models/{request.model.removeprefix('models/')}"
    more = {"outputDimensionality": request.dimensions} if request.dimensions is not None else {}
    return {"requests": [{"model": name, "content": {"parts": [{"text": text}]}, **more} for text in request.texts]}


def _google_read(value: Any) -> tuple[list[Any], dict[str, int]]:
    return [mapping(item).get("values") for item in sequence(mapping(value).get("embeddings"))], {}


def _ollama_body(request: EmbeddingRequest) -> dict[str, Any]:
    body: dict[str, Any] = {"model": request.model, "input": list(request.texts)}
    return body | ({"dimensions": request.dimensions} if request.dimensions is not None else {})


def _ollama_read(value: Any) -> tuple[list[Any], dict[str, int]]:
    answer = mapping(value)
    return sequence(answer.get("embeddings")), counts(input_tokens=answer.get("prompt_eval_count"))


_OPENAI = EmbeddingWire(lambda _: "/embeddings", _openai_body, _openai_read)
_EMBEDDING: dict[str, EmbeddingWire] = {
    "openai": _OPENAI,
    "custom": _OPENAI,
    "google": EmbeddingWire(
        lambda request: f"/models/{quote(request.model.removeprefix('models/'), safe='')}:batchEmbedContents",
        _google_body,
        _google_read,
        100,
    ),
    "ollama": EmbeddingWire(lambda _: "/api/embed", _ollama_body, _ollama_read),
}
