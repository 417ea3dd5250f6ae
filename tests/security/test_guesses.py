"""Guesses at credentials: some are for nothing, then each waits longer; who is in is not locked out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from circuit.security import guesses
from circuit.security.guesses import FORGET_SECONDS, FREE_GUESSES, LONGEST_WAIT_SECONDS, Guesses, block


@given(st.lists(st.floats(0, 400, allow_nan=False), min_size=1, max_size=300))
def test_no_patience_brings_more_guesses_than_the_waits_allow(gaps: list[float]) -> None:
    now = 0.0
    kept = Guesses(lambda: now)
    kept.right("known")
    tried: list[float] = []
    for number, gap in enumerate(gaps):
        now += gap
        if not kept.wait("203.0.113.5", f"guess {number}"):
            tried.append(now)
            kept.wrong("203.0.113.5")
        assert kept.wait("203.0.113.5", "known") == 0, "who was let in before stays in"
        assert kept.wait("203.0.113.6", "guess") == 0, "another address is another one's"
        assert kept.wait("203.0.113.5", "guess") <= LONGEST_WAIT_SECONDS
    # In any quarter of an hour: the free ones, one behind each wait while the waits grow, one for each longest wait.
    for begin in tried:
        within = [at for at in tried if begin <= at < begin + FORGET_SECONDS]
        assert len(within) <= FREE_GUESSES + 10 + FORGET_SECONDS / LONGEST_WAIT_SECONDS


def test_an_address_is_forgotten_when_it_was_quiet_and_few_are_remembered() -> None:
    now = 0.0
    kept = Guesses(lambda: now)
    for _ in range(FREE_GUESSES + 3):
        kept.wrong("2001:db8::1")
    assert kept.wait("2001:db8::ffff:1", "x") == 8, "whoever has one address of a network has all"
    assert kept.wait("2001:db8:0:1::1", "x") == 0
    now = 8 + FORGET_SECONDS
    kept.wrong("2001:db8::1")
    assert kept.wait("2001:db8::1", "x") == 0
    for number in range(guesses.MOST_REMEMBERED + 10):
        kept.wrong(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(kept) == guesses.MOST_REMEMBERED
    assert [block(text) for text in ("::ffff:192.0.2.1", "fe80::1%eth0", "unix")] == ["192.0.2.1", "fe80::", "unix"]
