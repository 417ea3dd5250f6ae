"""How much an analysis may cost, and why it ended before it was done. Time comes from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

MEGABYTE = 1 << 20


def _silent(what: str, count: int) -> None:
    """Shows no progress."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The user's limits. `now` gives seconds that only ever grow; `progress` is told what is done and how much of it.

    Memory is estimated from what is stored, and is that of one exploration: two never live at once.
    """

    now: Callable[[], float]
    states: int = 1_000_000
    memory: int = 1024 * MEGABYTE
    seconds: float = 60.0
    progress: Callable[[str, int], None] = field(default=_silent)

    def meter(self, *, states: int | None = None, seconds: float | None = None) -> Meter:
        """What one piece of work may use: no more than `states` and `seconds`, and never more than the limits."""
        return Meter(
            self,
            min(self.states, states if states is not None else self.states),
            self.now() + min(self.seconds, seconds if seconds is not None else self.seconds),
        )


@dataclass(slots=True)
class Meter:
    """Counts what one piece of work uses. `stopped` is the reason in words once a limit is reached."""

    limits: Limits
    states: int
    deadline: float
    stopped: str = ""

    def left(self) -> float:
        """How many seconds are left."""
        return self.deadline - self.limits.now()

    def spent(self, what: str, count: int, size: int) -> bool:
        """Whether a limit is reached, with `count` states found that need `size` bytes."""
        self.limits.progress(what, count)
        if count >= self.states:
            self.stopped = f"the limit of {self.states:,} states is reached"
        elif size >= self.limits.memory:
            self.stopped = f"the memory limit of {self.limits.memory // MEGABYTE:,} MiB is reached at {count:,} states"
        elif self.limits.now() >= self.deadline:
            self.stopped = f"the time limit is reached at {count:,} states"
        return bool(self.stopped)
