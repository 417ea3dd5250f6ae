"""Which cases leave the database, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from circuit.storage.archive import Standing
from circuit.storage.partitions import Week

MOST_STAYING = 200
MOST_STAYING_EVENTS = 20_000
"""A week goes although some of its cases stay, as long as they are no more than this: their rows are carried over while
the tables are locked, and that must be short."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A case goes when it has ended more than `older_than` ago, and with it its whole week. `keep_failed`: failed cases
    stay. With `streams_older_than` the frames of a week go earlier than its cases, once all of these have ended. With
    `compact_older_than` streams are compacted once their executions have ended so long ago."""

    older_than: timedelta | None = None
    keep_failed: bool = False
    streams_older_than: timedelta | None = None
    compact_older_than: timedelta | None = None

    @property
    def wanted(self) -> bool:
        """Whether anything leaves the database at all."""
        return self.older_than is not None or self.streams_older_than is not None


@dataclass(frozen=True, slots=True)
class WeekPlan:
    """What becomes of a week: `obstacles` say why it waits; empty, it goes, and `stays` cases of it stay."""

    week: Week
    standing: Standing
    obstacles: tuple[str, ...]

    @property
    def goes(self) -> bool:
        return not self.obstacles and self.standing.cases > len(self.standing.staying)

    def as_dict(self) -> dict[str, Any]:
        standing = self.standing
        return {
            "week": self.week.suffix,
            "goes": self.goes,
            "cases": standing.cases,
            "stay": [{"case_id": str(key.case), "status": status} for key, status in standing.staying[:20]],
            "obstacles": list(self.obstacles),
        }


def judge(week: Week, standing: Standing) -> WeekPlan:
    """Whether a week can go, and if not, why."""
    obstacles: list[str] = []
    staying = standing.staying
    if len(staying) > MOST_STAYING:
        told = f"{standing.open} open, {standing.fresh} ended lately, {standing.failed} failed"
        obstacles.append(f"more than {MOST_STAYING} of its cases stay ({told}), among them {_named(staying)}")
    elif standing.staying_events > MOST_STAYING_EVENTS:
        obstacles.append(
            f"the {len(staying)} cases that stay have {standing.staying_events} events, more than"
            f" {MOST_STAYING_EVENTS} to carry over: {_named(staying)}"
        )
    if standing.untaken:
        cases = ", ".join(str(key.case) for key in standing.untaken[:3])
        obstacles.append(f"consumers of the outbox have not taken events of {cases}; `circuit outbox consumers`")
    return WeekPlan(week, standing, tuple(obstacles))


def _named(staying: Sequence[tuple[Any, str]]) -> str:
    return ", ".join(f"{key.case} ({status})" for key, status in staying[:3])
