"""kill -9 of `circuit migrate` in the midst of it, again and again: each case goes to the new version once."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import asyncpg
import invariants
from eventually import eventually

from circuit import Circuit
from tests.chaos.processes import ROOT, circuit

CASES = 60
KILLS = 3
FIRST = """
workflow: papers
places: {draft: {initial: true}, read: {}, done: {terminal: true}}
transitions:
  look: {from_places: draft, to_place: read, action: {type: human, title: Look at it}}
  close: {from_places: read, to_place: done, trigger: {type: manual}}
"""
SECOND = FIRST.replace("  close:", "  drop: {from_places: draft, to_place: done, trigger: {type: manual}}\n  close:")


async def test_each_case_goes_once_however_often_who_moves_them_dies(database_url: str) -> None:
    plain = await asyncpg.connect(database_url)
    async with Circuit.open(database_url) as opened:
        await opened.load(FIRST)
        cases = [await opened.start("papers", {"n": number}) for number in range(CASES)]
        for case in cases:
            await opened.wait(case)
        second = await opened.load(SECOND)

    async def moved() -> int:
        return await plain.fetchval("SELECT count(*) FROM circuit.history WHERE kind = 'case_migrated'")

    for number in range(KILLS):
        process = await _migrating(database_url)
        before = await moved()
        await eventually(_more_than(moved, before), within=60, what=f"a case that moves, round {number}")
        assert process.returncode is None, "it ended before it was killed"
        process.kill()
        await process.wait()
    assert await moved() < CASES, "nothing was left for who comes last"
    status, report, told = await circuit("migrate", "papers", "papers", "--json", url=database_url)
    assert (status, report and report["left"], report and report["pending"]) == (0, 0, 0), (report, told)
    rows = await plain.fetch(
        'SELECT c.workflow_hash, count(h.seq) AS times FROM circuit."case" c LEFT JOIN circuit.history h'
        " ON h.case_id = c.case_id AND h.kind = 'case_migrated' GROUP BY c.case_id, c.workflow_hash"
    )
    assert {(row["workflow_hash"], row["times"]) for row in rows} == {(second.hash, 1)} and len(rows) == CASES
    await plain.close()
    # Nobody works here any more: what has moved goes on when a worker comes.
    await invariants.check(database_url, at_rest=False)


def _more_than(count: Any, before: int) -> Any:
    async def look() -> bool:
        return await count() > before

    return look


async def _migrating(url: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "circuit", "migrate", "papers", "papers", "--json",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        cwd=ROOT, env={**os.environ, "CIRCUIT_DATABASE_URL": url, "CIRCUIT_LEASE_SECONDS": "1"},
    )  # fmt: skip
