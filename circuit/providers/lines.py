"""Splits bytes into lines, without IO: JSON by lines ends each value with LF, and with nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field

from circuit.providers.sse import BOM, LINE_LIMIT, EventOversize, ServerEvent


@dataclass(slots=True)
class LineSplitter:
    """Takes bytes as they come, gives the lines that they complete, as events without a name."""

    _rest: bytearray = field(default_factory=bytearray)
    _started: bool = False

    def feed(self, piece: bytes) -> list[ServerEvent]:
        """The lines that `piece` completes. Raises `EventOversize`."""
        whole, newline, _ = piece.rpartition(b"\n")
        if not newline:
            self._rest += piece
            self._measure()
            return []
        begun = bytes(self._rest) + whole
        lines = (begun if self._started else begun.removeprefix(BOM)).split(b"\n")
        self._started = True
        self._rest = bytearray(piece[len(whole) + 1 :])
        self._measure()
        return [ServerEvent("", line) for line in lines if line.strip()]

    def flush(self) -> ServerEvent | None:
        """The line that the end cut off, if there is one."""
        rest, self._rest = bytes(self._rest), bytearray()
        rest = rest if self._started else rest.removeprefix(BOM)
        return ServerEvent("", rest) if rest.strip() else None

    def _measure(self) -> None:
        if len(self._rest) > LINE_LIMIT:
            raise EventOversize(f"a line of more than {LINE_LIMIT} bytes")
