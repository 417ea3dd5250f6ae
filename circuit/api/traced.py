"""Requests as spans: in the trace that the client names (`traceparent`), or in one of their own.

What is started, sent or fired by a request goes on in its trace, whichever process works on it later. Streams are not
traced here, for they last as long as their readers like; nor is what is asked every few seconds for ever.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from circuit.tracing import Context, Kind, Tracer, below

UNTRACED = frozenset({"/health", "/ready", "/metrics", "/openapi.json", "/"})
ROUTES = frozenset({"/graphql", "/v1/chat/completions", "/v1/completions", "/v1/models"})
HEADER = b"traceparent"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


class Traced:
    """Makes a span of each request that goes through to `app`."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNTRACED:
            await self._app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        # What there is not may be called anything; the names of spans are few.
        route = scope["path"] if scope["path"] in ROUTES else None
        attributes = {"http.request.method": method, "url.scheme": scope.get("scheme", "http")}
        if route is not None:
            attributes["http.route"] = route
        told = next((value for name, value in scope["headers"] if name == HEADER), b"")
        parent = Context.parse(told.decode("latin-1"))
        span = self._tracer.begin(f"{method} {route}" if route else method, attributes, parent=parent, kind=Kind.SERVER)

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                span.set({"http.response.status_code": message["status"]})
                if message["status"] >= 500:
                    span.set({"error.type": str(message["status"])})
            await send(message)

        try:
            with below(span):
                await self._app(scope, receive, noted)
        except BaseException as error:
            span.end(error)
            raise
        span.end()
