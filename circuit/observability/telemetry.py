"""Traces through OpenTelemetry: with `measures` the only module that knows its library (the extra `otel`), and only a
process that is told to trace or to measure imports it.

Where spans go and which of them are kept is said by OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_ENDPOINT`,
`OTEL_TRACES_SAMPLER`, ...), which its SDK reads. A program that has Circuit in it can hand over its own provider.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
from collections.abc import Collection, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import HOST_NAME, PROCESS_PID, SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from circuit.errors import CircuitError
from circuit.observability.logs import ruled
from circuit.observability.measures import OPERATION, Measure, Measures
from circuit.security.redactor import Redactor
from circuit.tracing import Attributes, Context, Kind, current

logger = logging.getLogger(__name__)

SCOPE = "circuit"
CLOSE_SECONDS = 5.0
"""How long the end of the process waits for a collector that takes no spans."""
LONGEST_MESSAGE = 500
CANCELLED = "cancelled"

_KINDS = {Kind.INTERNAL: SpanKind.INTERNAL, Kind.CLIENT: SpanKind.CLIENT, Kind.SERVER: SpanKind.SERVER}
_wanted: ContextVar[Context | None] = ContextVar("circuit_wanted_ids", default=None)


class Ids(IdGenerator):
    """Ids of spans: those that are known before, and else whatever `random` gives."""

    def __init__(self, random: IdGenerator) -> None:
        self._random = random

    def generate_span_id(self) -> int:
        wanted = _wanted.get()
        return self._random.generate_span_id() if wanted is None else wanted.span

    def generate_trace_id(self) -> int:
        wanted = _wanted.get()
        return self._random.generate_trace_id() if wanted is None else wanted.trace

    def is_trace_id_random(self) -> bool:
        return _wanted.get() is None and self._random.is_trace_id_random()


class TracedSpan:
    """A `circuit.tracing.Span`."""

    def __init__(self, telemetry: Telemetry, span: trace.Span, attributes: Attributes) -> None:
        self._telemetry = telemetry
        self._span = span
        self._ended = False
        measures = telemetry.measures
        self._measure = Measure(measures, attributes) if measures is not None and OPERATION in attributes else None

    @property
    def context(self) -> Context | None:
        found = self._span.get_span_context()
        return _context(found) if found.is_valid else None

    @property
    def content(self) -> bool:
        return self._telemetry.content and self._span.is_recording()

    def shown(self, text: str) -> str:
        return self._telemetry.redactor.at("logs", ruled()).text(text)

    def child(self, name: str, attributes: Attributes, kind: Kind = Kind.INTERNAL) -> TracedSpan:
        return self._telemetry.started(name, attributes, trace.set_span_in_context(self._span), kind)

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(dict(attributes))
        if self._measure is not None:
            self._measure.add(attributes)

    def end(self, error: BaseException | None = None) -> None:
        if self._ended:
            return
        self._ended = True
        code = ""
        if isinstance(error, Exception):
            code = error.code if isinstance(error, CircuitError) else type(error).__qualname__
            # What an error says may quote what a model was told or said.
            told = error.message if isinstance(error, CircuitError) and self.content else None
            said = None if told is None else self.shown(told)[:LONGEST_MESSAGE]
            self._span.set_attribute("error.type", code)
            self._span.set_status(Status(StatusCode.ERROR, said))
        elif error is not None:
            cancelled = isinstance(error, asyncio.CancelledError | GeneratorExit)
            code = CANCELLED if cancelled else type(error).__name__.lower()
            self._span.set_attribute("circuit.outcome", code)
        self._span.end()
        if self._measure is not None:
            self._measure.end(code)

    def active(self) -> AbstractContextManager[None]:
        return _attached(self._span)

    def apart(self) -> AbstractContextManager[None]:
        random = RandomIdGenerator()
        context = SpanContext(random.generate_trace_id(), random.generate_span_id(), is_remote=True)
        return _attached(NonRecordingSpan(context))

    def told(self, host: str, port: int) -> bool:
        return self.context is not None and self._telemetry.tells(host, port)


class Telemetry:
    """A `circuit.tracing.Tracer` over `provider`. Spans hold what was said where `content` allows it; the servers in
    `hosts` (`api.example.com`, `*.example.com`, `host:8443`, `*`) hear in which trace they are asked. `caller` is the
    `traceparent` of whoever started this process. With `measures`, figures are taken of spans; without a `provider`
    there is nothing else."""

    def __init__(
        self,
        provider: trace.TracerProvider | None,
        *,
        measures: Measures | None = None,
        content: bool = False,
        hosts: Collection[str] = (),
        caller: str | None = None,
        redactor: Redactor | None = None,
        version: str = "",
    ) -> None:
        self.content = content
        self.redactor = redactor or Redactor()
        self.measures = measures
        self._hosts = tuple(host.lower() for host in hosts)
        self._caller = Context.parse(caller)
        self._provider = provider
        self._tracer: Any = (provider or trace.NoOpTracerProvider()).get_tracer(SCOPE, version)
        # The spans of cases have ids that are known before. A provider that is not the SDK's has none of them.
        self._named = isinstance(provider, TracerProvider)
        if self._named and not isinstance(self._tracer.id_generator, Ids):
            self._tracer.id_generator = Ids(self._tracer.id_generator)

    @classmethod
    def open(
        cls,
        exporter: str | None,
        version: str,
        provider: trace.TracerProvider | None = None,
        *,
        measured: str | None = None,
        **options: Any,
    ) -> Telemetry:
        """Spans go to `provider`, or where those of this program go already, if it has a provider of the SDK. Else it
        gets one, which sends them (`otlp`, as OpenTelemetry's variables say) or prints them (`console`). So do figures,
        `measured`. What has no exporter is not made."""
        resource = _resource(version)
        if measured is not None:
            options["measures"] = Measures.open(measured, resource, SCOPE, version)
        if provider is not None or exporter is None:
            return cls(provider, version=version, **options)
        found = trace.get_tracer_provider()
        if isinstance(found, TracerProvider):
            return cls(found, version=version, **options)
        # At the end of the process nothing waits for a collector: `close` has done so.
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        if exporter == "console":
            provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=sys.stderr)))
        else:
            provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
        return cls(provider, version=version, **options)

    def begin(
        self,
        name: str,
        attributes: Attributes,
        *,
        parent: Context | None,
        kind: Kind = Kind.INTERNAL,
        links: Sequence[Context] = (),
        at: datetime | None = None,
    ) -> TracedSpan:
        above = self._above(parent)
        if above is None:
            assert parent is not None
            dropped = SpanContext(parent.trace, parent.span, is_remote=True, trace_flags=TraceFlags(0))
            return TracedSpan(self, NonRecordingSpan(dropped), attributes)
        return self.started(name, attributes, above, kind, links, at)

    def note(
        self,
        name: str,
        attributes: Attributes,
        *,
        parent: Context | None,
        began: datetime,
        ended: datetime,
        links: Sequence[Context] = (),
        own: Context | None = None,
        error: str = "",
    ) -> None:
        if self.measures is not None and OPERATION in attributes:
            self.measures.record((ended - began).total_seconds(), attributes, error)
        above = self._above(parent)
        if above is None or (own is not None and not self._named):
            return
        token = _wanted.set(own)
        try:
            span = self._tracer.start_span(
                name, above, attributes=dict(attributes), links=_links(links), start_time=_nanoseconds(began)
            )
        finally:
            _wanted.reset(token)
        if error:
            span.set_attribute("error.type", error)
            span.set_status(Status(StatusCode.ERROR))
        span.end(_nanoseconds(ended))

    def caller(self) -> str | None:
        span = current()
        if span is not None and span.context is not None:
            return span.context.text
        found = trace.get_current_span().get_span_context()
        if found.is_valid:
            return _context(found).text
        return None if self._caller is None else self._caller.text

    async def close(self) -> None:
        provider, measures = self._provider, self.measures
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def send() -> None:
            if isinstance(provider, TracerProvider):
                provider.force_flush()
            if measures is not None:
                measures.flush()
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(done.set)

        # A thread that the end of the process does not wait for.
        threading.Thread(target=send, name="circuit-telemetry", daemon=True).start()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await done.wait()
        except TimeoutError:
            logger.warning(
                "the collector did not take the last spans and figures within %g s: they are lost", CLOSE_SECONDS
            )

    # What spans ask for

    def started(
        self,
        name: str,
        attributes: Attributes,
        above: contexts.Context,
        kind: Kind,
        links: Sequence[Context] = (),
        at: datetime | None = None,
    ) -> TracedSpan:
        """A span that begins now, or `at`, in the context `above`."""
        start = None if at is None else _nanoseconds(at)
        span = self._tracer.start_span(
            name, above, _KINDS[kind], attributes=dict(attributes), links=_links(links), start_time=start
        )
        return TracedSpan(self, span, attributes)

    def tells(self, host: str, port: int) -> bool:
        """Whether this server may hear in which trace it is asked."""
        name = host.lower()
        for one in self._hosts:
            if one in ("*", name, f"{name}:{port}") or (one.startswith("*.") and name.endswith(one[1:])):
                return True
        return False

    def _above(self, parent: Context | None) -> contexts.Context | None:
        """The context of a span below `parent`, or None where the trace is not kept."""
        if parent is None or (self._provider is None and parent.sampled is None):
            return contexts.Context()
        sampled = parent.sampled
        if sampled is None:
            # Every worker decides the same of one trace, for the sampler goes by the trace's id.
            sampled = self._keeps(parent.trace)
        if not sampled:
            return None
        flags = TraceFlags(TraceFlags.SAMPLED)
        remote = SpanContext(parent.trace, parent.span, is_remote=True, trace_flags=flags)
        return trace.set_span_in_context(NonRecordingSpan(remote), contexts.Context())

    def _keeps(self, number: int) -> bool:
        sampler = getattr(self._tracer, "sampler", None)
        return sampler is None or sampler.should_sample(contexts.Context(), number, SCOPE).decision.is_sampled()


@contextmanager
def _attached(span: trace.Span) -> Generator[None]:
    token = contexts.attach(trace.set_span_in_context(span))
    try:
        yield
    finally:
        contexts.detach(token)


def _resource(version: str) -> Resource:
    """What this process is. The variables of OpenTelemetry count before what is said here."""
    names: dict[str, str | int] = {
        SERVICE_NAME: "circuit",
        SERVICE_VERSION: version,
        HOST_NAME: socket.gethostname(),
        PROCESS_PID: os.getpid(),
    }
    resource = Resource(names).merge(Resource.create({}))
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "circuit"}))
    return resource


def _context(found: SpanContext) -> Context:
    return Context(found.trace_id, found.span_id, found.trace_flags.sampled)


def _links(links: Sequence[Context]) -> list[Link]:
    return [
        Link(SpanContext(one.trace, one.span, is_remote=True, trace_flags=TraceFlags(int(bool(one.sampled)))))
        for one in links
    ]


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1_000
