"""Figures by OpenTelemetry's conventions for generative AI: what is measured, and how it leaves a process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from circuit import Circuit
from tests.cli.commanding import Command, scripted_workflow
from tests.cli.conftest import process as process
from tests.observability.collector import Collector
from tests.observability.test_traces import CHILD, PARENT, TROUBLED, action, explode, look
from tests.observability.test_traces_beyond import find
from tests.observability.traced import Meters, Traces

FINDING = """
workflow: finding
places: {open: {initial: true}, done: {terminal: true}}
transitions: {find: {from_places: open, to_place: done, action: {type: function, name: find}}}
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    yield found
    found.close()


async def test_models_tools_agents_and_cases_are_measured_without_a_trace(database_url: str) -> None:
    meters = Meters()
    async with Circuit.open(
        database_url, tools=[look], actions=[find, action(explode)], meter_provider=meters.provider
    ) as circuit:
        for text in (CHILD, PARENT, FINDING, TROUBLED):
            await circuit.load(text)
        for workflow in ("order", "finding"):
            view = await circuit.wait(await circuit.start(workflow, {"word": "x"}))
            assert view.status == "completed"
        troubled = await circuit.start("troubled")
        assert (await circuit.wait(troubled)).status == "attention"
    calls = meters.counts(
        "gen_ai.client.operation.duration", "gen_ai.operation.name", "gen_ai.request.model", "error.type"
    )
    assert calls == {
        ("chat", "gpt-test", None): 2,
        ("embeddings", "small", None): 1,
        ("chat", "first", "rate_limit"): 2,
        ("chat", "second", "unavailable"): 1,
        ("chat", "second", None): 1,
    }
    assert {
        (point.attributes or {})["gen_ai.provider.name"] for point in meters.points("gen_ai.client.token.usage")
    } == {"scripted"}
    tokens = meters.counts("gen_ai.client.token.usage", "gen_ai.request.model", "gen_ai.token.type")
    assert tokens[("gpt-test", "input")] == tokens[("gpt-test", "output")] == 2
    first = meters.counts(
        "gen_ai.client.operation.time_to_first_chunk", "gen_ai.request.model", "gen_ai.response.model"
    )
    assert first[("gpt-test", "gpt-test")] == 2
    assert meters.counts("gen_ai.execute_tool.duration", "gen_ai.tool.name", "error.type") == {("look", None): 1}
    agents = meters.counts("gen_ai.invoke_agent.duration", "gen_ai.agent.name", "error.type")
    assert agents == {("Researcher", None): 1, ("writer", "unavailable"): 1, ("writer", None): 1}
    cases = meters.counts("gen_ai.workflow.duration", "gen_ai.workflow.name")
    assert cases == {("order",): 1, ("credit",): 1, ("finding",): 1}, "what has not ended has not taken its time"


async def test_what_is_not_kept_of_traces_is_measured_all_the_same(database_url: str) -> None:
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    meters, traces = Meters(), Traces(ALWAYS_OFF)
    async with Circuit.open(
        database_url, actions=[find], tracer_provider=traces.provider, meter_provider=meters.provider
    ) as circuit:
        await circuit.load(FINDING)
        await circuit.wait(await circuit.start("finding", {}))
    assert not traces.spans
    assert meters.counts("gen_ai.client.operation.duration", "gen_ai.operation.name") == {("embeddings",): 1}
    assert meters.counts("gen_ai.workflow.duration", "gen_ai.workflow.name") == {("finding",): 1}


def test_figures_leave_a_process_without_spans(
    collector: Collector, process: Command, database_url: str, tmp_path: Path
) -> None:
    done = process(
        "run",
        scripted_workflow(tmp_path),
        CIRCUIT_DATABASE_URL=database_url,
        CIRCUIT_METRICS="true",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_EXPORTER_OTLP_HEADERS="x-key=open",
        NO_PROXY="127.0.0.1",
    )
    assert done.code == 0, done.err
    assert not collector.spans
    assert {headers.get("x-key") for headers in collector.headers} == {"open"}
    points = {(one.name, one.attributes.get("gen_ai.token.type")): one for one in collector.points}
    assert points.keys() == {
        ("gen_ai.client.operation.duration", None),
        ("gen_ai.client.operation.time_to_first_chunk", None),
        ("gen_ai.client.token.usage", "input"),
        ("gen_ai.client.token.usage", "output"),
        ("gen_ai.invoke_agent.duration", None),
        ("gen_ai.workflow.duration", None),
    }
    call = points["gen_ai.client.operation.duration", None]
    assert (call.unit, call.count, call.bounds[0], call.bounds[-1]) == ("s", 1, 0.01, 81.92) and call.total > 0
    used = points["gen_ai.client.token.usage", "output"]
    assert (used.unit, used.bounds[:3], used.bounds[-1]) == ("{token}", (1, 4, 16), 67_108_864) and used.total >= 1
