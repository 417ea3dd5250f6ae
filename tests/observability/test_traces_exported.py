"""Traces as they leave real processes: over OTLP to a collector, from a server, a worker and a command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from circuit.app.tracing import tracing
from circuit.errors import InvalidRequest
from circuit.settings import Settings
from tests.cli.commanding import PROCESS_SECONDS as SECONDS
from tests.cli.commanding import Command, Spawn, environment, scripted_workflow
from tests.cli.conftest import process as process
from tests.cli.conftest import spawned as spawned
from tests.eventually import eventually
from tests.observability.collector import Collector

START = 'mutation { startCase(workflowId: "story", token: {data: {}}) { caseId } }'


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    yield found
    found.close()


async def test_one_trace_from_two_processes_and_one_from_a_command(
    collector: Collector, spawned: Spawn, process: Command, database_url: str, tmp_path: Path
) -> None:
    variables = {
        "CIRCUIT_DATABASE_URL": database_url,
        "CIRCUIT_TRACING": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=open",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "NO_PROXY": "127.0.0.1",
    }
    theirs = f"{0xABC:032x}"
    done = process(
        "run", scripted_workflow(tmp_path), **variables, TRACEPARENT=f"00-{theirs}-{7:016x}-01", OTEL_SERVICE_NAME="ran"
    )
    assert done.code == 0, done.err
    # The command has sent all it had before it ended.
    assert {span.name for span in collector.spans} == {
        "invoke_workflow story",
        "fire write",
        "invoke_agent writer",
        "chat script",
    }
    assert {span.trace for span in collector.spans} == {theirs}
    assert collector.named("invoke_workflow story")[0].parent == f"{7:016x}"
    assert {span.process.split()[0] for span in collector.spans} == {"ran"}
    assert {headers.get("x-key") for headers in collector.headers} == {"open"}

    collector.spans.clear()
    # What the server itself was started in is nobody's trace.
    server = spawned("serve", "--port", "0", "--workers", "1", **variables, TRACEPARENT=f"00-{theirs}-{7:016x}-01")
    url = server.read_until(b"circuit serve is ready at").split()[-1].decode()
    asked = f"{0xDEF:032x}"
    async with httpx.AsyncClient(timeout=SECONDS) as client:
        sent: dict[str, Any] = {"json": {"query": START}, "headers": {"traceparent": f"00-{asked}-{9:016x}-01"}}
        answer = (await client.post(f"{url}/graphql", **sent)).json()
        assert answer["data"], answer
        await client.get(f"{url}/health")
        await eventually(lambda: len(collector.spans) == 5, within=SECONDS, what="five spans")
        [request], [whole] = collector.named("POST /graphql"), collector.named("invoke_workflow story")
        assert request.parent == f"{9:016x}" and whole.parent == request.span
        assert request.attributes["http.response.status_code"] == 200
        assert {span.trace for span in collector.spans} == {asked}
        [fired] = collector.named("fire write")
        assert fired.parent == whole.span and fired.process != request.process
        assert fired.attributes["circuit.case.id"] == answer["data"]["startCase"]["caseId"]
        # Without a trace of theirs the request begins one.
        collector.spans.clear()
        await client.post(f"{url}/graphql", json={"query": "{ __typename }"})
        await eventually(lambda: collector.spans, within=SECONDS)
    [alone] = collector.spans
    assert not alone.parent and alone.trace not in (asked, theirs)


@pytest.mark.parametrize("what", ["CIRCUIT_TRACING", "CIRCUIT_METRICS"])
def test_a_collector_that_is_away_stops_nobody(what: str, process: Command, database_url: str, tmp_path: Path) -> None:
    away = {what: "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    done = process(
        "run",
        scripted_workflow(tmp_path),
        CIRCUIT_DATABASE_URL=database_url,
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
        CIRCUIT_LOG_FORMAT="json",
        **away,
    )
    assert done.code == 0 and "completed" in done.out
    lines = [orjson.loads(line) for line in done.err.splitlines() if line.startswith("{")]
    assert any(line["logger"].startswith("opentelemetry.") for line in lines), done.err
    assert "Traceback" not in done.err, done.err


def test_nothing_of_it_is_imported_where_it_is_not_asked_for() -> None:
    loads = "import sys, circuit.app, circuit.app.serving, circuit.cli.main; print('opentelemetry' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", loads], env=environment({}), capture_output=True, text=True, check=True, timeout=SECONDS
    )
    assert done.stdout.strip() == "False"


def test_who_lacks_the_library_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "circuit.observability.telemetry", None)
    with pytest.raises(InvalidRequest, match=r"pip install 'circuit-engine\[otel\]'"):
        tracing(Settings.from_environment({"CIRCUIT_TRACING": "true"}))


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL must be one of http/protobuf"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER must be one of otlp, console, none"),
        ({"CIRCUIT_METRICS": "true", "OTEL_METRICS_EXPORTER": "prometheus"}, "OTEL_METRICS_EXPORTER must be one of"),
        (
            {"CIRCUIT_METRICS": "true", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL must be one of http/protobuf",
        ),
        ({"CIRCUIT_TRACING": "perhaps"}, "CIRCUIT_TRACING must be one of true, false"),
    ],
)
def test_what_cannot_be_is_refused(variables: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        Settings.from_environment({"CIRCUIT_TRACING": "true", **variables})


@pytest.mark.parametrize(
    ("variables", "exporter"),
    [
        ({}, None),
        ({"CIRCUIT_TRACING": "true"}, "otlp"),
        ({"CIRCUIT_TRACING": "true", "OTEL_SDK_DISABLED": "true"}, None),
        ({"CIRCUIT_TRACING": "true", "OTEL_TRACES_EXPORTER": "none"}, None),
        ({"CIRCUIT_TRACING": "true", "OTEL_TRACES_EXPORTER": "console"}, "console"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, None),
    ],
)
def test_what_the_variables_come_to(variables: dict[str, str], exporter: str | None) -> None:
    assert Settings.from_environment(variables).tracing == exporter
