"""What this machine gives: its clock, and the ids that it makes."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from uuid import UUID

from circuit.ids import uuid7


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class SystemIds:
    """UUIDv7s of this machine's time that only ever grow within a process, also within one millisecond."""

    def __init__(self, clock: SystemClock) -> None:
        self._clock = clock
        self._last = 0
        self._count = 0

    def uuid(self) -> UUID:
        milliseconds = int(self._clock.now().timestamp() * 1000)
        if milliseconds > self._last:
            self._last, self._count = milliseconds, secrets.randbits(73)
        else:
            # Within one millisecond, or after the clock was set back, the random part counts on.
            self._count += 1 + secrets.randbits(32)
            if self._count >= 1 << 74:
                self._last, self._count = self._last + 1, secrets.randbits(73)
        return uuid7(self._last, self._count)
