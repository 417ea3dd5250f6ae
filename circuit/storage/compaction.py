"""Streams of ended executions on their way to fewer frames. All of it runs under the engine's role.

Each week of cases has a row that says how far it has come: what ended before `done_before` is done. A pass over the
week takes what ended since then and before its `cutoff`, in the order of the executions' keys, and each transaction of
it moves its place. So whoever finds a pass half-way goes on with it, and no row of an execution has to say that it is
done.
"""

# ruff: noqa: S608 -- these texts are composed of the constants below and of nothing else.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg  # pyright: ignore[reportMissingTypeStubs]
import orjson

from circuit.errors import GuardLost
from circuit.events import StreamType
from circuit.ids import CaseKey
from circuit.storage import rows
from circuit.storage.driver import Connection, Record
from circuit.storage.partitions import Week

PAGE_EXECUTIONS = 10_000
"""Executions that are looked at in one statement; most of them have nothing to do with the pass."""
LONGEST_SECONDS = 3_600.0
"""How long it may take to write a week anew."""
_LOCK = 0x63726173
"""Of all that compact one database, one does at a time."""
_SETTLING = timedelta(hours=1)
"""An execution is committed after the instant at which it says that it ended, but not so long after it."""

# Statements that find rows by their keys, many at once, whatever is believed of the sizes of tables.
_SESSION = "SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off; SET lock_timeout = '2s'"
_BEGIN = """
INSERT INTO circuit.stream_compaction AS t (week, lower_bound, upper_bound, cutoff) VALUES ($1, $2, $3, $4)
ON CONFLICT (week) DO UPDATE SET cutoff = coalesce(t.cutoff, excluded.cutoff)
    WHERE NOT t.settled AND (t.cutoff IS NOT NULL OR t.done_before IS NULL OR t.done_before < excluded.cutoff)
RETURNING *
"""
_FIND = "SELECT * FROM circuit.stream_compaction WHERE week = $1"
_ADVANCE = """
UPDATE circuit.stream_compaction SET at_tenant = $2, at_case = $3, at_firing = $4, executions = executions + $5,
    frames = frames + $6, bytes = bytes + $7, updated_at = now()
WHERE week = $1
"""
_FINISH = """
UPDATE circuit.stream_compaction SET done_before = cutoff, cutoff = NULL, settled = $2, at_tenant = 0,
    at_case = '00000000-0000-0000-0000-000000000000', at_firing = 0, updated_at = now()
WHERE week = $1
"""
_SETTLED = """
SELECT NOT EXISTS (
    SELECT 1 FROM unnest($1::int4[]) AS i(tenant_id) JOIN circuit."case" c
        ON c.tenant_id = i.tenant_id AND c.case_id >= $2 AND c.case_id < $3
    WHERE c.status NOT IN ('completed', 'failed', 'cancelled') OR c.owner IS NOT NULL OR c.finished_at >= $4
)
"""
_EXECUTIONS = """
WITH page AS (
    SELECT e.tenant_id, e.case_id, e.firing, coalesce(
        e.status <> 'running' AND e.finished_at < $6 AND ($7::timestamptz IS NULL OR e.finished_at >= $7), false
    ) AS due, row_number() OVER (ORDER BY e.case_id, e.firing) AS number
    FROM circuit.execution e
    WHERE e.tenant_id = $1 AND e.case_id >= $2 AND e.case_id < $3 AND (e.case_id, e.firing) > ($4, $5)
    ORDER BY e.case_id, e.firing LIMIT $8
)
SELECT * FROM page WHERE due OR number = (SELECT max(number) FROM page) ORDER BY number
"""
_MERGEABLE = f"('{StreamType.CONTENT_CHUNK}', '{StreamType.THINKING}')"
_FRAMES = f"""
SELECT i.number, t.* FROM unnest($1::int4[], $2::uuid[], $3::int4[], $4::int4[], $5::int4[])
    WITH ORDINALITY AS i(tenant_id, case_id, firing, start, seq, number)
CROSS JOIN LATERAL (
    SELECT s.start, s.seq, coalesce(s.first_seq, s.seq) AS first, s.lengths::text AS lengths,
        CASE WHEN s.type IN {_MERGEABLE} THEN s.frame END AS frame
    FROM circuit.stream_event s
    WHERE s.tenant_id = i.tenant_id AND s.case_id = i.case_id AND s.firing = i.firing
        AND s.case_id >= $7 AND s.case_id < $8 AND (s.start, s.seq) > (i.start, i.seq)
    ORDER BY s.start, s.seq LIMIT $6
) t
ORDER BY i.number, t.start, t.seq
"""
# An erasure waits, so that it sees what is stored then. A case that goes on cannot be erased, and its worker must not
# wait.
_HOLD = """
SELECT c.case_id FROM unnest($1::int4[], $2::uuid[]) AS i(tenant_id, case_id)
JOIN circuit."case" c ON c.tenant_id = i.tenant_id AND c.case_id = i.case_id
WHERE c.status IN ('completed', 'failed', 'cancelled') AND c.owner IS NULL
ORDER BY c.tenant_id, c.case_id FOR SHARE OF c
"""
_GIVEN = (
    "unnest($1::int4[], $2::uuid[], $3::int4[], $4::int4[], $5::int4[], $6::int4[], $7::text[], $8::text[])"
    " AS i(tenant_id, case_id, firing, start, first, seq, frame, lengths)"
)
_OF_ROW = (
    "t.tenant_id = i.tenant_id AND t.case_id = i.case_id AND t.firing = i.firing AND t.start = i.start"
    " AND t.case_id >= $9 AND t.case_id < $10"
)
_REPLACE = f"""
WITH gone AS (
    DELETE FROM circuit.stream_event t USING {_GIVEN} WHERE {_OF_ROW} AND t.seq >= i.first AND t.seq < i.seq RETURNING 1
),
kept AS (
    UPDATE circuit.stream_event t SET frame = i.frame, first_seq = i.first, lengths = i.lengths::json FROM {_GIVEN}
    WHERE {_OF_ROW} AND t.seq = i.seq RETURNING 1
)
SELECT (SELECT count(*) FROM gone) AS gone, (SELECT count(*) FROM kept) AS kept
"""
_STORED = "SELECT count(*) FROM circuit.stream_event WHERE case_id >= $1 AND case_id < $2"
_SIZE = "SELECT pg_total_relation_size(to_regclass('circuit.stream_event_' || $1))"
_LISTED = "SELECT * FROM circuit.stream_compaction ORDER BY lower_bound"
_TOTALS = """
SELECT coalesce(sum(frames), 0)::int8 AS frames, coalesce(sum(bytes), 0)::int8 AS bytes FROM circuit.stream_compaction
"""


class ExecutionKey(NamedTuple):
    """An execution, and with its tenant the place of a pass."""

    tenant: int
    case: UUID
    firing: int


class StreamPlace(NamedTuple):
    """Behind which of its frames a stream is read."""

    key: ExecutionKey
    start: int
    seq: int


class FrameRow(NamedTuple):
    """A stored frame; `frame` only of text. `first` is the number of the first of those that it holds."""

    start: int
    first: int
    seq: int
    frame: str | None
    lengths: Sequence[int] | None


class Replacement(NamedTuple):
    """The frame that takes the place of those from `row.first` on, up to its own."""

    key: ExecutionKey
    row: FrameRow


@dataclass(frozen=True, slots=True)
class CompactionRow:
    """How far a week has come. With a `cutoff` a pass is under way, at `place`; `frames` and `bytes` went in all."""

    week: Week
    done_before: datetime | None
    cutoff: datetime | None
    place: ExecutionKey
    settled: bool
    executions: int
    frames: int
    bytes: int
    updated_at: datetime | None

    @property
    def since(self) -> datetime | None:
        """What ended before was seen by an earlier pass; None if there was none."""
        return None if self.done_before is None else self.done_before - _SETTLING

    @property
    def state(self) -> str:
        """`working` while a pass is half-way, `settled` where nothing will be left to do, else `open`."""
        return "working" if self.cutoff is not None else "settled" if self.settled else "open"

    def as_dict(self) -> dict[str, Any]:
        return {
            "week": self.week.suffix,
            "done_before": self.done_before,
            "state": self.state,
            "executions": self.executions,
            "frames_gone": self.frames,
            "bytes_gone": self.bytes,
        }


BEGINNING = ExecutionKey(0, UUID(int=0), 0)


async def prepare(conn: Connection) -> None:
    """Make a connection ready for the statements of a pass."""
    await conn.execute(_SESSION)


async def lock(conn: Connection) -> bool:
    """Whether this connection is the one that compacts now; it is until it closes."""
    return await conn.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK)


async def begin(conn: Connection, week: Week, cutoff: datetime) -> CompactionRow | None:
    """The pass over a week that is under way, or else a new one; None if nothing can have ended since the last."""
    row = await conn.fetchrow(_BEGIN, week.suffix, week.lower, week.upper, cutoff)
    return None if row is None else _row(row)


async def find(conn: Connection, week: Week) -> CompactionRow:
    """How far a week has come."""
    row = await conn.fetchrow(_FIND, week.suffix)
    return CompactionRow(week, None, None, BEGINNING, False, 0, 0, 0, None) if row is None else _row(row)


async def advance(
    conn: Connection, week: Week, place: ExecutionKey, executions: int = 0, frames: int = 0, size: int = 0
) -> None:
    """Move the place of a pass, and count what went."""
    await conn.execute(_ADVANCE, week.suffix, *place, executions, frames, size)


async def finish(conn: Connection, week: Week, *, settled: bool) -> None:
    """The pass is over. `settled`: no execution of the week is left that could end."""
    await conn.execute(_FINISH, week.suffix, settled)


async def settled(conn: Connection, tenants: Sequence[int], week: Week, cutoff: datetime) -> bool:
    """Whether all cases of a week ended before the cutoff."""
    return await conn.fetchval(_SETTLED, list(tenants), week.lower, week.upper, cutoff)


async def executions(
    conn: Connection, tenant: int, week: Week, place: ExecutionKey, cutoff: datetime, since: datetime | None
) -> tuple[list[ExecutionKey], ExecutionKey | None]:
    """Of the next executions of a tenant behind a place those that are due: they ended before the cutoff, and not
    before `since`. And the last that was looked at, unless it is the last of all."""
    after = (place.case, place.firing) if place.tenant == tenant else (BEGINNING.case, BEGINNING.firing)
    found = await conn.fetch(_EXECUTIONS, tenant, week.lower, week.upper, *after, cutoff, since, PAGE_EXECUTIONS)
    keys = [ExecutionKey(row["tenant_id"], rows.plain(row["case_id"]), row["firing"]) for row in found]
    full = bool(found) and found[-1]["number"] == PAGE_EXECUTIONS
    return [key for key, row in zip(keys, found, strict=True) if row["due"]], keys[-1] if full else None


async def frames(conn: Connection, week: Week, places: Sequence[StreamPlace], limit: int) -> list[list[FrameRow]]:
    """For each of these places, up to `limit` frames behind it, in order."""
    found = await conn.fetch(
        _FRAMES,
        [place.key.tenant for place in places],
        [place.key.case for place in places],
        [place.key.firing for place in places],
        [place.start for place in places],
        [place.seq for place in places],
        limit,
        week.lower,
        week.upper,
    )
    pages: list[list[FrameRow]] = [[] for _ in places]
    for row in found:
        lengths = rows.document(row["lengths"])
        pages[row["number"] - 1].append(FrameRow(row["start"], row["first"], row["seq"], row["frame"], lengths))
    return pages


async def replace(conn: Connection, week: Week, replacements: Sequence[Replacement], gone: int) -> None:
    """Put frames in the place of others, of which `gone` go. Within the transaction that read them, which is to be of
    repeatable reads: what others change meanwhile is an error of it. Raises `GuardLost` where rows are gone."""
    cases = list(dict.fromkeys(CaseKey(one.key.tenant, one.key.case) for one in replacements))
    await conn.execute(_HOLD, [case.tenant for case in cases], [case.case for case in cases])
    done = await conn.fetchrow(
        _REPLACE,
        [one.key.tenant for one in replacements],
        [one.key.case for one in replacements],
        [one.key.firing for one in replacements],
        [one.row.start for one in replacements],
        [one.row.first for one in replacements],
        [one.row.seq for one in replacements],
        [one.row.frame for one in replacements],
        [orjson.dumps(one.row.lengths).decode() for one in replacements],
        week.lower,
        week.upper,
    )
    if done is None or (done["gone"], done["kept"]) != (gone, len(replacements)):
        raise GuardLost(f"streams of week {week.suffix} are not as they were read")


def moved(error: BaseException) -> bool:
    """Whether a transaction failed because others changed or hold what it is about: it may be tried again."""
    return isinstance(
        error, GuardLost | asyncpg.SerializationError | asyncpg.DeadlockDetectedError | asyncpg.LockNotAvailableError
    )


async def stored(conn: Connection, week: Week) -> int:
    """How many frames a week has."""
    return await conn.fetchval(_STORED, week.lower, week.upper, timeout=LONGEST_SECONDS)


async def size(conn: Connection, week: Week) -> int | None:
    """The bytes that the streams of a week take on the disk, or None where it has no partition of its own."""
    return await conn.fetchval(_SIZE, week.suffix)


async def forget_copies(conn: Connection) -> None:
    """Drop the copies that somebody left who was cut off."""
    await conn.execute("SELECT circuit.forget_stream_copies()")


async def copy(conn: Connection, week: Week) -> bool:
    """Copy the streams of a week, to a place where nobody looks. False where it has no partition of its own."""
    return await conn.fetchval("SELECT circuit.copy_streams($1)", week.suffix, timeout=LONGEST_SECONDS)


async def exchange(conn: Connection, week: Week) -> bool:
    """Put the copy in the place of what it was made from. False where others have it locked: try again."""
    try:
        await conn.execute("SELECT circuit.exchange_streams($1)", week.suffix)
    except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
        return False
    return True


async def listed(conn: Connection) -> list[CompactionRow]:
    """How far all weeks have come, the oldest first."""
    return [_row(row) for row in await conn.fetch(_LISTED)]


async def totals(conn: Connection) -> tuple[int, int]:
    """How many frames and bytes went, in all."""
    row = await conn.fetchrow(_TOTALS)
    assert row is not None
    return row["frames"], row["bytes"]


def _row(row: Record) -> CompactionRow:
    return CompactionRow(
        Week(row["week"], rows.plain(row["lower_bound"]), rows.plain(row["upper_bound"])),
        row["done_before"],
        row["cutoff"],
        ExecutionKey(row["at_tenant"], rows.plain(row["at_case"]), row["at_firing"]),
        row["settled"],
        row["executions"],
        row["frames"],
        row["bytes"],
        row["updated_at"],
    )
