"""Pages of other sites: which of them may speak to the server, and what browsers are told of its answers.

A browser lets any page send requests to any server and says from where (`Origin`); only the answers are kept from it.
So what changes something is refused for pages of origins that are not allowed, before it is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from circuit.api.exposure import names_this_machine
from circuit.api.problems import Problems
from circuit.errors import Forbidden

TOLD = "circuit.headers"
"""Where a scope holds what the response has to tell browsers."""
_SAFE = ("GET", "HEAD", "OPTIONS")
_METHODS = "GET, POST, HEAD, OPTIONS"
_HEADERS = "authorization, content-type, idempotency-key, last-event-id"
"""What pages may send that do not say what they will."""
_EXPOSED = "x-circuit-case-id, x-circuit-execution-id, retry-after"
_PREFLIGHT_SECONDS = 600
_ALWAYS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
}
_DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"


class Origins:
    """The origins whose pages may use the server, beside those of its own host: `https://host` as browsers write it,
    or `*`."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = frozenset(allowed)

    def allows(self, origin: str | None, host: str | None) -> bool:
        """Whether a page from `origin` may speak to `host`: browsers ask nobody else.

        A program sends no origin. A page of the same host may, one of any port of this machine where the server is
        reached as this machine, and those that are named.
        """
        if origin is None or self.named(origin):
            return True
        try:
            page, server = urlsplit(origin), urlsplit(f"//{host or ''}")
            page_port = page.port or {"http": 80, "https": 443}.get(page.scheme)
            server_port = server.port or {"http": 80, "https": 443}.get(page.scheme)
        except ValueError:
            return False
        if page.hostname is None:
            return False
        if names_this_machine(page.netloc) and names_this_machine(server.netloc):
            return True
        return (page.hostname, page_port) == (server.hostname, server_port)

    def named(self, origin: str) -> bool:
        """Whether pages of `origin` may also read the answers."""
        return origin in self._allowed or "*" in self._allowed

    def told(self, origin: str) -> dict[str, str]:
        """The headers by which a browser shows an answer to a page of `origin`; none where it may not see it."""
        if not self.named(origin):
            return {"vary": "origin"}
        return {
            "access-control-allow-origin": origin,
            "access-control-expose-headers": _EXPOSED,
            "vary": "origin",
        }


class OriginCheck:
    """Answers preflights, refuses what pages of other origins may not do, and says in the scope what to tell browsers.

    With `dress` it puts that and the headers of safety on the response itself; streams do it on their own, once.
    """

    def __init__(self, app: ASGIApp, origins: Origins, problems: Problems, *, dress: bool = True) -> None:
        self._app = app
        self._origins = origins
        self._problems = problems
        self._dress = dress

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if scope["type"] == "websocket" and not self._origins.allows(headers.get("origin"), headers.get("host")):
            await self._refused(scope)
            await receive()
            await send({"type": "websocket.close"})  # before it is accepted: the handshake is answered with 403
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        origin, method = headers.get("origin"), scope["method"]
        told: dict[str, str] = {} if origin is None else self._origins.told(origin)
        answer: Response | None = None
        if origin is not None and method == "OPTIONS" and "access-control-request-method" in headers:
            answer = self._preflight(origin, told, headers.get("access-control-request-headers") or _HEADERS)
        elif method not in _SAFE and not self._origins.allows(origin, headers.get("host")):
            answer = self._problems.of(await self._refused(scope))
        scope[TOLD] = {**_ALWAYS, **told}
        if answer is not None:
            answer.headers.update(scope[TOLD])
            await answer(scope, receive, send)
        elif not self._dress:
            await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, _dressed(send, scope[TOLD]))

    async def _refused(self, scope: Scope) -> Forbidden:
        error = Forbidden("pages of this origin may not use the server: CIRCUIT_ALLOWED_ORIGINS names those that may")
        await self._problems.noted(error, None, scope["path"], scope["client"][0] if scope.get("client") else None)
        return error

    def _preflight(self, origin: str, told: dict[str, str], headers: str) -> Response:
        """What a page may send. One that may ask at all may send what it wants: clients add headers of their own."""
        if not self._origins.named(origin):
            return self._problems.of(Forbidden("pages of this origin may not read what the server answers"))
        return Response(
            status_code=204,
            headers={
                **told,
                "access-control-allow-methods": _METHODS,
                "access-control-allow-headers": headers,
                "access-control-max-age": str(_PREFLIGHT_SECONDS),
            },
        )


def _dressed(send: Send, told: dict[str, str]) -> Send:
    async def dressed(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(told)
            headers.setdefault("content-security-policy", _DATA_POLICY)
        await send(message)

    return dressed
