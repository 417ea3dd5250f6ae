"""`python -m benchmarks.compaction` (or `make bench-compaction`): what it takes to compact streams, and what is left.

A stream of 100,000 pieces of an answer, and then 2,000 streams of 50 frames, four of them calls of tools, all in a week
that is over. Measured are the frames a second that go, and how large the week's partition is before and after.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
from rich.console import Console

from benchmarks import results
from benchmarks.postgres import postgres
from benchmarks.results import Row, figure
from circuit.engine.archive.compaction import Compaction
from circuit.storage import partitions, schema
from circuit.storage.database import Database

WEEKS_AGO = timedelta(weeks=2)
LONG, SHORT = 100_000, 2_000

_CASES = """
INSERT INTO circuit.case (tenant_id, case_id, workflow_id, workflow_hash, status, seq, next_token, next_firing,
    next_incident, started_at, finished_at)
SELECT 1, case_id, 'old', '', 'completed', 1, 1, 2, 1, $2, $2 FROM unnest($1::uuid[]) case_id
"""
_EXECUTIONS = """
INSERT INTO circuit.execution (tenant_id, case_id, firing, status, descriptor, started_at, finished_at)
SELECT 1, case_id, 1, 'completed', '{}', $2, $2 FROM unnest($1::uuid[]) case_id
"""
_FRAMES = """
INSERT INTO circuit.stream_event (tenant_id, case_id, firing, start, seq, type, at, frame)
SELECT 1, case_id, 1, 1, seq, CASE WHEN $5 AND seq % 25 IN (9, 10) THEN 'tool_call' ELSE type END, $2::timestamptz,
    format('{"executionId":"%s.1","eventType":"%s","attempt":1,"sequence":%s,"timestamp":"2026-01-01T00:00:00.000Z",'
        '"cursor":"1-%s","content":"%s"}', case_id, type, seq, seq, substr(md5(seq::text), 1, 12))
FROM unnest($1::uuid[]) case_id, generate_series(1, $3) seq, (SELECT $4::text AS type) t ORDER BY case_id, seq
"""
_SIZES = """
SELECT pg_table_size(c.oid) AS heap, pg_indexes_size(c.oid) AS index,
    (SELECT count(*) FROM circuit.stream_event) AS rows
FROM pg_class c WHERE c.oid = to_regclass($1)
"""

console = Console(width=130)


def _ids(week: partitions.Week, count: int) -> list[Any]:
    from circuit.ids import uuid7

    born = week.lower.int >> 80
    return [uuid7(born + number, number) for number in range(count)]


async def _sizes(connection: Any, week: partitions.Week) -> Any:
    return await connection.fetchrow(_SIZES, f"circuit.stream_event_{week.suffix}")


async def _measure(url: str) -> list[Row]:
    await schema.upgrade(url)
    database = await Database.open(url)
    then = datetime.now(UTC) - WEEKS_AGO
    week = partitions.week_of(then)
    raw = await database.raw()
    await partitions.ensure(raw, then)
    await raw.close()
    connection = await asyncpg.connect(url)
    rows: list[Row] = []
    ids = _ids(week, SHORT + 1)
    for name, some, pieces, tools in (("long", ids[:1], LONG, False), ("many", ids[1:], 50, True)):
        await connection.execute(_CASES, some, then)
        await connection.execute(_EXECUTIONS, some, then)
        await connection.execute(_FRAMES, some, then, pieces, "content_chunk", tools, timeout=600)
        await connection.execute("DELETE FROM circuit.stream_compaction")
        await connection.execute("VACUUM ANALYZE circuit.stream_event", timeout=600)
        before = await _sizes(connection, week)
        began = time.perf_counter()
        [done] = await Compaction(database).run(timedelta(hours=1), datetime.now(UTC), console.print)
        seconds = time.perf_counter() - began
        after = await _sizes(connection, week)
        told = {f"{key}_before_and_after": [before[key], after[key]] for key in ("rows", "heap", "index")}
        rows.append(
            figure(
                f"compaction_{name}",
                done.gone / seconds,
                "frames/s",
                executions_per_second=round(done.executions / seconds),
                **told,
            )
        )
        console.print(rows[-1])
    await connection.close()
    await database.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.compaction", description=__doc__)
    parser.add_argument("--output", type=Path, default=results.LATEST, help="where the results go")
    options = parser.parse_args()
    with postgres() as (url, _):
        rows = asyncio.run(_measure(url))
    results.write(rows, options.output)
    console.print(f"written to {options.output}")


if __name__ == "__main__":
    main()
