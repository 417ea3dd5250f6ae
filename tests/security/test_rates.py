"""Rates: no more than they say in any minute, and never a wait where nobody asked too much."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit.security import rates
from circuit.security.rates import Rate, Rates


@given(
    st.integers(1, 600),
    st.integers(1, 50),
    st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=200),
)
def test_a_bucket_gives_no_more_than_its_rate(per_minute: int, burst: int, gaps: list[float]) -> None:
    now = 0.0
    bucket = Rates(Rate(per_minute, burst), lambda: now)
    given_at: list[float] = []
    for gap in gaps:
        now += gap
        wait = bucket.take("a")
        if not wait:
            given_at.append(now)
        else:
            # After the wait it is given, and not a moment before.
            assert 0 < wait <= 60 / per_minute * 1.001
        assert bucket.take("b") >= 0  # another one's bucket is another
    for first, begin in enumerate(given_at):
        within = [at for at in given_at[first:] if at - begin < 60]
        assert len(within) <= per_minute + burst
    assert len([at for at in given_at if at == given_at[0]]) <= burst


def test_rates_are_spelt_in_one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Rate.parse("60") == Rate(60, 60)
    assert Rate.parse(" 60/10 ") == Rate(60, 10)
    for wrong in ("", "0", "-1", "60/0", "60/", "/1", "1.5", "9" * 9, "60/10/1"):
        with pytest.raises(ValueError, match="rate"):
            Rate.parse(wrong)
    monkeypatch.setattr(rates, "MOST_REMEMBERED", 3)
    bucket = Rates(Rate(60, 1), lambda: 0.0)
    for number in range(10):
        assert bucket.take(str(number)) == 0
    assert len(bucket) == 3
