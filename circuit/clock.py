"""Time as a value that is handed in, so that every rule about time can be tested without waiting."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Where a part reads the time. The system's clock is built in `circuit.app`; tests move their own."""

    def now(self) -> datetime:
        """The present instant, aware and in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that only ever grow; for spans, never for instants."""
        ...
