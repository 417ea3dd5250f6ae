"""Which requests are read at all, and how much of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from circuit.api.authentication import PRINCIPAL, refuse
from circuit.api.exposure import Exposure
from circuit.api.problems import Problems
from circuit.engine.rates import RequestRate
from circuit.errors import TooManyRequests
from circuit.security.principal import Principal

_DISCARD_BYTES = 256 * 1024 * 1024
_DISCARD_SECONDS = 10.0
"""How much of a body that is refused is still read, and for how long, so that its sender gets to read why."""
_TOO_LARGE = 413
_MISDIRECTED = 421


class BodyLimit:
    """Refuses a body of more than `largest` bytes: at once if it says its length, else when it has come so far."""

    def __init__(self, app: ASGIApp, largest: int, problems: Problems) -> None:
        self._app = app
        self._largest = largest
        self._problems = problems
        self._message = f"the body of a request has at most {largest} bytes"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._largest:
            if Headers(scope=scope).get("expect", "").lower() != "100-continue":
                # Whoever is still sending reads no answer, and closing on it would lose the answer on its way.
                await _discard(receive)
            await self._problems.refused(_TOO_LARGE, self._message)(scope, receive, send)
            return
        came = 0

        async def counted() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > self._largest:
                await _discard(receive)
                raise HTTPException(_TOO_LARGE, self._message)
            return message

        await self._app(scope, counted, send)


async def _discard(receive: Receive) -> None:
    """Read what is left of a body and throw it away, as far as that is worth it."""
    came = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_SECONDS):
            while came < _DISCARD_BYTES:
                message = await receive()
                came += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return


class RateLimited:
    """Refuses a principal that asks more often than it may: by the first part of the path, and by `*` for the rest."""

    def __init__(self, app: ASGIApp, rates: Mapping[str, RequestRate], problems: Problems) -> None:
        self._app = app
        self._problems = problems
        self._rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind, principal = scope["type"], scope.get(PRINCIPAL)
        if kind in ("http", "websocket") and isinstance(principal, Principal):
            part = scope["path"].strip("/").partition("/")[0]
            rate = self._rates.get(part, self._rates.get("*"))
            wait = await rate.take(principal) if rate is not None else 0.0
            if wait:
                error = TooManyRequests(f"too many requests to /{part}: try again in {wait:.1f} s", retry_after=wait)
                await refuse(scope, receive, send, self._problems, error)
                return
        await self._app(scope, receive, send)


class HostCheck:
    """Refuses requests that name another host than one that this server answers for."""

    def __init__(self, app: ASGIApp, exposure: Exposure, problems: Problems) -> None:
        self._app = app
        self._exposure = exposure
        self._problems = problems

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and not self._exposure.accepts(Headers(scope=scope).get("host")):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close"})
                return
            message = "this server listens on this machine only: ask for it as localhost or 127.0.0.1"
            await self._problems.refused(_MISDIRECTED, message)(scope, receive, send)
            return
        await self._app(scope, receive, send)
