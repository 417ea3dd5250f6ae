"""A collector: takes spans and figures over OTLP/HTTP on a port of this machine."""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, slots=True)
class Received:
    """A span as it came, with the process that sent it."""

    name: str
    trace: str
    span: str
    parent: str
    process: str
    attributes: dict[str, Any]
    links: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """A figure as it came: how many were counted, their sum, and what they are of."""

    name: str
    unit: str
    count: int
    total: float
    bounds: tuple[float, ...]
    attributes: dict[str, Any]


class Collector:
    """Keeps the spans and figures that it is sent, and the headers that they came with. Of figures, which are sent
    again and again, it keeps the last ones."""

    def __init__(self) -> None:
        self.spans: list[Received] = []
        self.points: list[Point] = []
        self.headers: list[dict[str, str]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if self.path == "/v1/metrics":
                    collector.measure(ExportMetricsServiceRequest.FromString(body), dict(self.headers))
                else:
                    assert self.path == "/v1/traces"
                    collector.take(ExportTraceServiceRequest.FromString(body), dict(self.headers))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                return None

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def take(self, request: ExportTraceServiceRequest, headers: dict[str, str]) -> None:
        self.headers.append(headers)
        for resource in request.resource_spans:
            about = {one.key: one.value.string_value or one.value.int_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        Received(
                            span.name,
                            span.trace_id.hex(),
                            span.span_id.hex(),
                            span.parent_span_id.hex(),
                            f"{about['service.name']} {about['host.name']} {about['process.pid']}",
                            {
                                one.key: one.value.string_value or one.value.int_value or one.value.bool_value
                                for one in span.attributes
                            },
                            tuple(link.span_id.hex() for link in span.links),
                        )
                    )

    def measure(self, request: ExportMetricsServiceRequest, headers: dict[str, str]) -> None:
        self.headers.append(headers)
        metrics = [one for about in request.resource_metrics for scope in about.scope_metrics for one in scope.metrics]
        self.points = [
            Point(
                metric.name,
                metric.unit,
                point.count,
                point.sum,
                tuple(point.explicit_bounds),
                {one.key: one.value.string_value or one.value.int_value for one in point.attributes},
            )
            for metric in metrics
            for point in metric.histogram.data_points
        ]

    def named(self, name: str) -> list[Received]:
        return [span for span in list(self.spans) if span.name == name]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
