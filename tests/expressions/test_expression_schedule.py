"""Cron lines: when they come, what is none, and what clocks that are put forward and back do to them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuit.expressions.schedule import Cron, ScheduleFault

BEGIN = datetime(2026, 1, 2, 8, tzinfo=UTC)  # a Friday


def times(line: str, after: datetime, count: int) -> list[str]:
    found: list[str] = []
    for _ in range(count):
        at = Cron.parse(line).after(after)
        assert at is not None and at > after
        found.append(at.strftime("%m-%d %H:%M"))
        after = at
    return found


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("0 8 * * 1-5", ["01-05 08:00", "01-06 08:00", "01-07 08:00"]),
        ("*/20 * * * *", ["01-02 08:20", "01-02 08:40", "01-02 09:00"]),
        ("0 0 * * 7", ["01-04 00:00", "01-11 00:00", "01-18 00:00"]),
        ("0 0 * * 0", ["01-04 00:00", "01-11 00:00", "01-18 00:00"]),
        ("0 0 * * fri-mon", ["01-03 00:00", "01-04 00:00", "01-05 00:00"]),
        ("0 0 1 * *", ["02-01 00:00", "03-01 00:00", "04-01 00:00"]),
        ("0 0 13 * 5", ["01-09 00:00", "01-13 00:00", "01-16 00:00"]),
        ("@hourly", ["01-02 09:00", "01-02 10:00", "01-02 11:00"]),
    ],
)
def test_when_a_line_comes(line: str, expected: list[str]) -> None:
    assert times(line, BEGIN, 3) == expected


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 0 30 2 *", "never comes"),
        ("0 0 31 4,6 *", "never comes"),
        ("0 0 30 feb *", "never comes"),
        ("60 * * * *", "not a cron line"),
        ("* * *", "five fields"),
        ("", "five fields"),
        ("0 0 * * 9", "day of the week"),
        ("0 0 * * someday", "day of the week"),
        ("0 0 * * 1-5/0", "step"),
        ("CRON_TZ=Mars/Olympus 0 0 * * *", "no time zone"),
        ("CRON_TZ=../../etc/passwd 0 0 * * *", "no time zone"),
    ],
)
def test_what_is_no_line(line: str, said: str) -> None:
    with pytest.raises(ScheduleFault, match=said):
        Cron.parse(line)


def test_a_leap_day_is_waited_for() -> None:
    assert Cron.parse("0 0 29 2 *").after(BEGIN) == datetime(2028, 2, 29, tzinfo=UTC)


def test_clocks_that_are_put_forward_and_back() -> None:
    """In Berlin 2:30 did not happen on 29 March, and happened twice on 25 October."""
    spring = datetime(2026, 3, 28, 12, tzinfo=UTC)
    assert times("CRON_TZ=Europe/Berlin 30 2 * * *", spring, 3) == ["03-29 01:30", "03-30 00:30", "03-31 00:30"]
    autumn = datetime(2026, 10, 24, 12, tzinfo=UTC)
    assert times("CRON_TZ=Europe/Berlin 30 2 * * *", autumn, 3) == ["10-25 00:30", "10-26 01:30", "10-27 01:30"]
    every = times("CRON_TZ=Europe/Berlin 30 * * * *", datetime(2026, 10, 24, 23, tzinfo=UTC), 4)
    assert every == ["10-24 23:30", "10-25 00:30", "10-25 01:30", "10-25 02:30"], "an hour has passed each time"


@settings(deadline=None, max_examples=50)
@given(
    st.tuples(st.integers(0, 59), st.integers(0, 23), st.integers(1, 28), st.integers(1, 12)),
    st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)),
)
def test_a_time_of_a_line_fits_the_line_and_none_is_left_out(fields: tuple[int, int, int, int], at: datetime) -> None:
    minute, hour, day, month = fields
    found = Cron.parse(f"{minute} {hour} {day} {month} *").after(at)
    assert found is not None and found > at
    assert (found.minute, found.hour, found.day, found.month, found.second) == (minute, hour, day, month, 0)
    assert found - at <= timedelta(days=366)
