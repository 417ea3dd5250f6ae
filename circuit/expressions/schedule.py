"""When something happens again: cron lines as pure calculators of instants, behind one door.

A line has the five fields of crontab (minute, hour, day of month, month, day of week) or `@hourly`, `@daily`,
`@weekly`, `@monthly`, `@yearly`, in UTC, or in the time zone that it begins with: `CRON_TZ=Europe/Berlin 0 8 * * 1-5`.
Where both days are given, either is enough. When clocks are put forward, a time that the day lacks comes that hour
later; when they are put back, a time that the day has twice comes once, unless the line comes every hour anyway.

The library only computes; due times are kept in the database. Its own numbering of the days of a week (0 is Monday) is
not crontab's (0 and 7 are Sunday), so days go to it by their names.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apscheduler.triggers.cron import CronTrigger

DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
SHORTHANDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_ZONE = re.compile(r"(?:CRON_TZ|TZ)=(\S+)\s+(.*)", re.DOTALL)
_DAY = re.compile(r"(\*|[a-z0-9]+)(?:-([a-z0-9]+))?(?:/(\d+))?")
_ONCE = datetime(2000, 1, 1, tzinfo=UTC)
"""From then on every line comes, or it never does: the days of the week and the leap years go round."""


class ScheduleFault(ValueError):
    """A cron line that is none, or that never comes."""


class Cron:
    """A cron line. Immutable; two of the same text are equal."""

    __slots__ = ("_every_hour", "_triggers", "_zone", "text")

    def __init__(self, text: str, triggers: tuple[Any, ...], zone: tzinfo, *, every_hour: bool) -> None:
        self.text = text
        self._triggers = triggers
        self._zone = zone
        self._every_hour = every_hour

    @classmethod
    def parse(cls, text: str) -> Cron:
        """The line that `text` spells. Raises `ScheduleFault`, also where no instant fits it."""
        return _parse(text.strip())

    def after(self, instant: datetime) -> datetime | None:
        """The first instant of the line that is later than `instant`, in UTC; None if there is none."""
        while True:
            floor = instant + timedelta(microseconds=1)
            found = [at for trigger in self._triggers if (at := trigger.get_next_fire_time(None, floor)) is not None]
            if not found:
                return None
            instant = min(found).astimezone(UTC)
            if self._every_hour or not instant.astimezone(self._zone).fold:
                return instant

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cron) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Cron({self.text!r})"


@cache
def _parse(text: str) -> Cron:
    zone: Any = UTC
    line = text
    if match := _ZONE.fullmatch(text):
        line = match[2].strip()
        try:
            zone = ZoneInfo(match[1])
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ScheduleFault(f"there is no time zone {match[1]!r}") from None
    line = SHORTHANDS.get(line, line)
    fields = line.lower().split()
    if len(fields) != 5:
        raise ScheduleFault(f"a cron line has five fields (minute hour day month weekday), not {len(fields)}")
    minute, hour, day, month, weekday = fields
    named = _weekdays(weekday)
    days = [(day, "*"), ("*", named)] if day != "*" and weekday != "*" else [(day, named)]
    triggers: list[Any] = []
    for of_month, of_week in days:
        try:
            triggers.append(
                CronTrigger(
                    minute=minute, hour=hour, day=of_month, month=month, day_of_week=of_week, second=0, timezone=zone
                )
            )
        except (ValueError, TypeError) as error:
            raise ScheduleFault(f"{text!r} is not a cron line: {error}") from None
    cron = Cron(text, tuple(triggers), zone, every_hour="*" in hour)
    if cron.after(_ONCE) is None:
        raise ScheduleFault(f"{text!r} never comes: no day fits it")
    return cron


def _weekdays(field: str) -> str:
    """The days of a week by name, as the library wants them."""
    if field == "*":
        return field
    chosen: set[int] = set()
    for part in field.split(","):
        match = _DAY.fullmatch(part)
        if match is None:
            raise ScheduleFault(f"{field!r} is not a day of the week: write 0-7 (0 and 7 are Sunday) or sun-sat")
        low, high, step = match[1], match[2], int(match[3] or 1)
        if low == "*":
            first, last = 0, 6
        else:
            first = _weekday(low)
            last = _weekday(high) if high else (6 if match[3] else first)
        if step < 1:
            raise ScheduleFault(f"the step of {part!r} must be at least 1")
        if last < first:
            last += 7
        chosen.update(number % 7 for number in range(first, last + 1, step))
    return ",".join(DAYS[number] for number in sorted(chosen))


def _weekday(word: str) -> int:
    if word.isdigit() and int(word) <= 7:
        return int(word)
    if word[:3] in DAYS and len(word) <= 9:
        return DAYS.index(word[:3])
    raise ScheduleFault(f"{word!r} is not a day of the week: write 0-7 (0 and 7 are Sunday) or sun-sat")
