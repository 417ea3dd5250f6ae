"""WebSocket: `/agent-stream/{execution_id}`, one text frame for each event, the same bytes as over SSE.

It closes with 1000 after the terminal event, 4404 for an execution that is not there, 4400 for a cursor that is none,
1012 when the server stops and 1011 or 1013 when it cannot read; the reason is the error's code. What the client says
is ignored.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from circuit.api.authentication import PRINCIPAL, address, asking
from circuit.api.line import message, pass_on, socket_line
from circuit.api.problems import INTERNAL_CODE, Problems
from circuit.api.readers import Readers
from circuit.errors import CircuitError
from circuit.events import Frame
from circuit.streams.reader import Reader
from circuit.surface import surface

NORMAL = 1000
RESTARTING = 1012

logger = logging.getLogger(__name__)


def text(frame: Frame) -> str:
    """A frame as a text message."""
    return frame.body.decode()


def _message(frame: Frame) -> bytes:
    return message(frame.body)


def _spelled(frame: Frame) -> bytes:
    return frame.wire(_message)


class StreamSocket:
    """The endpoint, as a plain ASGI application: there is nothing here that would repay a framework's cost."""

    def __init__(self, readers: Readers, problems: Problems) -> None:
        self._readers = readers
        self._problems = problems

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # the client's wish to connect
        after = Headers(scope=scope).get("last-event-id") or _first(scope, "after") or _first(scope, "since")
        with contextlib.suppress(OSError):  # the client is gone
            await send({"type": "websocket.accept"})
            try:
                reader = await self._readers.open(scope["path_params"]["execution_id"], after, asking(scope))
            except CircuitError as error:
                await self._problems.noted(error, scope.get(PRINCIPAL), scope["path"], address(scope))
                await _close(send, surface(error.code).websocket, error.code)
            else:
                await self._run(reader, receive, send)

    async def _run(self, reader: Reader, receive: Receive, send: Send) -> None:
        listening = asyncio.create_task(_stop_when_gone(receive, reader))
        line = socket_line(send, _spelled)
        if line is not None:
            reader.send_through(line)

        async def send_one(frame: Frame) -> None:
            await send({"type": "websocket.send", "text": frame.wire(text)})

        try:
            while not reader.over:
                await pass_on(await reader.read(), line, send_one)
            if not listening.done():
                restarting = self._readers.draining
                await _close(send, RESTARTING if restarting else NORMAL, "restarting" if restarting else "")
        except CircuitError as error:
            await _close(send, surface(error.code).websocket, error.code)
        except OSError:
            raise
        except Exception:
            logger.exception("the stream of execution %s failed", reader.name)
            await _close(send, 1011, INTERNAL_CODE)
        finally:
            listening.cancel()
            self._readers.close(reader)


async def _close(send: Send, code: int, reason: str) -> None:
    await send({"type": "websocket.close", "code": code, "reason": reason})


async def _stop_when_gone(receive: Receive, reader: Reader) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass
    reader.stop()


def _first(scope: Scope, name: str) -> str | None:
    values = parse_qs(scope.get("query_string", b"").decode("latin-1")).get(name)
    return values[0] if values else None
