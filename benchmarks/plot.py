"""The results as a picture: bars of what a durable step costs, and the growth curves, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot
from matplotlib.axes import Axes

from benchmarks.results import Row

DOCS = Path(__file__).resolve().parent.parent / "docs" / "explanation"
COMPARISON = DOCS / "performance.svg"
GROWTH = DOCS / "growth.svg"
OURS, THEIRS, SERVER = "#1f6f8b", "#c3c8cc", "#e0a458"


def comparison(rows: Sequence[Row], path: Path = COMPARISON) -> None:
    """Steps a second of the chain and the fork, and CPU a step of both sides, for all who store each step."""
    known = {row["name"]: row for row in rows}
    figure, axes = pyplot.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    for axis, title, prefix in zip(
        axes, ("chain of ten", "fork of eight"), ("chain10_durable", "forkjoin"), strict=False
    ):
        rates = _rates(known, prefix)
        colours = [OURS if name == "circuit" else THEIRS for name in rates]
        bars = axis.barh(list(rates), list(rates.values()), color=colours)
        axis.bar_label(bars, fmt="{:,.0f}", padding=3)
        _dress(axis, f"{title}: durable steps a second")
    spent = _spent(known)
    client = axes[2].barh(list(spent), [one["client_us"] for one in spent.values()], color=OURS, label="client")
    left = [bar.get_width() for bar in client]
    both = axes[2].barh(
        list(spent), [one["server_us"] for one in spent.values()], left=left, color=SERVER, label="server"
    )
    totals = [f"{one['client_us'] + one['server_us']:,.0f}" for one in spent.values()]
    axes[2].bar_label(both, totals, padding=3)
    axes[2].legend(frameon=False, loc="upper right")
    _dress(axes[2], "CPU a step, µs")
    _save(figure, path)


def growth(curves: Mapping[str, Sequence[tuple[float, float, float]]], path: Path = GROWTH) -> None:
    """Each curve: how much there is, and the CPU of the client and of Postgres for a firing, in µs."""
    figure, axes = pyplot.subplots(1, len(curves), figsize=(4.3 * len(curves), 3.4), layout="constrained")
    for axis, (title, points) in zip(axes, curves.items(), strict=True):
        names = [f"{amount:,.0f}" for amount, _, _ in points]
        axis.plot(names, [client for _, client, _ in points], marker="o", color=OURS, label="client")
        axis.plot(names, [server for _, _, server in points], marker="o", color=SERVER, label="Postgres")
        axis.set_ylim(bottom=0)
        axis.set_xlabel(title)
        axis.set_ylabel("CPU a firing, µs")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, loc="lower left")
    _save(figure, path)


def _rates(known: Mapping[str, Row], prefix: str) -> dict[str, float]:
    rates: dict[str, float] = {}
    for name, row in known.items():
        peer = name.removeprefix(f"{prefix}_vs_")
        if peer != name and peer != "raw_writer" and row["reference"] is not None:
            rates[peer] = row["reference"]
            rates["circuit"] = row["value"]
    return dict(sorted(rates.items(), key=lambda item: item[1]))


def _spent(known: Mapping[str, Row]) -> dict[str, Mapping[str, Any]]:
    spent: dict[str, Mapping[str, Any]] = {}
    for name, row in known.items():
        peer, details = name.removeprefix("chain10_durable_vs_"), row.get("details", {})
        if peer != name and peer != "raw_writer" and "theirs" in details:
            spent[peer] = details["theirs"]
            spent["circuit"] = details["circuit"]
    return dict(sorted(spent.items(), key=lambda item: -(item[1]["client_us"] + item[1]["server_us"])))


def _dress(axis: Axes, title: str) -> None:
    axis.set_title(title, fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.18)


def _save(figure: Any, path: Path) -> None:
    mpl.rcParams["svg.hashsalt"] = "circuit"
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
