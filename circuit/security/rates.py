"""How often somebody may ask for something: a rate, and how much of it at once (a bucket that fills steadily)."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MOST_REMEMBERED = 10_000
"""Buckets that are kept; those that nobody drew from for longest are forgotten first, and they are the fullest."""
_SPELLING = re.compile(r"([1-9][0-9]{0,6})(?:/([1-9][0-9]{0,6}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rate:
    """`per_minute` steadily, and up to `burst` at once."""

    per_minute: int
    burst: int

    @classmethod
    def parse(cls, text: str) -> Rate:
        """The rate that `60` or `60/10` spells: 60 in a minute, and 10 at once (all 60, where nothing is said). Raises
        `ValueError`."""
        match = _SPELLING.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is no rate: write 60, or 60/10 for 60 in a minute and 10 at once")
        per_minute = int(match[1])
        return cls(per_minute, int(match[2] or per_minute))


class Rates:
    """One rate, for each of many."""

    def __init__(self, rate: Rate, monotonic: Callable[[], float]) -> None:
        self._every = 60.0 / rate.per_minute
        self._ahead = self._every * rate.burst
        self._monotonic = monotonic
        # When each one's bucket will be full again.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, who: str) -> float:
        """Let `who` ask once. Returns 0, or after how many seconds he may ask, which then counts as not asked."""
        now = self._monotonic()
        full_at = max(self._full_at.get(who, now), now) + self._every
        wait = full_at - now - self._ahead
        if wait > 1e-9:
            return wait
        self._full_at[who] = full_at
        self._full_at.move_to_end(who)
        if len(self._full_at) > MOST_REMEMBERED:
            self._full_at.popitem(last=False)
        return 0.0
