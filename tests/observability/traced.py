"""Spans as a tree in text, and what was measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler


class Traces:
    """A provider of OpenTelemetry's SDK that keeps its spans in memory."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._kept = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._kept))

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._kept.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def tree(self) -> str:
        return tree(self.spans)


class Meters:
    """A provider of OpenTelemetry's SDK, and what was measured there: how often, by name and by what it is of."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader], shutdown_on_exit=False)

    def points(self, name: str) -> list[HistogramDataPoint]:
        data = self._reader.get_metrics_data()
        scopes = [scope for about in (data.resource_metrics if data else ()) for scope in about.scope_metrics]
        assert {scope.scope.name for scope in scopes} <= {"circuit"}
        found: list[Any] = [
            point for scope in scopes for one in scope.metrics if one.name == name for point in one.data.data_points
        ]
        return found

    def counts(self, name: str, *attributes: str) -> dict[tuple[Any, ...], int]:
        points = self.points(name)
        return {tuple((point.attributes or {}).get(one) for one in attributes): point.count for point in points}


def tree(spans: Iterable[ReadableSpan]) -> str:
    """The spans by their names, each below its parent, siblings in the order in which they ended: the database and this
    machine have clocks of their own."""
    found = list(spans)
    ids = {span.context.span_id for span in found}

    def lines(parent: int | None, depth: int) -> Iterable[str]:
        for span in found:
            above = span.parent.span_id if span.parent is not None and span.parent.span_id in ids else None
            if above == parent:
                yield "  " * depth + span.name
                yield from lines(span.context.span_id, depth + 1)

    return "\n".join(lines(None, 0)) + "\n"
