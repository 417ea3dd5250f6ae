"""The newest events of one case, as this process committed them: who follows the case here need not read them again.

They are kept as the rows are written, so that each follower is given what a reader of the database would be.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import datetime

import orjson

from circuit.events import CaseEvent, decode_event, encode_event

MOST_EVENTS = 200


class News:
    """Events in the order of their numbers; the oldest go first."""

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: deque[tuple[int, datetime, str, bytes]] = deque(maxlen=MOST_EVENTS)

    def add(self, seq: int, events: Sequence[tuple[datetime, CaseEvent]]) -> None:
        """Keep `events`, the first of which is the case's event `seq`."""
        if self._rows and self._rows[-1][0] + 1 != seq:
            # Another process had the case in between.
            self._rows.clear()
        self._rows.extend(
            (number, at, event.kind, encode_event(event)) for number, (at, event) in enumerate(events, seq)
        )

    @property
    def last(self) -> int:
        """The number of the newest event."""
        return self._rows[-1][0] if self._rows else 0

    def after(self, seq: int) -> list[tuple[int, datetime, CaseEvent]]:
        """The events behind the number `seq`, if the one that follows it is here; else none."""
        rows = self._rows
        if not rows or not rows[0][0] <= seq + 1 <= rows[-1][0]:
            return []
        return [(n, at, decode_event(kind, orjson.loads(body))) for n, at, kind, body in rows if n > seq]
