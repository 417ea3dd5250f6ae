"""The one way in which Circuit calls other servers over HTTP, and the only module that knows httpx.

Policy: one client per origin; proxies and certificates from the environment as httpx reads them; no redirects, no
cookies; no time limit but these: `connect`, `first_byte` (until the first content of an answer), `idle` (between two
pieces of content). What counts as content is said by the reader (`Exchange.progress`), because a server that only
sends comments or empty events has stopped answering. The total is the time limit of the action that calls.

No error of this module quotes a header, a body or a URL's path and query: they may hold secrets. For the same reason
errors are raised outside of the `except` blocks: httpx's own exceptions hold the request with its headers, and would
otherwise hang on ours as their context.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import urlsplit

import httpx

from circuit.errors import (
    BadResponse,
    ProviderError,
    ProviderMisconfigured,
    ProviderTimeout,
    ProviderUnavailable,
    StreamCut,
)
from circuit.tracing import TRACEPARENT, current

DRAIN_SECONDS = 0.1
"""How long the end of an answer is awaited after its terminal marker, so that the connection can be used again."""

READ_SECONDS = 10.0
"""How long the body of a refusal is awaited: its status alone says enough."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to wait for a connection, for the first content of an answer, and between two pieces of content."""

    connect: float = 30.0
    first_byte: float = 300.0
    idle: float = 120.0


def origin(url: str) -> str:
    """Scheme, host and port of `url`: what a message may say of it. Raises `ProviderMisconfigured` if it has none."""
    parts = None
    with suppress(ValueError):
        parts = urlsplit(url)
        # Reading the port checks it.
        port = parts.port
        if parts.scheme in ("http", "https") and parts.hostname:
            host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
            return f"{parts.scheme}://{host}" + (f":{port}" if port else "")
    raise ProviderMisconfigured(
        "The base URL of a provider must begin with http:// or https:// and name a host,"
        " such as https://api.openai.com/v1; this one does not."
    )


class Exchange:
    """A request that was answered, while the answer's body comes in."""

    def __init__(self, response: httpx.Response, place: str, timeouts: Timeouts, deadline: float) -> None:
        self._response = response
        self._place = place
        self._timeouts = timeouts
        self._deadline = deadline
        self._progressed = False
        self._pieces = response.aiter_bytes()

    @property
    def status(self) -> int:
        return self._response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        """The answer's headers; names compare without case."""
        return self._response.headers

    @property
    def place(self) -> str:
        """The server's origin, for messages."""
        return self._place

    def progress(self) -> None:
        """Content came: the idle time starts anew."""
        self._progressed = True
        self._deadline = asyncio.get_running_loop().time() + self._timeouts.idle

    async def receive(self) -> bytes | None:
        """The next piece of the body, None at its end. Raises `ProviderTimeout`, `StreamCut` or `BadResponse`."""
        fault: ProviderError
        try:
            async with asyncio.timeout_at(self._deadline):
                return await anext(self._pieces, None)
        except TimeoutError:
            if self._progressed:
                fault = ProviderTimeout(f"{self._place} sent no content for {self._timeouts.idle:g} s in its answer")
            else:
                fault = ProviderTimeout(f"{self._place} sent no content within {self._timeouts.first_byte:g} s")
        except httpx.DecodingError:
            fault = BadResponse(f"{self._place} sent a body that does not match its content encoding")
        except (httpx.HTTPError, httpx.StreamError):
            fault = StreamCut(f"the connection to {self._place} broke in the middle of the answer")
        raise fault

    async def read(self, limit: int) -> bytes:
        """The body, at most `limit` bytes of it. What breaks or hangs on the way ends it, and is no error."""
        self._deadline = min(self._deadline, asyncio.get_running_loop().time() + READ_SECONDS)
        body = bytearray()
        with suppress(ProviderError):
            while len(body) < limit and (piece := await self.receive()) is not None:
                body += piece
        return bytes(body[:limit])

    async def read_whole(self, limit: int) -> bytes | None:
        """The body, or None where it has more than `limit` bytes. Raises what `receive` raises."""
        body = bytearray()
        while (piece := await self.receive()) is not None:
            self.progress()
            body += piece
            if len(body) > limit:
                return None
        return bytes(body)

    async def drain(self) -> None:
        """Wait a moment for the end of the body, so that the connection can be used again."""
        deadline = asyncio.get_running_loop().time() + DRAIN_SECONDS
        self._deadline = min(self._deadline, deadline)
        with suppress(ProviderError):
            while await self.receive() is not None:
                pass

    async def close(self) -> None:
        """Close the answer. Where its body has not ended, this closes the connection, which cancels the request."""
        with suppress(httpx.HTTPError, httpx.StreamError, OSError):
            await self._response.aclose()


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole answer. `truncated` says that its body was longer than what was asked for."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    truncated: bool = False


class Http:
    """Calls servers. Clients are made on first use, shared, and closed by `aclose`; use it in one event loop."""

    def __init__(self, timeouts: Timeouts | None = None) -> None:
        self._timeouts = timeouts or Timeouts()
        self._clients: dict[str, httpx.AsyncClient] = {}
        self._certificates: ssl.SSLContext | None = None

    @asynccontextmanager
    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes) -> AsyncGenerator[Exchange, None]:
        """Post `body`, as `request` does."""
        async with self.request("POST", url, headers=headers, body=body) as exchange:
            yield exchange

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        address: str | None = None,
        timeouts: Timeouts | None = None,
    ) -> AsyncGenerator[Exchange, None]:
        """Send a request and hand over the answer, whatever its status, when its headers are there.

        With `address` the connection goes to that one, whatever the host's name means now, and to no proxy; with
        `timeouts`, these count. Raises
        `ProviderUnavailable` where there is no connection or no answer, `ProviderTimeout` where it takes too
        long, `BadResponse` where the answer is not HTTP, `ProviderMisconfigured` for a URL or header that cannot be.
        """
        exchange = await self._open(method, url, headers, body, address, timeouts or self._timeouts)
        try:
            yield exchange
        finally:
            await exchange.close()

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        address: str,
        limit: int,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        seconds: float | None = None,
    ) -> Fetched:
        """Ask the server of `url` at exactly `address`, as `request` does, and read its answer.

        No proxy and no redirect: where the request goes was looked at before. All of it may take `seconds`, if they
        are given. Raises `ProviderError`.
        """
        given = {"Accept-Encoding": "identity", "User-Agent": "circuit-engine", **(headers or {})}
        limits = self._timeouts
        if seconds is not None:
            limits = Timeouts(min(limits.connect, seconds), seconds, seconds)
        longest = limits.connect + limits.idle if seconds is None else seconds
        try:
            async with (
                asyncio.timeout(longest),
                self.request(method, url, headers=given, body=body, address=address, timeouts=limits) as exchange,
            ):
                said = bytearray()
                while len(said) <= limit and (piece := await exchange.receive()) is not None:
                    exchange.progress()
                    said += piece
                return Fetched(exchange.status, exchange.headers, bytes(said[:limit]), len(said) > limit)
        except TimeoutError:
            raise ProviderTimeout(f"{origin(url)} did not answer in time") from None

    async def aclose(self) -> None:
        """Close all connections. Twice is fine."""
        clients = list(self._clients.values())
        self._clients.clear()
        for client in clients:
            await client.aclose()

    async def _open(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        address: str | None,
        limits: Timeouts,
    ) -> Exchange:
        place = origin(url)
        headers = _carrying(url, headers)
        _check_headers(headers)
        deadline = asyncio.get_running_loop().time() + limits.connect + limits.first_byte
        fault: ProviderError
        try:
            client = self._client(place, direct=address is not None)
            async with asyncio.timeout_at(deadline):
                request = _request(client, method, url, headers, body, address)
                response = await client.send(request, stream=True)
            return Exchange(response, place, limits, deadline)
        except httpx.ConnectTimeout:
            fault = ProviderTimeout(f"no connection to {place} within {limits.connect:g} s")
        except (TimeoutError, httpx.TimeoutException):
            fault = ProviderTimeout(f"{place} did not begin to answer within {limits.first_byte:g} s")
        except httpx.ProxyError:
            fault = ProviderUnavailable(f"the proxy refused to connect to {place}")
        except httpx.ConnectError as error:
            fault = ProviderUnavailable(f"cannot connect to {place}: {_reason(error)}")
        except httpx.RemoteProtocolError as error:
            # httpcore has one exception for a peer that closes in silence and for one that does not speak HTTP.
            if "disconnected" in str(error):
                fault = ProviderUnavailable(f"{place} closed the connection without an answer")
            else:
                fault = BadResponse(f"{place} answered with something that is not HTTP")
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError):
            fault = ProviderMisconfigured(f"the request to {place} cannot be sent: check the base URL and the headers")
        except httpx.HTTPError:
            fault = ProviderUnavailable(f"the connection to {place} broke before the answer came")
        raise fault

    def _trust(self) -> ssl.SSLContext:
        if self._certificates is None:
            self._certificates = httpx.create_ssl_context()
        return self._certificates

    def _client(self, place: str, *, direct: bool) -> httpx.AsyncClient:
        named = f"{place} directly" if direct else place
        client = self._clients.get(named)
        if client is None:
            client = self._clients[named] = httpx.AsyncClient(
                trust_env=not direct,
                verify=self._trust(),
                # Reading has no limit here: it is measured on content, by `Exchange`.
                timeout=httpx.Timeout(None, connect=self._timeouts.connect, write=self._timeouts.first_byte),
                # The number of calls at once is bounded by the worker.
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=50),
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                follow_redirects=False,
            )
        return client


def _request(
    client: httpx.AsyncClient, method: str, url: str, headers: Mapping[str, str], body: bytes, address: str | None
) -> httpx.Request:
    """The request; to an address, it names the host in its header and for the certificate."""
    content = body or None
    if address is None:
        return client.build_request(method, url, headers=dict(headers), content=content)
    named = httpx.URL(url)
    host = {"Host": named.netloc.decode("ascii")}
    return client.build_request(
        method,
        named.copy_with(host=address),
        headers={**headers, **host},
        content=content,
        extensions={"sni_hostname": named.raw_host.decode("ascii")},
    )


def _carrying(url: str, headers: Mapping[str, str]) -> Mapping[str, str]:
    """The headers, with the trace in which the server is asked where it may hear of that."""
    span = current()
    if span is None or any(name.lower() == TRACEPARENT for name in headers):
        return headers
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    context = span.context
    told = context is not None and span.told(parts.hostname or "", port)
    return {**headers, TRACEPARENT: context.text} if told and context is not None else headers


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not name or not name.isascii() or any(c <= " " or c in ":\x7f" for c in name):
            raise ProviderMisconfigured("the name of a header of a provider holds a character that HTTP does not allow")
        if not value.isascii() or any((c < " " and c != "\t") or c == "\x7f" for c in value):
            raise ProviderMisconfigured(
                f"the value of the header {name} holds a character that HTTP does not allow (a line break?)"
            )


def _reason(error: BaseException) -> str:
    """What the system says of a failed connection: the innermost exception's own words."""
    seen = error
    while (inner := seen.__cause__ or seen.__context__) is not None and len(str(inner)) > 0:
        seen = inner
    if isinstance(seen, OSError) and seen.strerror:
        return seen.strerror
    return str(seen)[:200] or type(error).__name__
