"""From what the contestants did to rows: Circuit beside each of them."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import quantiles
from typing import Any

from benchmarks.contest import Measured
from benchmarks.results import Row, figure, rate, time

SHORT = {"raw writer": "raw_writer", "spiffworkflow": "spiff"}
IN_MEMORY = ("spiffworkflow", "snakes")

Found = Mapping[tuple[str, str], Measured]


def rows(found: Found) -> list[Row]:
    """All comparisons that `found` allows."""
    made: list[Row] = []
    for name, scenario in found:
        if name == "circuit":
            continue
        short = SHORT.get(name, name)
        if name in IN_MEMORY:
            pairs = [("chain", "chain10_immediate", "immediate"), ("alone", "alone10_immediate", "alone-immediate")]
        else:
            pairs = [(one, f"{title}", one) for one, title in TITLES.items()]
        for theirs, title, ours in pairs:
            if theirs == scenario and ("circuit", ours) in found:
                compare = _latency if theirs == "alone" else _throughput
                made.append(compare(f"{title}_vs_{short}", found["circuit", ours], found[name, scenario]))
    for scenario, title in OWN_TITLES.items():
        if ("circuit", scenario) in found:
            measured = found["circuit", scenario]
            if measured.each:
                made.append(figure(f"{title}_p50", percentile(measured, 50), "ms", p99=percentile(measured, 99)))
            else:
                made.append(figure(f"{title}_python", round(measured.client, 1), "µs a firing", **_told(measured)))
    return made


TITLES = {"chain": "chain10_durable", "fork": "forkjoin", "alone": "alone10_durable"}
OWN_TITLES = {
    "chain": "chain10_durable",
    "guarded": "chain10_guarded",
    "immediate": "chain10_immediate",
    "fork": "forkjoin",
    "alone": "alone10_durable",
    "alone-immediate": "alone10_immediate",
}


def percentile(measured: Measured, percent: int) -> float:
    """Milliseconds that so many of the runs took at most."""
    return quantiles(measured.each, n=100, method="inclusive")[percent - 1] * 1e3


def _throughput(name: str, ours: Measured, theirs: Measured) -> Row:
    spent = (theirs.client + theirs.server) / (ours.client + ours.server)
    told = {"circuit": _told(ours), "theirs": _told(theirs)}
    return rate(name, ours.rate, theirs.rate, "steps/s", cpu_ratio=round(spent, 2), **told)


def _latency(name: str, ours: Measured, theirs: Measured) -> Row:
    return time(
        name,
        percentile(ours, 50),
        percentile(theirs, 50),
        "ms, p50 of ten steps",
        circuit={"p99_ms": round(percentile(ours, 99), 2)},
        theirs={"p99_ms": round(percentile(theirs, 99), 2)},
    )


def _told(measured: Measured) -> dict[str, Any]:
    return {
        "client_us": round(measured.client, 1),
        "server_us": round(measured.server, 1),
        "wal_bytes": round(measured.wal),
        "memory_mb": round(measured.memory / 1e6),
    }
