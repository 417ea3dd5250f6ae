"""When timers and the rhythm of a place's agent are due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuit.expressions.schedule import Cron
from circuit.net.marking import Run, Token
from circuit.net.scope import ScopePath
from circuit.net.timing import Missed, Rhythm, Timer, instant_of

CAME = datetime(2026, 1, 2, 8, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return CAME + timedelta(seconds=seconds)


def token(number: int = 1, runs: dict[str, Run] | None = None, came: datetime = CAME, **data: Any) -> Token:
    return Token(number, 1, "p", data, {}, came, runs=runs)


def test_a_timer_counts_from_the_last_of_its_tokens() -> None:
    timer = Timer(after=60.0)
    assert timer.due((token(),), (), {}, CAME) == after(60)
    assert timer.due((token(), token(2, came=after(30))), (), {}, CAME) == after(90)


def test_a_timer_at_an_instant_or_at_what_a_path_leads_to() -> None:
    assert Timer(at=after(5)).due((token(),), (), {}, CAME) == after(5)
    timer = Timer(at=ScopePath.parse("data.deadline"))
    assert timer.due((token(deadline="2026-01-02T09:00:00+01:00"),), (), {}, CAME) == CAME
    assert timer.due((token(deadline="2026-01-02T08:00:00"),), (), {}, CAME) == CAME
    for nonsense in ({}, {"deadline": "soon"}, {"deadline": 7}):
        assert timer.due((token(**nonsense),), (), {}, CAME) is None


def test_a_timer_at_the_next_time_of_a_cron_line() -> None:
    timer = Timer(cron=Cron.parse("0 9 * * *"))
    assert timer.due((token(),), (), {}, after(10**7)) == after(3600), "however late it is looked at"


def test_without_a_schedule_there_is_one_run_a_stay() -> None:
    rhythm = Rhythm("a", delay=5.0, missed=Missed.SKIP)
    assert rhythm.due((token(),), (), {}, CAME) == after(5)
    assert rhythm.due((token(),), (), {}, after(10**6)) == after(5)
    assert rhythm.due((token(runs={"a": Run(1, after(5))}),), (), {}, after(10**6)) is None


def test_a_token_on_which_an_agent_runs_is_left_to_it() -> None:
    rhythm = Rhythm("a", interval=10.0)
    assert rhythm.due((token(runs={"b": Run(1, CAME, 7)}),), (), {}, after(100)) is None
    assert rhythm.due((token(runs={"b": Run(1, CAME)}),), (), {}, CAME) == CAME


def test_runs_are_counted_by_the_stay() -> None:
    rhythm = Rhythm("a", interval=10.0, most=3)
    assert rhythm.due((token(runs={"a": Run(2, after(10))}),), (), {}, after(12)) == after(20)
    assert rhythm.due((token(runs={"a": Run(3, after(20))}),), (), {}, after(100)) is None


@pytest.mark.parametrize(
    ("last", "following"), [(-3, 0), (0, 10), (4, 10), (9.999, 10), (10, 20), (27, 30)], ids=lambda value: str(value)
)
def test_a_run_that_somebody_asked_for_leaves_the_times_as_they_are(last: float, following: float) -> None:
    rhythm = Rhythm("a", interval=10.0, missed=Missed.ALL)
    assert rhythm.due((token(runs={"a": Run(1, after(last))}),), (), {}, after(100)) == after(following)


@pytest.mark.parametrize(
    ("missed", "now", "due"),
    [
        (Missed.ALL, 35, 10),
        (Missed.ONCE, 35, 30),
        (Missed.SKIP, 35, 30),
        (Missed.ALL, 100_065, 10),
        (Missed.ONCE, 100_065, 100_060),
        (Missed.SKIP, 100_065, 100_060),
    ],
)
def test_missed_times_of_an_interval(missed: Missed, now: float, due: float) -> None:
    rhythm = Rhythm("a", interval=10.0, missed=missed)
    assert rhythm.due((token(runs={"a": Run(1, CAME)}),), (), {}, after(now)) == after(due)


def test_a_time_that_is_long_past_is_skipped_where_that_is_asked_for() -> None:
    runs = {"a": Run(1, CAME)}
    skip, once = (Rhythm("a", interval=3600.0, missed=missed) for missed in (Missed.SKIP, Missed.ONCE))
    assert skip.due((token(runs=runs),), (), {}, after(3650)) == after(3600), "a little late is not missed"
    assert skip.due((token(runs=runs),), (), {}, after(3700)) == after(7200)
    assert once.due((token(runs=runs),), (), {}, after(3700)) == after(3600)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(["*/17 * * * *", "0 */5 * * *", "0 8 * * 1-5"]), st.integers(1, 7 * 86_400))
def test_missed_times_of_a_cron_line_are_found_backwards(line: str, late: int) -> None:
    cron = Cron.parse(line)
    now = after(late)
    times = [CAME]
    while (following := cron.after(times[-1])) is not None and following <= now:
        times.append(following)
    due = Rhythm("a", cron=cron).due((token(),), (), {}, now)
    if len(times) == 1:
        assert due == cron.after(CAME)
    else:
        assert due == times[-1]
        assert Rhythm("a", cron=cron, missed=Missed.ALL).due((token(),), (), {}, now) == times[1]


def test_a_stand_still_of_years_is_caught_up_with_at_once() -> None:
    cron = Cron.parse("* * * * *")
    due = Rhythm("a", cron=cron).due((token(),), (), {}, CAME + timedelta(days=3650, seconds=30))
    assert due == CAME + timedelta(days=3650)


def test_instants() -> None:
    assert instant_of("2026-01-02T08:00:00Z") == CAME
    assert instant_of("2026-01-02") == datetime(2026, 1, 2, tzinfo=UTC)
    assert instant_of("data.deadline") is None
    assert instant_of(None) is None
