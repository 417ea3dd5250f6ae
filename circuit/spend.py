"""What calls of models come to, in the three units that budgets count: calls, tokens, and money in millionths of a US
dollar."""

from __future__ import annotations

import math
from dataclasses import dataclass

MICRO = 1_000_000
MOST_OF_A_CALL = 2**45
"""Tokens, or millionths of a dollar."""


@dataclass(frozen=True, slots=True)
class Spend:
    """An amount that was spent, or may be at most. Tokens or money that are not known are None."""

    calls: int = 0
    tokens: int | None = 0
    microdollars: int | None = 0

    def __add__(self, other: Spend) -> Spend:
        """Both together; what is not known of one of them is not known of the sum."""
        return Spend(
            self.calls + other.calls,
            None if self.tokens is None or other.tokens is None else self.tokens + other.tokens,
            None if self.microdollars is None or other.microdollars is None else self.microdollars + other.microdollars,
        )


NOTHING = Spend()


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be spent; None is no limit."""

    calls: int | None = None
    tokens: int | None = None
    microdollars: int | None = None

    @property
    def any(self) -> bool:
        """Whether anything is limited."""
        return any(limit is not None for limit in (self.calls, self.tokens, self.microdollars))


UNLIMITED = Limits()


def bounded(amount: int) -> int:
    """What one call may come to, whatever was asked for or told of it: more is meant by nobody, and many such amounts
    still fit into what a database counts with."""
    return max(0, min(amount, MOST_OF_A_CALL))


def microdollars(dollars: float) -> int:
    """US dollars in whole millionths; what lies between two counts as the greater one."""
    # A float of many digits is not quite what was meant: 0.1 * 3 must not become one millionth more than 0.3.
    return math.ceil(round(dollars * MICRO, 3))


def dollars(amount: int) -> str:
    """Millionths of a dollar as people read them: at least two places, and no more than are needed."""
    text = f"{amount / MICRO:.6f}".rstrip("0")
    whole, _, part = text.partition(".")
    return f"{whole}.{part.ljust(2, '0')}"
