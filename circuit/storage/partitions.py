"""The weekly partitions of the big tables. A case's rows lie in the partition of the week in which it was born, so a
week goes as a whole when all of its cases are archived, and the store stays as fast as it was when it was empty.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from circuit.ids import first_uuid7_at
from circuit.storage.driver import Connection
from circuit.storage.tables import PARTITIONED, SCHEMA

WEEKS_AHEAD = 4

_log = logging.getLogger(__name__)


class Week(NamedTuple):
    """One partition's share: the case ids from `lower` up to, and without, `upper`."""

    suffix: str
    lower: UUID
    upper: UUID


def week_of(instant: datetime) -> Week:
    """The ISO week, in UTC, in which `instant` lies."""
    day = instant.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    monday = day - timedelta(days=day.weekday())
    year, number, _ = monday.isocalendar()
    return Week(f"{year}w{number:02}", first_uuid7_at(monday), first_uuid7_at(monday + timedelta(days=7)))


async def ensure(connection: Connection, now: datetime) -> list[str]:
    """Make the partitions of this week and the next four where they are missing; the names of those made.

    Needs no transaction around it: each partition is one of its own, so that it never holds the locks of two tables.
    A range that cannot be made now (rows of it lie in the default partition, or the table is locked) is left to the
    default partition and logged: nothing is lost by it but speed.
    """
    weeks = [week_of(now + timedelta(weeks=ahead)) for ahead in range(WEEKS_AHEAD + 1)]
    wanted = {f"{table}_{week.suffix}": (table, week) for week in weeks for table in PARTITIONED}
    rows = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = $1::regnamespace AND relname = ANY($2::text[])",
        SCHEMA,
        list(wanted),
    )
    made: list[str] = []
    for name in wanted.keys() - {row[0] for row in rows}:
        table, week = wanted[name]
        try:
            outcome = await connection.fetchval(
                f"SELECT {SCHEMA}.add_partition($1, $2, $3, $4)", table, week.suffix, week.lower, week.upper
            )
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
            _log.warning("The partition %s was not made, and will be tried again: %s", name, error)
            continue
        if outcome == "made":
            made.append(name)
        elif outcome == "default":
            _log.warning("Rows for the partition %s lie in %s_default already, and stay there.", name, table)
    return sorted(made)
