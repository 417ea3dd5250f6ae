"""When a transition may take the tokens that it has bound: timers, and the rhythm of an agent that runs on a place.

Both answer with an instant: due now or before, due later, or (None) not by time alone. Nothing here reads a clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from circuit.expressions.path import MISSING
from circuit.expressions.schedule import Cron
from circuit.net.marking import Token
from circuit.net.scope import ScopePath, scope_of
from circuit.value import dataclass

LATE = timedelta(seconds=60)
"""A run that has not begun so long after it was due is missed."""


class Missed(StrEnum):
    """What becomes of runs whose time has passed: none of them, one for all of them, or each of them."""

    SKIP = "skip"
    ONCE = "once"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Timer:
    """Exactly one of: so many seconds `after` the last of the consumed tokens came, `at` an instant or at the one that
    a path leads to, or at the first time of a `cron` line after that. With `interrupt`, tokens that a firing holds are
    taken too."""

    after: float | None = None
    at: datetime | ScopePath | None = None
    cron: Cron | None = None
    interrupt: bool = False

    def due(
        self, consumed: Sequence[Token], read: Sequence[Token], case: Mapping[str, Any], now: datetime
    ) -> datetime | None:
        """From when on these tokens may be taken."""
        if isinstance(self.at, datetime):
            return self.at
        if self.at is not None:
            value = self.at.get(scope_of(consumed, read, case))
            return None if value is MISSING else instant_of(value)
        came = max(token.entered_at for token in consumed)
        if self.cron is not None:
            return self.cron.after(came)
        return came + timedelta(seconds=self.after or 0.0)


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When the agent `name` runs on a token: once, `delay` seconds after it came; or then and every `interval` seconds,
    or at the times of a `cron` line, at most `most` times. A token on which an agent runs is left to it."""

    name: str
    delay: float = 0.0
    interval: float | None = None
    cron: Cron | None = None
    most: int | None = None
    missed: Missed = Missed.ONCE

    @property
    def once(self) -> bool:
        """Whether there is one run a stay, which is not missed however late it comes."""
        return self.interval is None and self.cron is None

    def due(
        self, consumed: Sequence[Token], read: Sequence[Token], case: Mapping[str, Any], now: datetime
    ) -> datetime | None:
        """The time of the next run on this token."""
        (token,) = consumed
        runs = token.runs or {}
        if any(run.firing is not None for run in runs.values()):
            return None
        run = runs.get(self.name)
        if run is not None and run.count >= (1 if self.once else self.most or run.count + 1):
            return None
        first = token.entered_at + timedelta(seconds=self.delay)
        if self.once:
            return first
        due = self._following(first, None if run is None else run.due)
        if due is None or due > now or self.missed is Missed.ALL:
            return due
        latest = self._latest(first, due, now)
        if self.missed is Missed.SKIP and now - latest > LATE:
            return self._following(first, latest)
        return latest

    def _following(self, first: datetime, last: datetime | None) -> datetime | None:
        """The first time after `last`, which need not be one itself: somebody may have asked for a run between two."""
        if self.cron is not None:
            return self.cron.after(first if last is None else max(first, last))
        assert self.interval is not None
        if last is None or last < first:
            return first
        step = timedelta(seconds=self.interval)
        return first + ((last - first) // step + 1) * step

    def _latest(self, first: datetime, due: datetime, now: datetime) -> datetime:
        """The last time that is not after `now`; `due` is one."""
        if self.cron is None:
            assert self.interval is not None
            step = timedelta(seconds=self.interval)
            return first + (now - first) // step * step
        # Looked for backwards from now, in growing steps, so that a long stand-still does not take long to catch up.
        back, found = LATE, due
        while True:
            start = max(due, now - back)
            later = self.cron.after(start - timedelta(microseconds=1))
            if later is not None and later <= now:
                while later is not None and later <= now:
                    found, later = later, self.cron.after(later)
                return found
            if start == due:
                return due
            back *= 4


Timing = Timer | Rhythm


def instant_of(value: object) -> datetime | None:
    """The instant that `value` spells in ISO 8601, in UTC where it names no offset; None if it is none."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
