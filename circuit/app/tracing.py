"""The tracer of a process, where it is told to trace: OpenTelemetry is not imported elsewhere, nor otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import circuit
from circuit.errors import InvalidRequest
from circuit.settings import Settings
from circuit.tracing import Tracer

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider


def tracing(settings: Settings, provider: TracerProvider | None = None) -> Tracer | None:
    """What traces go to, as the settings say or in `provider`. Raises `InvalidRequest` where the library lacks."""
    if settings.tracing is None and provider is None:
        return None
    try:
        from circuit.observability.telemetry import Telemetry
    except ImportError:
        raise InvalidRequest(
            "CIRCUIT_TRACING=true takes OpenTelemetry's SDK, which is not installed here:"
            " pip install 'circuit-engine[otel]'",
            details={"variable": "CIRCUIT_TRACING"},
        ) from None
    content, hosts, caller = settings.trace_content, settings.trace_hosts, settings.traceparent
    version = circuit.__version__
    if provider is not None:
        return Telemetry(provider, version=version, content=content, hosts=hosts, caller=caller)
    return Telemetry.open(settings.tracing or "otlp", version, content=content, hosts=hosts, caller=caller)
