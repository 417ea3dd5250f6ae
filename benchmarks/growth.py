"""`python -m benchmarks.growth` (or `make bench-growth`): what a firing costs as the store grows.

Three curves: the rows of history that are stored already, the cases that wait, the tokens in one place of a case. The
databases of a curve lie side by side on one server and take turns, so that whatever else the machine does meets them
all; the median counts. What is measured is CPU, of the worker's process and of Postgres.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import asyncpg
from rich.console import Console

from benchmarks import plot, results
from benchmarks.contest import Measured, perform
from benchmarks.contestants import CONTESTANTS
from benchmarks.environment import python_of
from benchmarks.gauge import Gauge
from benchmarks.postgres import postgres
from benchmarks.results import Row, figure
from circuit.storage import schema

HISTORY = (0, 1_000_000, 10_000_000)
WAITING = (0, 10_000, 100_000)
TOKENS = (1, 10, 100, 1_000, 10_000)
RUNS = 500
MOST_RUNS = 1_000
"""A tenth of the firings that a round of the tokens' curve has; with one token in a case it has fewer."""
ROWS_A_CASE = 20

# Cases of this very week, so that their rows lie in the partition in which those of the run will lie.
_IDS = """
CREATE TEMPORARY TABLE made AS SELECT (
    lpad(to_hex((extract(epoch FROM now()) * 1000)::int8 - 60000), 12, '0') || '7' || substr(md5(n::text), 1, 3)
    || '8' || substr(md5(n::text), 4, 15)
)::uuid AS case_id FROM generate_series(1, $1::int) n
"""
_CASES = """
INSERT INTO circuit.case (tenant_id, case_id, workflow_id, workflow_hash, status, seq, next_token, next_firing,
    next_incident, started_at, finished_at)
SELECT 1, case_id, 'old', '', $1, $2, 2, 1, 1, now(), CASE WHEN $1 = 'completed' THEN now() END FROM made ORDER BY 2
"""
_HISTORY = f"""
INSERT INTO circuit.history (tenant_id, case_id, seq, kind, at, transition, firing, body)
SELECT 1, case_id, seq, 'transition_fired', now(), 'go', NULL,
    '{{"transition":"go","consumed":[],"produced":[],"read":[],"text":"{"x" * 150}","v":1}}'
FROM made, generate_series(1, {ROWS_A_CASE}) seq ORDER BY 2, 3
"""
_TOKENS = f"""
INSERT INTO circuit.token (tenant_id, case_id, number, version, place, data, metadata, entered_at)
SELECT 1, case_id, 1, 1, 'p1', '{{"text":"{"x" * 150}","n":1}}', '{{}}', now() FROM made ORDER BY 2
"""

console = Console(width=130)


async def _grown(gauge: Gauge, name: str, *, history: int = 0, waiting: int = 0) -> str:
    """The URL of a database with so much in it."""
    url = await gauge.fresh(name)
    await schema.upgrade(url)
    connection = await asyncpg.connect(url)
    try:
        if history or waiting:
            await connection.execute(_IDS.replace("$1", str(history // ROWS_A_CASE + waiting)))
            await connection.execute(
                _CASES.replace("$1", "'waiting'" if waiting else "'completed'").replace("$2", "20")
            )
            await connection.execute(_TOKENS if waiting else _HISTORY, timeout=1_800)
            await connection.execute("VACUUM ANALYZE", timeout=1_800)
            await connection.execute("CHECKPOINT", timeout=1_800)
    finally:
        await connection.close()
    return url


async def _turns(
    gauge: Gauge, urls: Mapping[float, str], rounds: int, scenario: str, title: str
) -> dict[float, Measured]:
    """The medians of so many rounds, in which all of a curve take turns."""
    circuit = next(one for one in CONTESTANTS if one.name == "circuit")
    found: dict[float, list[Measured]] = {amount: [] for amount in urls}
    for number in range(1, rounds + 1):
        for amount, url in urls.items():
            named = scenario if scenario == "chain" else f"{scenario}-{amount:g}"
            runs = RUNS if scenario == "chain" else int(min(MOST_RUNS, 100 * amount))
            measured = await perform(gauge, circuit, python_of(circuit), named, runs, url)
            found[amount].append(measured)
            spent = f"CPU {measured.client:,.0f} + {measured.server:,.0f} µs a firing"
            console.print(f"round {number} of {rounds}: {amount:,.0f} {title}: {spent}")
    return {
        amount: Measured(
            rate=median(one.rate for one in several),
            client=median(one.client for one in several),
            server=median(one.server for one in several),
            wal=median(one.wal for one in several),
            memory=max(one.memory for one in several),
        )
        for amount, several in found.items()
    }


async def _measure(url: str, only: Sequence[str], rounds: int) -> dict[str, dict[float, Measured]]:
    gauge = await Gauge.open(url)
    curves: dict[str, dict[float, Measured]] = {}
    try:
        if "history" in only:
            console.print("filling the databases with history")
            urls = {float(rows): await _grown(gauge, f"history_{rows}", history=rows) for rows in HISTORY}
            curves["history"] = await _turns(gauge, urls, rounds, "chain", "rows of history")
            for rows in HISTORY:
                await gauge.drop(f"history_{rows}")
        if "waiting" in only:
            urls = {float(cases): await _grown(gauge, f"waiting_{cases}", waiting=cases) for cases in WAITING}
            curves["waiting"] = await _turns(gauge, urls, rounds, "chain", "waiting cases")
        if "tokens" in only:
            urls = {float(tokens): await _grown(gauge, f"tokens_{tokens}") for tokens in TOKENS}
            curves["tokens"] = await _turns(gauge, urls, rounds, "tokens", "tokens in a case")
    finally:
        await gauge.close()
    return curves


TITLES = {"history": "rows of history stored", "waiting": "cases waiting", "tokens": "tokens in one place of a case"}


def rows_of(curves: Mapping[str, Mapping[float, Measured]]) -> list[Row]:
    """A row for each point, and for each curve how much the last costs beside the first."""
    rows: list[Row] = []
    for name, points in curves.items():
        for amount, one in points.items():
            told = {"client_us": round(one.client, 1), "server_us": round(one.server, 1), "wal_bytes": round(one.wal)}
            rows.append(figure(f"growth_{name}_{amount:.0f}", one.client + one.server, "µs of CPU a firing", **told))
        first, last = next(iter(points.values())), list(points.values())[-1]
        ratio = (last.client + last.server) / (first.client + first.server)
        rows.append(figure(f"growth_{name}", ratio, "times the CPU a firing of the smallest"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.growth", description=__doc__)
    parser.add_argument("--only", default=",".join(TITLES), help="curves, with commas (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the median counts (default 5)")
    parser.add_argument("--output", type=Path, default=results.LATEST, help="where the results go")
    options = parser.parse_args()
    only = [word.strip() for word in options.only.split(",") if word.strip()]
    if unknown := [word for word in only if word not in TITLES]:
        parser.error(f"{', '.join(unknown)}: no such curve; there are {', '.join(TITLES)}")
    with postgres() as (url, _):
        curves = asyncio.run(_measure(url, only, options.rounds))
    results.write(rows_of(curves), options.output)
    told = {
        TITLES[name]: [(amount, one.client, one.server) for amount, one in points.items()]
        for name, points in curves.items()
    }
    if set(curves) == set(TITLES):
        plot.growth(told)
    console.print(f"written to {options.output}")


if __name__ == "__main__":
    main()
