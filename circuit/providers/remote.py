"""Brings a protocol over HTTP: one request to one endpoint, its answer parsed as it comes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import urlsplit

import orjson

from circuit.errors import BadResponse, ProviderError, ProviderTimeout, StreamCut
from circuit.http import Exchange, Http, origin
from circuit.providers.endpoint import Endpoint
from circuit.providers.failure import Peer, status_error, stream_error
from circuit.providers.parser import Parser
from circuit.providers.provider import ModelChunk, ModelRequest
from circuit.providers.wire import Wire
from circuit.tracing import current

ERROR_BODY_LIMIT = 64 * 1024
SPARE = ("stream_options",)
"""What a request can do without: servers that do not know it tell the usage unasked (Mistral), or not at all."""


class RemoteProvider:
    """Streams answers from one endpoint. `extra` goes into the body of each request as it is, where null leaves a key
    away; `learn` hears the headers of each answer. `unknown` are the keys that this endpoint refused, which is told
    here too: what could be left away is not sent again."""

    def __init__(
        self,
        http: Http,
        wire: Wire,
        endpoint: Endpoint,
        *,
        extra: Mapping[str, Any] | None = None,
        learn: Callable[[Mapping[str, str]], None] = lambda _: None,
        unknown: set[str] | None = None,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self._http = http
        self._wire = wire
        self._endpoint = endpoint
        self._extra = extra or {}
        self._learn = learn
        self._unknown = set[str]() if unknown is None else unknown
        self._now = now or (lambda: datetime.now(UTC))

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
        endpoint = self._endpoint
        peer = Peer(origin(endpoint.base), request.model, endpoint.key_hint, endpoint.secrets)
        async with self._accepted(request, peer) as exchange:
            parser = self._wire.parser(request, peer.place, lambda error: stream_error(peer, error, self._now()))
            while (piece := await _receive(exchange, parser)) is not None:
                chunks = parser.feed(piece)
                if chunks or parser.moved:
                    exchange.progress()
                    parser.moved = False
                for chunk in chunks:
                    yield chunk
                if parser.done:
                    await exchange.drain()
                    break
            for chunk in parser.finish():
                yield chunk

    @asynccontextmanager
    async def _accepted(self, request: ModelRequest, peer: Peer) -> AsyncGenerator[Exchange, None]:
        """The answer to a request that the endpoint takes: it is sent again without what this does not know, where that
        can be left away. Raises `ProviderError`."""
        endpoint = self._endpoint
        made = with_extra(self._wire.body(request, own=endpoint.own), self._extra)
        url = endpoint.url(self._wire.path(request))
        name_server(url)
        while True:
            body = {name: value for name, value in made.items() if name not in self._unknown}
            async with self._http.post(url, headers=endpoint.headers, body=orjson.dumps(body)) as exchange:
                self._learn(exchange.headers)
                if exchange.status == 200:
                    yield exchange
                    return
                said = await exchange.read(ERROR_BODY_LIMIT)
                named = {name for name in SPARE if name in body and name.encode() in said}
                if exchange.status not in (400, 422) or not named:
                    raise status_error(peer, exchange.status, exchange.headers, said, self._now())
            self._unknown |= named


def name_server(url: str) -> None:
    """Say of the call that goes on here, if it is traced, which server it goes to."""
    span = current()
    if span is not None:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        span.set({"server.address": parts.hostname or "", "server.port": port})


async def _receive(exchange: Exchange, parser: Parser) -> bytes | None:
    """The next piece of the body. What breaks after the answer was whole only ends it: the usage may lack."""
    fault: ProviderError
    try:
        return await exchange.receive()
    except (StreamCut, ProviderTimeout, BadResponse) as error:
        fault = error
    if parser.answered:
        return None
    raise fault


def with_extra(body: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """`body` and over it `extra`; objects that both have are joined, and null leaves a key away."""
    for name, value in extra.items():
        if value is None:
            body.pop(name, None)
            continue
        old = body.get(name)
        joined = isinstance(value, Mapping) and isinstance(old, dict)
        body[name] = with_extra(cast("dict[str, Any]", old), cast("Mapping[str, Any]", value)) if joined else value
    return body
