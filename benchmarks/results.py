"""The results: rows by name in `benchmarks/results/latest.json`. A run replaces the rows that it measured and keeps the
others, so that each part of Circuit can bring rows of its own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

LATEST = Path(__file__).resolve().parent / "results" / "latest.json"


class Row(TypedDict):
    """One comparison. `ratio` is how many times better Circuit is than the reference: its rate divided by the other's,
    or the other's time divided by its own. Where there is nothing to compare with, `reference` and `ratio` are null.
    `details` are figures beside it, by whom they are of."""

    name: str
    value: float
    unit: str
    reference: float | None
    ratio: float | None
    details: NotRequired[Mapping[str, Any]]


def rate(name: str, value: float, reference: float, unit: str, **details: Any) -> Row:
    """A row of which more is better."""
    return _row(name, value, unit, reference, value / reference, details)


def time(name: str, value: float, reference: float, unit: str, **details: Any) -> Row:
    """A row of which less is better."""
    return _row(name, value, unit, reference, reference / value, details)


def figure(name: str, value: float, unit: str, **details: Any) -> Row:
    """A row that stands for itself."""
    return _row(name, value, unit, None, None, details)


def _row(
    name: str, value: float, unit: str, reference: float | None, ratio: float | None, details: Mapping[str, Any]
) -> Row:
    row: Row = {
        "name": name,
        "value": round(value, 2),
        "unit": unit,
        "reference": None if reference is None else round(reference, 2),
        "ratio": None if ratio is None else round(ratio, 3),
    }
    if details:
        row["details"] = details
    return row


def read(path: Path = LATEST) -> list[Row]:
    """The rows that were measured last; none where nothing was."""
    return json.loads(path.read_text()) if path.exists() else []


def write(rows: Iterable[Row], path: Path = LATEST) -> None:
    """Put these rows into the place of those of the same names, and the others behind them as they were."""
    known = {row["name"]: row for row in read(path)}
    known |= {row["name"]: row for row in rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(known.values()), indent=2, ensure_ascii=False) + "\n")
