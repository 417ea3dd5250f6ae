"""Traces beyond the calls of models that answer: vectors and orders, jobs, servers of the Model Context Protocol."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opentelemetry import trace

from circuit import BlockingContext, Circuit, Context, action
from circuit.agents.tools import ToolContext, call_tool
from circuit.extensions.mcp import open_toolset
from circuit.observability.telemetry import Telemetry
from circuit.settings import Settings
from circuit.tracing import Kind, below
from tests.observability.traced import Traces
from tests.postgres import free_port

PROGRAM = str(Path(__file__).parents[1] / "extensions" / "mcp_servers.py")
AROUND = ToolContext("case.1", "a", "c", "k")
WORKFLOW = f"""
workflow: finding
places: {{open: {{initial: true}}, found: {{}}, sorted: {{}}, done: {{terminal: true}}}}
transitions:
  find: {{from_places: open, to_place: found, action: {{type: function, name: find}}}}
  sort: {{from_places: found, to_place: sorted, action: {{type: function, name: sort}}}}
  work:
    from_places: sorted
    to_place: done
    action:
      type: job
      command: [{sys.executable}, -c, "import os, json; print(json.dumps(dict(told=os.environ['TRACEPARENT'])))"]
      poll_seconds: 0.05
      output_mapping: {{data.told: told}}
"""


@action
async def find(*, ctx: Context) -> dict[str, Any]:
    await ctx.embed("texts", "scripted:small", ["red", "green blue"], dimensions=8)
    return {}


@action
def sort(*, ctx: BlockingContext) -> dict[str, Any]:
    ctx.rerank("order", "scripted:order", "blue", ["red", "green blue"])
    return {}


async def test_vectors_orders_and_jobs_are_in_the_trace_of_their_case(database_url: str, tmp_path: Path) -> None:
    traces = Traces()
    settings = Settings.from_environment({"CIRCUIT_JOBS": "true", "CIRCUIT_HOME": str(tmp_path)})
    options: dict[str, Any] = {"settings": settings, "tracer_provider": traces.provider, "actions": [find, sort]}
    async with Circuit.open(database_url, **options) as circuit:
        await circuit.load(WORKFLOW)
        view = await circuit.wait(await circuit.start("finding", {}))
        assert view.status == "completed", view.incidents
    found = {span.name: span for span in traces.spans}
    made, ordered = found["embeddings small"], found["rerank order"]
    assert made.kind is ordered.kind is trace.SpanKind.CLIENT
    assert dict(made.attributes or {}) == {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "scripted",
        "gen_ai.request.model": "small",
        "gen_ai.response.model": "small",
        "gen_ai.embeddings.dimension.count": 8,
    }
    for span, above in ((made, "fire find"), (ordered, "fire sort")):
        assert span.parent is not None and span.parent.span_id == found[above].context.span_id
    # The job was started by the first start of its firing.
    first = traces.named("fire work")[0].context
    assert view.tokens[0].data["told"] == f"00-{first.trace_id:032x}-{first.span_id:016x}-01"


async def told_by(given: dict[str, Any], hosts: Sequence[str]) -> tuple[str, str, str]:
    """What a server heard in its message and in a header, and the context in which it was asked."""
    telemetry = Telemetry(Traces().provider, hosts=hosts)
    span = telemetry.begin("execute_tool traced", {}, parent=None, kind=Kind.INTERNAL)
    assert span.context is not None
    toolset = open_toolset({"kind": "mcp", "name": "s", **given}, {})
    try:
        tools = {tool.name: tool for tool in await toolset.tools()}
        with below(span):
            said = await call_tool(tools["s.traced"], {}, AROUND)
    finally:
        await toolset.aclose()
    text = said["result"] if isinstance(said, dict) else said
    message, _, header = str(text).partition(" ")
    # The flags may say more than that the trace is kept.
    return message, header, span.context.text.rpartition("-")[0]


async def test_servers_of_tools_hear_in_which_trace_they_are_asked() -> None:
    message, header, asked = await told_by({"command": [sys.executable, PROGRAM, "good"]}, ())
    assert (message.rpartition("-")[0], header) == (asked, "None"), "a process of this machine"
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, PROGRAM, "http", str(port), stderr=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            while b"Uvicorn running" not in await process.stderr.readline():
                assert process.returncode is None
        given = {"url": f"http://127.0.0.1:{port}/mcp"}
        message, header, asked = await told_by(given, (f"127.0.0.1:{port}",))
        assert message == header and message.rpartition("-")[0] == asked
        # Who is not named hears of a trace that nobody knows, and that is not kept.
        message, header, asked = await told_by(given, ("elsewhere.example",))
        assert message == header and message.endswith("-00")
        assert asked.split("-")[1] not in message
        message, header, _ = await told_by({**given, "headers": {"traceparent": "of-their-own"}}, ("127.0.0.1",))
        assert header == "of-their-own"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
