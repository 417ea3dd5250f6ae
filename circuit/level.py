"""How much of a limit each of several processes may have: equal parts, as far as each has a use for them.

Nobody gets more than he wants, and what one does without is for the others. What waits may be larger than an equal
part, and would never be served so: in the order in which they have waited each gets at least what it waits for, as far
as the limit goes, and who does not gets nothing this time, for it would be of no use. Pure: all that look at the same
come to the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Want:
    """What a process would have of a limit in all; how much of it what waits there first needs (0: nothing waits), and
    since when that waits."""

    all: int
    first: int = 0
    since: float = 0.0


def level(limit: int, wants: Mapping[str, Want]) -> dict[str, int]:
    """What each may have, by who wants it: never more than `limit` together."""
    order = sorted(wants, key=lambda name: (wants[name].since, name))
    least: dict[str, int] = {}
    out: list[str] = []
    left = limit
    for name in order:
        first = min(wants[name].first, limit)
        if first <= left:
            least[name] = first
            left -= first
        else:
            out.append(name)
    return _parts(limit, wants, least) | dict.fromkeys(out, 0)


def _parts(limit: int, wants: Mapping[str, Want], least: Mapping[str, int]) -> dict[str, int]:
    """Equal parts for those of whom `least` says what they get at least, and what is over in their order."""

    def at(height: int) -> dict[str, int]:
        return {name: max(first, min(wants[name].all, height)) for name, first in least.items()}

    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if sum(at(middle).values()) <= limit:
            low = middle
        else:
            high = middle - 1
    parts = at(low)
    left = limit - sum(parts.values())
    for name in least:
        if left and parts[name] == low < wants[name].all:
            parts[name] += 1
            left -= 1
    return parts
