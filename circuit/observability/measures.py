"""Figures of models, agents, tools and workflows through OpenTelemetry, by its conventions for generative AI.

They are taken of what is a span, at its end, whether the trace that it is in is kept or not, and where no spans are
made at all. Where they go is said by OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_ENDPOINT`,
`OTEL_METRIC_EXPORT_INTERVAL`, ...). With `telemetry` the only module that knows its library.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from circuit.tracing import Attributes, Value

OPERATION = "gen_ai.operation.name"
CALL_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
WORK_SECONDS = (1, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200)
TOKENS = tuple(4**power for power in range(14))
"""The bounds of the conventions."""

_OF_CALL = (
    OPERATION,
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.response.model",
    "server.address",
    "server.port",
)
_TOKENS = {"input": "gen_ai.usage.input_tokens", "output": "gen_ai.usage.output_tokens"}
_FIRST = "gen_ai.response.time_to_first_chunk"


class Measures:
    """What is measured, in the instruments of `provider`."""

    def __init__(self, provider: metrics.MeterProvider, scope: str, version: str) -> None:
        self.provider = provider
        meter = provider.get_meter(scope, version)

        def histogram(name: str, unit: str, about: str, bounds: Any) -> metrics.Histogram:
            return meter.create_histogram(name, unit, about, explicit_bucket_boundaries_advisory=bounds)

        self._calls = histogram("gen_ai.client.operation.duration", "s", "How long calls of models took.", CALL_SECONDS)
        self._first = histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            "s",
            "How long the first piece of an answer took.",
            CALL_SECONDS,
        )
        self._tokens = histogram("gen_ai.client.token.usage", "{token}", "Tokens that calls of models used.", TOKENS)
        # What takes its time beside calls of models, and what of it is told apart.
        self._work = {
            "execute_tool": (
                histogram("gen_ai.execute_tool.duration", "s", "How long calls of tools took.", CALL_SECONDS),
                ("gen_ai.tool.name", "gen_ai.tool.type"),
            ),
            "invoke_agent": (
                histogram("gen_ai.invoke_agent.duration", "s", "How long runs of agents took.", WORK_SECONDS),
                ("gen_ai.agent.name", "gen_ai.provider.name", "gen_ai.request.model"),
            ),
            "invoke_workflow": (
                histogram("gen_ai.workflow.duration", "s", "How long cases took to their end.", WORK_SECONDS),
                ("gen_ai.workflow.name",),
            ),
        }

    @classmethod
    def open(cls, exporter: str, resource: Resource, scope: str, version: str) -> Measures:
        """Figures go where those of this program go already, if it has a provider of the SDK. Else it gets one, which
        sends them (`otlp`) or prints them (`console`) at intervals."""
        found = metrics.get_meter_provider()
        if not isinstance(found, MeterProvider):
            sink = ConsoleMetricExporter(out=sys.stderr) if exporter == "console" else OTLPMetricExporter()
            found = MeterProvider([PeriodicExportingMetricReader(sink)], resource, shutdown_on_exit=False)
            metrics.set_meter_provider(found)
        return cls(found, scope, version)

    def flush(self) -> None:
        """Send what was not sent yet."""
        if isinstance(self.provider, MeterProvider):
            self.provider.force_flush()

    def record(self, seconds: float, told: Attributes, error: str) -> None:
        """Something took so long, and failed with this code, if with any."""
        operation = str(told[OPERATION])
        failed: dict[str, Value] = {"error.type": error} if error else {}
        if operation in self._work:
            instrument, names = self._work[operation]
            instrument.record(seconds, _of(told, names) | failed)
            return
        of_call = _of(told, _OF_CALL)
        self._calls.record(seconds, of_call | failed)
        first = told.get(_FIRST)
        if isinstance(first, float):
            self._first.record(first, of_call)
        for kind, name in _TOKENS.items():
            count = told.get(name)
            if isinstance(count, int):
                self._tokens.record(count, of_call | {"gen_ai.token.type": kind})


class Measure:
    """Something that takes its time, and what was told of it so far."""

    def __init__(self, measures: Measures, attributes: Attributes) -> None:
        self._measures = measures
        self._told = dict(attributes)
        self._began = time.perf_counter()

    def add(self, attributes: Attributes) -> None:
        """Say more of it."""
        self._told.update(attributes)

    def end(self, error: str) -> None:
        """It is over."""
        self._measures.record(time.perf_counter() - self._began, self._told, error)


def _of(told: Attributes, names: tuple[str, ...]) -> dict[str, Value]:
    return {name: told[name] for name in names if name in told}
