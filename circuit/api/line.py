"""The short way from a stream to its readers' sockets: bytes that are framed once for all of them.

An ASGI server frames what it is sent for each connection anew, and only a task may send. For a thousand readers of one
stream that is most of what a delivery costs. A line writes to the connection's transport what the server would have
written, as long as the client keeps up; a client that does not is left to the server's own `send`, which waits for it.
Only uvicorn's connections have one; behind any other server everything goes through `send`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.types import Send
from uvicorn.protocols.http.h11_impl import RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from circuit.events import Frame
from circuit.streams.reader import Line

RAW_SEND = "circuit.send"
"""Where the scope of a WebSocket holds the server's own `send`, which frameworks hide."""

GONE = "the client is gone"

Spell = Callable[[Frame], bytes]
"""The bytes of a frame on a connection."""

_MOST_BYTES = 64 * 1024
"""What is written at once, if it is more than a frame: as much as a transport takes before it says that it is full."""
_TEXT = 0x81
"""The first byte of a text message that is whole."""
_SHORT = 126
_MEDIUM = 1 << 16


def message(text: bytes) -> bytes:
    """A WebSocket message of `text`, as a server sends it."""
    length = len(text)
    if length < _SHORT:
        return b"%c%c%b" % (_TEXT, length, text)
    if length < _MEDIUM:
        return b"%c%c%b%b" % (_TEXT, _SHORT, length.to_bytes(2, "big"), text)
    return b"%c%c%b%b" % (_TEXT, _SHORT + 1, length.to_bytes(8, "big"), text)


def chunk(body: bytes) -> bytes:
    """A part of a response whose length is not known beforehand."""
    return b"%x\r\n%b\r\n" % (len(body), body)


def socket_line(send: Send, spell: Spell) -> Line | None:
    """The line of an accepted WebSocket, for the server's own `send`."""
    connection: Any = getattr(send, "__self__", None)
    # What is compressed is so for each connection on its own.
    if not isinstance(connection, WebSocketsSansIOProtocol) or connection.conn.extensions:
        return None
    transport, keeps_up = connection.transport, connection.writable.is_set
    write, closing = transport.write, transport.is_closing

    def line(frames: Sequence[Frame]) -> int:
        if closing() and not connection.close_sent:
            raise ConnectionResetError(GONE)
        if not keeps_up() or connection.close_sent:
            return 0
        content, count = _content(frames, spell)
        write(content)
        return count

    return line


def response_line(send: Send, spell: Spell) -> Line | None:
    """The line of a response that has begun and has no length."""
    cycle: Any = getattr(send, "__self__", None)
    if not isinstance(cycle, RequestResponseCycle) or cycle.scope["http_version"] != "1.1":
        return None
    flow, transport = cycle.flow, cycle.transport
    write, closing = transport.write, transport.is_closing

    def line(frames: Sequence[Frame]) -> int:
        if closing():
            raise ConnectionResetError(GONE)
        if flow.write_paused or cycle.disconnected:
            return 0
        content, count = _content(frames, spell)
        write(content)
        return count

    return line


def cutting(send: Send) -> Callable[[], None] | None:
    """What cuts the connection behind the server's own `send`, whatever it has yet to take."""
    connection: Any = getattr(send, "__self__", None)
    if not isinstance(connection, WebSocketsSansIOProtocol | RequestResponseCycle):
        return None
    transport: Any = connection.transport
    return transport.abort


async def pass_on(frames: Sequence[Frame], line: Line | None, send: Callable[[Frame], Awaitable[None]]) -> None:
    """Send all of `frames`: through the line as far as that takes them, and `send` one for which it has to wait."""
    done = 0
    while done < len(frames):
        taken = line(frames[done:]) if line is not None else 0
        if not taken:
            await send(frames[done])
            taken = 1
        done += taken


def _content(frames: Sequence[Frame], spell: Spell) -> tuple[bytes, int]:
    if len(frames) == 1:
        return spell(frames[0]), 1
    parts: list[bytes] = []
    size = 0
    for frame in frames:
        parts.append(spell(frame))
        size += len(parts[-1])
        if size >= _MOST_BYTES:
            break
    return b"".join(parts), len(parts)
