"""Figures for Prometheus, read at the moment that they are asked for: nothing is counted twice.

Whoever has a figure gives it as a `Figure`; the names, units and types follow the conventions of Prometheus.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Kind(StrEnum):
    """A counter only grows while its process lives; a gauge is what it is now; a histogram counts by size."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. `name` begins with `circuit_` and ends in its unit, if it has one. Of a histogram it is the sum, and
    `buckets` are how many are at most as large as what each is named by, the last one `+Inf`."""

    name: str
    about: str
    value: float
    kind: Kind = Kind.GAUGE
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    buckets: Sequence[tuple[str, float]] = ()

    def labelled(self, **labels: str) -> Figure:
        """The same with more labels."""
        return replace(self, labels={**self.labels, **labels})

    def as_json(self) -> list[Any]:
        """The figure as it goes from one process to another."""
        return [self.name, self.about, self.value, self.kind.value, dict(self.labels), list(self.buckets)]

    @classmethod
    def of_json(cls, value: Sequence[Any]) -> Figure:
        """The figure that `as_json` wrote."""
        name, about, number, kind, labels, buckets = value
        return cls(name, about, number, Kind(kind), labels, [(str(bound), count) for bound, count in buckets])


_FAMILIES = {
    Kind.COUNTER: CounterMetricFamily,
    Kind.GAUGE: GaugeMetricFamily,
    Kind.HISTOGRAM: HistogramMetricFamily,
}


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
        together: dict[str, list[Figure]] = {}
        for figure in self._figures:
            together.setdefault(figure.name, []).append(figure)
        for name, figures in together.items():
            first = figures[0]
            # Those of one name may come from several processes: what one lacks is empty.
            labels = list(dict.fromkeys(label for figure in figures for label in figure.labels))
            family: Any = _FAMILIES[first.kind](name, first.about, labels=labels)
            for figure in figures:
                values = [figure.labels.get(label, "") for label in labels]
                if figure.kind is Kind.HISTOGRAM:
                    family.add_metric(values, figure.buckets, figure.value)
                else:
                    family.add_metric(values, figure.value)
            yield family
