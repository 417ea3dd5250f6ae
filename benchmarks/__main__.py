"""`python -m benchmarks` (or `make bench`): Circuit, the raw writer and other engines side by side on one Postgres.

Prints a table and writes `benchmarks/results/latest.json` and `docs/explanation/performance.svg`. Contestants that
cannot be installed here are named at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import comparison, plot, results
from benchmarks.contest import Measured, contest
from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.gauge import Gauge
from benchmarks.postgres import postgres

SCENARIOS = ("chain", "guarded", "immediate", "fork", "alone", "alone-immediate")

HEADINGS = ("who", "steps/s", "CPU µs a step: client", "server", "WAL bytes a step", "MB", "p50 ms", "p99 ms")

console = Console(width=150)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--only", default="", help="contestants and scenarios, with commas: circuit,dbos,chain")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the median counts (default 3)")
    parser.add_argument("--output", type=Path, default=results.LATEST, help="where the results go")
    options = parser.parse_args()
    names = {contestant.name: contestant for contestant in CONTESTANTS}
    only = [word.strip() for word in options.only.split(",") if word.strip()]
    if unknown := [word for word in only if word not in names and word not in SCENARIOS]:
        parser.error(
            f"{', '.join(unknown)}: no contestant and no scenario; there are {', '.join([*names, *SCENARIOS])}"
        )
    contestants = [names[word] for word in only if word in names] or list(CONTESTANTS)
    scenarios = [word for word in only if word in SCENARIOS] or list(SCENARIOS)
    load = os.getloadavg()[0]
    with postgres() as (url, _):
        found, missing, settings = asyncio.run(_measure(url, contestants, scenarios, options.rounds))
    show(found)
    rows = comparison.rows(found)
    conditions = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count(), **settings}
    load_told = {"before": round(load, 2), "after": round(os.getloadavg()[0], 2)}
    rows.append(results.figure("conditions", load_told["before"], "load average", **conditions, load=load_told))
    results.write(rows, options.output)
    if not only:
        plot.comparison(rows)
    console.print(f"written to {options.output}")
    for name, why in missing.items():
        console.print(f"[red]not measured[/red]: {name}: {why}")


async def _measure(
    url: str, contestants: Sequence[Contestant], scenarios: Sequence[str], rounds: int
) -> tuple[dict[tuple[str, str], Measured], dict[str, str], dict[str, str]]:
    gauge = await Gauge.open(url)
    try:
        found, missing = await contest(gauge, contestants, scenarios, rounds, console.print)
        return found, missing, await gauge.settings()
    finally:
        await gauge.close()


def show(found: dict[tuple[str, str], Measured]) -> None:
    """A table for each scenario, the fastest first."""
    for scenario in SCENARIOS:
        several = {name: measured for (name, one), measured in found.items() if one == scenario}
        if not several:
            continue
        table = Table(title=scenario)
        for heading in HEADINGS:
            table.add_column(heading, justify="left" if heading == "who" else "right")
        for name, one in sorted(several.items(), key=lambda item: -item[1].rate):
            spent = (f"{one.rate:,.0f}", f"{one.client:,.0f}", f"{one.server:,.0f}", f"{one.wal:,.0f}")
            late = [f"{comparison.percentile(one, percent):,.1f}" if one.each else "" for percent in (50, 99)]
            table.add_row(name, *spent, f"{one.memory / 1e6:,.0f}", *late)
        console.print(table)


if __name__ == "__main__":
    main()
