"""Splits the bytes of an event stream into events, without IO.

After the WHATWG's rules for `text/event-stream` (HTML Living Standard, section 9.2.6): lines end in CR, LF or CRLF,
wherever the bytes are cut, and at nothing else; U+2028 and U+0085 are ordinary text. One rule is wider: an event that
the end of the stream cuts off is handed out by `flush`, because some servers leave the last empty line away.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

LINE_LIMIT = 16 * 1024 * 1024
"""How many bytes one event may have."""

_LINE_END = re.compile(rb"\r\n|\n|\r")
BOM = b"\xef\xbb\xbf"


class EventOversize(ValueError):
    """An event of more than `LINE_LIMIT` bytes."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event. `name` is empty where the server gave none."""

    name: str
    data: bytes


@dataclass(slots=True)
class EventSplitter:
    """Takes bytes as they come, gives the events that they complete."""

    _rest: bytearray = field(default_factory=bytearray)
    _scanned: int = 0
    _after_cr: bool = False
    _started: bool = False
    _name: str = ""
    _data: list[bytes] = field(default_factory=list[bytes])
    _size: int = 0

    def feed(self, piece: bytes) -> list[ServerEvent]:
        """The events that `piece` completes. Raises `EventOversize`."""
        if self._after_cr and piece:
            # The LF of a CRLF that was cut in two ends no second line.
            self._after_cr = False
            if piece[:1] == b"\n":
                piece = piece[1:]
        self._rest += piece
        if not self._started:
            if len(self._rest) < len(BOM) and BOM.startswith(self._rest):
                return []
            self._started = True
            if self._rest.startswith(BOM):
                del self._rest[: len(BOM)]
        events: list[ServerEvent] = []
        begin = 0
        scan = self._scanned
        while (end := _LINE_END.search(self._rest, scan)) is not None:
            line = bytes(self._rest[begin : end.start()])
            begin = scan = end.end()
            if end.group() == b"\r" and begin == len(self._rest):
                self._after_cr = True
            if (event := self._line(line)) is not None:
                events.append(event)
        del self._rest[:begin]
        self._scanned = len(self._rest)
        if self._size + len(self._rest) > LINE_LIMIT:
            raise EventOversize(f"an event of more than {LINE_LIMIT} bytes")
        return events

    def flush(self) -> ServerEvent | None:
        """The event that the end of the stream cut off, if it had data."""
        line = bytes(self._rest)
        self._rest.clear()
        self._scanned = 0
        return (self._line(line) if line else None) or self._dispatch()

    def _line(self, line: bytes) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._size += len(value)
        elif name == b"event":
            self._name = value.decode("utf-8", "replace")
        return None

    def _dispatch(self) -> ServerEvent | None:
        data, name = self._data, self._name
        self._data, self._name, self._size = [], "", 0
        return ServerEvent(name, b"\n".join(data)) if data else None
