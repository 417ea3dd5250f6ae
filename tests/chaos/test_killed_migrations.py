"""kill -9 of `circuit migrate` in the midst of it, again and again: each case goes to the new version once."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import invariants
from eventually import eventually

from circuit import Circuit
from tests.chaos.processes import circuit, settings
from tests.forked import Forked, command

CASES = 60
KILLS = 3
A_ROUND = 15
"""So many cases can be moved in a round."""
REST = """
SELECT 1 FROM circuit."case" WHERE case_id IN (SELECT case_id FROM circuit."case" ORDER BY case_id OFFSET $1)
FOR NO KEY UPDATE
"""
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
        # Whatever it does, it comes to no end: it cannot have the rest.
        async with plain.transaction():
            await plain.execute(REST, (number + 1) * A_ROUND)
            before = await moved()
            process = await _migrating(database_url)
            await eventually(_more_than(moved, before), within=120, what=f"a case that moves, round {number}")
            assert process.alive, "it ended before it was killed"
            await process.kill()
    assert 0 < await moved() < CASES
    for _ in range(5):
        status, report, told = await circuit("migrate", "papers", "papers", "--json", url=database_url)
        # What is not answered within the time that the command gives it is looked at again.
        if report is None or not report["pending"]:
            break
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


async def _migrating(url: str) -> Forked:
    process = Forked(command, "migrate", "papers", "papers", "--json", environment=settings(url))
    await asyncio.to_thread(process.start)
    return process
