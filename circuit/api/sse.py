"""Server-sent events: `/agent-stream/{execution_id}` for `EventSource` and anything that reads HTTP line by line.

Like the WebSocket, the endpoint is a plain ASGI application, so that every event goes straight to the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from circuit.api.authentication import PRINCIPAL, address, asking
from circuit.api.line import chunk, pass_on, response_line
from circuit.api.origins import TOLD
from circuit.api.problems import Problems
from circuit.api.readers import Readers
from circuit.errors import CircuitError
from circuit.events import Frame
from circuit.streams.reader import Reader

HEARTBEAT_SECONDS = 15.0
RETRY_MILLISECONDS = 2000
METHODS = ("GET", "HEAD")
HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
}
logger = logging.getLogger(__name__)

_HELLO = b"retry: %d\n\n" % RETRY_MILLISECONDS
_HEARTBEAT = b": waiting\n\n"


def event(frame: Frame) -> bytes:
    """A frame as an event: its cursor is the id, and no `event:` line, so that `onmessage` sees every type."""
    return b"id: %d-%d\ndata: %b\n\n" % (frame.start, frame.sequence, frame.body)


def _chunk(frame: Frame) -> bytes:
    return chunk(event(frame))


def _spelled(frame: Frame) -> bytes:
    return frame.wire(_chunk)


class EventEndpoint:
    """Answers with the stream, or with 204 where nothing follows the cursor, so that `EventSource` stops asking."""

    def __init__(self, readers: Readers, problems: Problems, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> None:
        self._readers = readers
        self._problems = problems
        self._heartbeat_seconds = heartbeat_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        if request.method not in METHODS:
            response = self._problems.refused(
                405, f"method not allowed: {request.method}", {"allow": ", ".join(METHODS)}
            )
        else:
            try:
                response = await self._answer(request)
            except CircuitError as error:
                await self._problems.noted(error, scope.get(PRINCIPAL), scope["path"], address(scope))
                response = self._problems.of(error)
            except Exception:
                logger.exception("%s %s failed", request.method, request.url.path)
                response = self._problems.fault()
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        # A browser that reconnects sends the same URL again, so the header knows better than the query.
        asked = request.query_params
        after = request.headers.get("last-event-id") or asked.get("after") or asked.get("since")
        reader = await self._readers.open(request.path_params["execution_id"], after, asking(request.scope))
        if reader.over and not self._readers.draining:
            self._readers.close(reader)
            told: Mapping[str, str] = request.scope.get(TOLD) or {}
            return Response(status_code=204, headers={"cache-control": "no-store", **told})
        if request.method == "HEAD":
            self._readers.close(reader)
            return Response(headers={**HEADERS, **(request.scope.get(TOLD) or {})})
        return EventStream(self._readers, reader, self._heartbeat_seconds, request.scope.get(TOLD) or {})


class EventStream(Response):
    """A response that ends when the stream does, when the client goes, or when the server stops."""

    def __init__(
        self, readers: Readers, reader: Reader, heartbeat_seconds: float, told: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(headers={**HEADERS, **(told or {})})
        del self.headers["content-length"]
        self._readers = readers
        self._reader = reader
        self._heartbeat_seconds = heartbeat_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reader = self._reader
        watching = asyncio.create_task(_stop_when_gone(receive, reader))

        async def send_part(part: bytes) -> None:
            await send({"type": "http.response.body", "body": part, "more_body": True})

        async def send_one(frame: Frame) -> None:
            await send_part(frame.wire(event))

        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send_part(_HELLO)
            line = response_line(send, _spelled)
            if line is not None:
                reader.send_through(line)
            while not reader.over:
                frames = await reader.read(self._heartbeat_seconds)
                if frames:
                    await pass_on(frames, line, send_one)
                elif not reader.over:
                    await send_part(_HEARTBEAT)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except OSError:  # the client is gone
            pass
        except CircuitError as error:  # what was begun can only be cut; the browser comes back with its cursor
            logger.warning("the stream of execution %s ended early: %s", reader.name, error)
        finally:
            watching.cancel()
            self._readers.close(reader)


async def _stop_when_gone(receive: Receive, reader: Reader) -> None:
    """A silent stream would notice that nobody reads any more only at its next heartbeat."""
    with contextlib.suppress(Exception):
        while (await receive())["type"] != "http.disconnect":
            pass
    reader.stop()
