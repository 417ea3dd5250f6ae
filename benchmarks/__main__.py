"""`python -m benchmarks` (or `make bench`): measure, print the ratios, write `benchmarks/results/latest.json`."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.firings import Row, measure

RESULTS = Path(__file__).parent / "results" / "latest.json"


def show(rows: list[Row]) -> None:
    table = Table(title="Durable firings: Circuit beside the raw writer, same Postgres, same run")
    for heading in ("what", "Circuit", "raw writer", "unit", "ratio", "Python µs a firing"):
        table.add_column(heading, justify="left" if heading in ("what", "unit") else "right")
    for row in rows:
        micros = f"{1e6 / row['value']:,.0f}" if "CPU" in row["unit"] else ""
        figures = (f"{row['value']:,.0f}", f"{row['reference']:,.0f}", row["unit"], f"{row['ratio']:.3f}", micros)
        table.add_row(row["name"], *figures)
    Console(width=130).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--cases", type=int, default=1_000, help="cases per chain (default 1000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the median counts (default 3)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the results go")
    options = parser.parse_args()
    rows = asyncio.run(measure(options.cases, options.rounds))
    show(rows)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(rows, indent=2) + "\n")
    Console().print(f"written to {options.output}")


if __name__ == "__main__":
    main()
