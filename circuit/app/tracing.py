"""The tracer of a process, where it is told to trace or to measure: OpenTelemetry is not imported elsewhere, nor
otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import circuit
from circuit.errors import InvalidRequest
from circuit.settings import Settings
from circuit.tracing import Tracer

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider


def tracing(
    settings: Settings, provider: TracerProvider | None = None, meters: MeterProvider | None = None
) -> Tracer | None:
    """What traces and figures go to, as the settings say, or in `provider` and `meters`. Raises `InvalidRequest` where
    the library lacks."""
    if settings.tracing is None and settings.metrics is None and provider is None and meters is None:
        return None
    try:
        from circuit.observability.measures import Measures
        from circuit.observability.telemetry import SCOPE, Telemetry
    except ImportError:
        variable = "CIRCUIT_METRICS" if settings.tracing is None else "CIRCUIT_TRACING"
        raise InvalidRequest(
            f"{variable}=true takes OpenTelemetry's SDK, which is not installed here:"
            " pip install 'circuit-engine[otel]'",
            details={"variable": variable},
        ) from None
    version = circuit.__version__
    options: dict[str, Any] = {
        "content": settings.trace_content,
        "hosts": settings.trace_hosts,
        "caller": settings.traceparent,
        "redactor": settings.redactor,
    }
    if meters is not None:
        options["measures"] = Measures(meters, SCOPE, version)
    measured = settings.metrics if meters is None else None
    return Telemetry.open(settings.tracing, version, provider, measured=measured, **options)
