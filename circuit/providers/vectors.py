"""The doors `embed` and `rerank` of the providers that are reached over HTTP, and scripted ones for tests."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import orjson

from circuit.errors import BadResponse, ProviderError
from circuit.http import Http, origin
from circuit.providers.endpoint import Endpoint
from circuit.providers.failure import Peer, status_error
from circuit.providers.limits import Allowance
from circuit.providers.parser import parsed
from circuit.providers.remote import name_server, with_extra
from circuit.providers.retrieval import (
    EmbeddingRequest,
    Embeddings,
    EmbeddingWire,
    Ranked,
    RerankRequest,
    embeddings_of,
    ranked_of,
    rerank_body,
)
from circuit.value import replace

ANSWER_LIMIT = 64 * 1024 * 1024
SCRIPTED_DIMENSIONS = 64


class _Answer(NamedTuple):
    """What a server said, which one, and whom to tell how many tokens it took."""

    value: Any
    place: str
    took: Callable[[int], None]


class RemoteVectors:
    """Asks one of several endpoints: the next one where the one before did not answer. `extra` goes into the body of
    each request as it is; `allowance` is what an endpoint allows."""

    def __init__(
        self,
        http: Http,
        endpoints: Callable[[], Sequence[Endpoint]],
        wire: EmbeddingWire | None,
        extra: Mapping[str, Any] | None = None,
        *,
        allowance: Callable[[Endpoint], Allowance],
    ) -> None:
        self._http = http
        self._endpoints = endpoints
        self._wire = wire
        self._extra = extra or {}
        self._allowance = allowance

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """The vectors, asked for in as many requests as the protocol needs for so many texts."""
        assert self._wire is not None
        wire, usage = self._wire, Counter[str]()
        vectors: list[tuple[float, ...]] = []
        model = request.model
        for begin in range(0, max(len(request.texts), 1), wire.most):
            part = replace(request, texts=request.texts[begin : begin + wire.most])
            answer = await self._ask(request.model, wire.path(part), wire.body(part), part.texts)
            made = embeddings_of(wire, part, answer.value, answer.place)
            if made.usage:
                answer.took(made.usage.get("input_tokens", 0))
            vectors += made.vectors
            usage.update(made.usage)
            model = made.model
        return Embeddings(tuple(vectors), model, dict(usage))

    async def rerank(self, request: RerankRequest) -> tuple[Ranked, ...]:
        # The question is read beside each of the texts.
        texts = [f"{request.query} {text}" for text in request.texts]
        answer = await self._ask(request.model, "/rerank", rerank_body(request), texts)
        return ranked_of(request, answer.value, answer.place)

    async def _ask(self, model: str, path: str, body: dict[str, Any], texts: Sequence[str]) -> _Answer:
        size = sum(len(text) for text in texts) // 4
        fault: ProviderError | None = None
        for endpoint in self._endpoints():
            try:
                allowance = self._allowance(endpoint)
                async with allowance.slot():
                    took = partial(allowance.used, await allowance.admit(size))
                    said = orjson.dumps(with_extra(body, self._extra))
                    return _Answer(*await self._ask_one(endpoint, model, path, said, allowance.learn), took)
            except ProviderError as error:
                fault = error
        assert fault is not None
        raise fault

    async def _ask_one(
        self, endpoint: Endpoint, model: str, path: str, body: bytes, learn: Callable[[Mapping[str, str]], None]
    ) -> tuple[Any, str]:
        peer = Peer(origin(endpoint.base), model, endpoint.key_hint, endpoint.secrets)
        url = endpoint.url(path)
        name_server(url)
        async with self._http.post(url, headers=endpoint.headers, body=body) as exchange:
            learn(exchange.headers)
            said = bytearray()
            while (piece := await exchange.receive()) is not None:
                exchange.progress()
                said += piece
                if len(said) > ANSWER_LIMIT:
                    raise BadResponse(f"{peer.place} sent an answer of more than {ANSWER_LIMIT} bytes")
            if exchange.status != 200:
                raise status_error(peer, exchange.status, exchange.headers, bytes(said), datetime.now(UTC))
        value = parsed(bytes(said))
        if not isinstance(value, dict):
            raise BadResponse(f"{peer.place} answered with something that is not JSON")
        return value, peer.place


class ScriptedVectors:
    """Vectors from the words of a text, the same for the same text: texts with words in common lie close together."""

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        size = request.dimensions or SCRIPTED_DIMENSIONS
        return Embeddings(tuple(_vector(text, size) for text in request.texts), request.model or "scripted")

    async def rerank(self, request: RerankRequest) -> tuple[Ranked, ...]:
        asked = _vector(request.query, SCRIPTED_DIMENSIONS)
        scores = [
            Ranked(index, round(sum(a * b for a, b in zip(asked, _vector(text, SCRIPTED_DIMENSIONS), strict=True)), 9))
            for index, text in enumerate(request.texts)
        ]
        return tuple(sorted(scores, key=lambda one: one.score, reverse=True)[: request.top])


def _vector(text: str, size: int) -> tuple[float, ...]:
    values = [0.0] * size
    for word in text.lower().split():
        digest = hashlib.sha256(word.encode("utf-8", "replace")).digest()
        values[int.from_bytes(digest[:4], "big") % size] += 1.0 if digest[4] % 2 else -1.0
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    return tuple(value / length for value in values)
