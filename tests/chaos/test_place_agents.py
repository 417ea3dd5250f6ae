"""Agents that run on places, with three workers that are killed: each time of each stay of a token has one run."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import asyncpg
import invariants
from eventually import eventually

from tests.chaos.processes import program

CASES = 6
RUNS = 3
WORKFLOW = f"""
workflow: watched
places: {{lying: {{initial: true}}, done: {{terminal: true}}}}
agents:
  watcher: {{llm_provider: {{type: scripted, responses: [seen], delay_seconds: 0.05}}}}
place_agents:
  - place_id: lying
    agent_id: watcher
    output_mapping: {{data.seen: text}}
    schedule: {{interval_seconds: 1, max_executions: {RUNS}, missed: all}}
transitions:
  close: {{from_places: lying, to_place: done, trigger: {{type: manual}}}}
"""


async def test_each_time_has_one_run_whatever_dies(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "watched.yaml"
    file.write_text(WORKFLOW)
    plain = await asyncpg.connect(database_url)

    async def begun() -> int:
        return await plain.fetchval("SELECT count(*) FROM circuit.firing")

    async def over() -> bool:
        done = await plain.fetchval("SELECT count(*) FROM circuit.firing WHERE state = 'completed'")
        return done >= CASES * RUNS

    try:
        common = ("--url", database_url, "--lease", "1")
        async with (
            program(*common, "start", str(file), "--cases", str(CASES)) as first,
            program(*common, "work", "--point", "before_commit") as second,
            program(*common, "work") as third,
        ):
            await first.says("started")
            await third.says("working")
            await eventually(begun, what="the first run")
            await first.kill()
            async with program(*common, "work", "--point", "after_commit") as fourth, program(*common, "work"):
                await eventually(over, what="all runs")
                # No run is begun that is not due: what follows is nothing.
                assert await begun() == CASES * RUNS
                for one in (second, fourth):
                    await one.kill()
        await _check(plain)
    finally:
        await plain.close()
    await invariants.check(database_url)


async def _check(plain: Any) -> None:
    rows = await plain.fetch("SELECT case_id, number, state, request FROM circuit.firing")
    assert {row["state"] for row in rows} == {"completed"}
    times: Counter[tuple[Any, int, str]] = Counter()
    for row in rows:
        request = json.loads(row["request"])
        times[(row["case_id"], request["refreshed"][0]["number"], request["due"])] += 1
    assert set(times.values()) == {1}, "a time had several runs"
    assert len(times) == CASES * RUNS
    for token in await plain.fetch("SELECT runs, version, data FROM circuit.token"):
        [run] = json.loads(token["runs"]).values()
        assert (run["count"], run["firing"]) == (RUNS, None)
        assert token["version"] == 1 + RUNS, "each run patched the token"
        assert json.loads(token["data"])["seen"] == "seen"
