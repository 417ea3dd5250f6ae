"""A place in the stream of an execution: which start, and how far into it.

Outside, a cursor is one opaque word; inside, cursors compare in the order of the stream.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from circuit.errors import InvalidCursor

_SPELLING = re.compile(r"([1-9][0-9]{0,8})-([1-9][0-9]{0,8})", re.ASCII)


class Cursor(NamedTuple):
    """The event `sequence` of the start `start`; both count from 1."""

    start: int
    sequence: int

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """The cursor that `text` spells. Raises `InvalidCursor`."""
        match = _SPELLING.fullmatch(text)
        if match is None:
            shown = text if len(text) <= 40 else text[:40] + "..."
            raise InvalidCursor(f"{shown!r} is no cursor; give one that an event of this stream carried, such as 1-12")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.start}-{self.sequence}"


BEGINNING = Cursor(1, 0)
"""Before the first event of a stream; no event carries it."""
