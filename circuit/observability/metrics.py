"""Figures for Prometheus, read at the moment that they are asked for: nothing is counted twice.

Whoever has a figure gives it as a `Figure`; the names, units and types follow the conventions of Prometheus.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Kind(StrEnum):
    """A counter only grows while its process lives; a gauge is what it is now."""

    COUNTER = "counter"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. `name` begins with `circuit_` and ends in its unit, if it has one."""

    name: str
    about: str
    value: float
    kind: Kind = Kind.GAUGE
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


def exposition(figures: Iterable[Figure]) -> bytes:
    """The figures in Prometheus' text format, those of one name together."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Given(list(figures)))
    return generate_latest(registry)


class _Given(Collector):
    def __init__(self, figures: Sequence[Figure]) -> None:
        self._figures = figures

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Any] = {}
        for figure in self._figures:
            family = families.get(figure.name)
            if family is None:
                made = CounterMetricFamily if figure.kind is Kind.COUNTER else GaugeMetricFamily
                family = families[figure.name] = made(figure.name, figure.about, labels=list(figure.labels))
            family.add_metric(list(figure.labels.values()), figure.value)
        yield from families.values()
