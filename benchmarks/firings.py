"""Durable firings per second: a chain of ten transitions, many cases at once, beside the raw writer.

*Immediate*: the ten transitions have no action; a case's run is one write. *Durable*: each transition has an action
that answers at once, so that every step is committed before the next begins. The raw writer (`raw_writer.py`) writes
the same rows with the same keys and the same fence, without Circuit's logic: it is the limit on this Postgres.
Rounds are interleaved and the median counts. The ratio is Circuit's rate divided by the reference's: above 1 means
that Circuit is faster.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypedDict

from benchmarks import raw_writer
from circuit.app import SystemClock, SystemIds
from circuit.definition import load_workflow
from circuit.engine.action import ActionCall, ActionContext, ActionOutput
from circuit.engine.commands import TokenInput
from circuit.engine.engine import Engine
from circuit.engine.worker import WorkerLimits
from circuit.security.principal import LOCAL
from circuit.storage import embedded, schema
from circuit.storage.database import Database

LENGTH = 10
PAYLOAD = {"text": "x" * 150, "n": 1}


class Row(TypedDict):
    """One line of the results: Circuit's rate, the reference's, and the first divided by the second."""

    name: str
    value: float
    unit: str
    reference: float
    ratio: float


@dataclass(frozen=True, slots=True)
class Measured:
    """One round: firings per second, and microseconds of this process's CPU per firing."""

    rate: float
    cpu_us: float


class Instantly:
    """An action that answers at once, in the place of an agent."""

    async def perform(self, call: ActionCall, context: ActionContext) -> ActionOutput:
        return ActionOutput({}, text="")


def chain(name: str, *, acting: bool) -> str:
    """A chain of ten as YAML."""
    places = ", ".join(f"p{index}: {{}}" for index in range(1, LENGTH))
    lines = [f"workflow: {name}", "places:", "  p0: {initial: true}", f"  p{LENGTH}: {{terminal: true}}"]
    lines += [f"  p{index}: {{}}" for index in range(1, LENGTH)] if places else []
    if acting:
        lines += ["agents:", "  instant: {llm_provider: {type: scripted, model: none}}"]
    lines.append("transitions:")
    for index in range(LENGTH):
        step = f"from_places: p{index}, to_place: p{index + 1}"
        agent = ", agent_execution: {agent_id: instant}" if acting else ""
        lines.append(f"  t{index}: {{{step}{agent}}}")
    return "\n".join(lines) + "\n"


async def run_cases(database: Database, workflow_id: str, cases: int) -> Measured:
    """Start the cases while no worker runs, then measure how long one worker takes for all of them."""
    asking = Engine(database, actions={}, clock=SystemClock(), ids=SystemIds(SystemClock()), worker=False)
    await asking.start()
    for _ in range(cases):
        await asking.commands.start_case(workflow_id, TokenInput(PAYLOAD, {}), principal=LOCAL)
    await asking.stop()
    connection = await database.raw()
    before = await _completed(connection)
    engine = Engine(
        database,
        actions={"agent": Instantly()},
        clock=SystemClock(),
        ids=SystemIds(SystemClock()),
        limits=WorkerLimits(executions=1_000),
    )
    started, cpu = time.perf_counter(), time.process_time()
    await engine.start()
    while await _completed(connection) - before < cases:
        await asyncio.sleep(0.02)
    seconds, used = time.perf_counter() - started, time.process_time() - cpu
    await engine.stop()
    await connection.close()
    firings = cases * LENGTH
    return Measured(firings / seconds, used / firings * 1e6)


async def _completed(connection: object) -> int:
    fetch = connection.fetchval  # type: ignore[attr-defined]
    return int(await fetch("SELECT count(*) FROM circuit.case WHERE status = 'completed'"))


async def measure(cases: int, rounds: int) -> list[Row]:
    """All rows, on a Postgres of its own (fsync and synchronous_commit on, as Circuit runs it)."""
    with tempfile.TemporaryDirectory(prefix="circuit-bench-", dir="/tmp") as directory:
        server = embedded.start(Path(directory) / "home")
        try:
            await schema.upgrade(server.url)
            database = await Database.open(server.url)
            try:
                return await _measure(database, server.url, cases, rounds)
            finally:
                await database.close()
        finally:
            server.stop()


async def _measure(database: Database, url: str, cases: int, rounds: int) -> list[Row]:
    engine = Engine(database, actions={}, clock=SystemClock(), ids=SystemIds(SystemClock()), worker=False)
    for name, acting in (("immediate", False), ("durable", True)):
        await engine.commands.publish(load_workflow(chain(name, acting=acting), f"{name}.yaml"), LOCAL)
    found: dict[str, list[Measured]] = {"immediate": [], "durable": [], "raw": []}
    for _ in range(rounds):
        raw = await raw_writer.run(url, firings=cases * LENGTH, live=cases)
        found["raw"].append(Measured(raw.firings_per_second, raw.client_us_per_firing))
        for name in ("immediate", "durable"):
            found[name].append(await run_cases(database, name, cases))
    rate = {name: median(one.rate for one in measured) for name, measured in found.items()}
    cpu = {name: median(one.cpu_us for one in measured) for name, measured in found.items()}
    rows: list[Row] = []
    for name in ("immediate", "durable"):
        rows.append(_row(f"chain10_{name}_vs_raw_writer", "firings/s", rate[name], rate["raw"]))
        rows.append(
            _row(f"chain10_{name}_python_vs_raw_writer", "firings/CPU s of Python", 1e6 / cpu[name], 1e6 / cpu["raw"])
        )
    return rows


def _row(name: str, unit: str, value: float, reference: float) -> Row:
    return {
        "name": name,
        "value": round(value, 1),
        "unit": unit,
        "reference": round(reference, 1),
        "ratio": round(value / reference, 4),
    }
