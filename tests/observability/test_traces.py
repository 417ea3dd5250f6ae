"""What is said of cases to OpenTelemetry: the real SDK, with the spans kept in memory."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis.strategies import floats, uuids
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import StatusCode

from circuit import Circuit, action
from circuit.http import Http
from circuit.observability.logs import AboutFilter, JSONFormatter
from circuit.observability.telemetry import Telemetry
from circuit.settings import Settings
from circuit.tracing import Context, context_of, entered
from tests.observability.traced import Meters, Traces

CHILD = """
workflow: credit
places: {asked: {initial: true}, good: {terminal: true}}
transitions: {pass: {from_places: asked, to_place: good}}
"""
PARENT = """
workflow: order
places: {open: {initial: true}, researched: {}, checked: {}, done: {terminal: true}}
agents:
  researcher:
    name: Researcher
    llm_provider:
      type: scripted
      model: gpt-test
      responses: [[{tool_calls: [{name: look, arguments: {word: sk-secret123}}]}, "Seen with sk-secret456."]]
    llm_config: {temperature: 0.5, max_tokens: 100}
    prompts: {system: You look., user_template: "Look at {word}"}
    capabilities: [react]
    tools: [look]
transitions:
  research:
    from_places: open
    to_place: researched
    agent_execution: {agent_id: researcher, input_mapping: {word: data.word}, output_mapping: {data.text: text}}
  check:
    from_places: researched
    to_place: checked
    action: {type: subworkflow, workflow: credit, input_mapping: {text: data.text}}
  close: {from_places: checked, to_place: done}
"""


async def look(word: str) -> str:
    """Look at a word."""
    with trace.get_tracer_provider().get_tracer("own").start_as_current_span("own"):
        return f"{word} with sk-other789"


async def run(database_url: str, traces: Traces, **options: Any) -> str:
    """The id of a case of `order` that has run to its end."""
    async with Circuit.open(database_url, tools=[look], tracer_provider=traces.provider, **options) as circuit:
        await circuit.load(CHILD)
        await circuit.load(PARENT)
        case = await circuit.start("order", {"word": "prompt-words"})
        view = await circuit.wait(case)
        assert view.status == "completed"
        assert {f"{span.context.trace_id:032x}" for span in traces.spans} <= {view.as_dict()["trace_id"]}
    return case


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_case_is_one_trace_from_the_net_to_the_tool(database_url: str) -> None:
    traces = Traces()
    case = await run(database_url, traces)
    assert (
        traces.tree()
        == """\
invoke_workflow order
  fire research
    invoke_agent Researcher
      chat gpt-test
      execute_tool look
      chat gpt-test
  fire check
    invoke_workflow credit
      fire pass
  fire check
  fire close
"""
    )
    assert len({span.context.trace_id for span in traces.spans}) == 1
    [agent] = traces.named("invoke_agent Researcher")
    said = attributes(agent)
    assert said["gen_ai.operation.name"] == "invoke_agent" and said["gen_ai.agent.id"] == "researcher"
    assert said["circuit.execution.id"] == f"{case}.1" and said["gen_ai.usage.output_tokens"] > 0
    first, second = traces.named("chat gpt-test")
    said = attributes(first)
    assert first.kind is trace.SpanKind.CLIENT
    assert {name: said[name] for name in said if name.startswith("gen_ai.request")} == {
        "gen_ai.request.model": "gpt-test",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 100,
        "gen_ai.request.stream": True,
    }
    assert said["gen_ai.provider.name"] == "scripted" and said["gen_ai.response.finish_reasons"] == ("tool_calls",)
    assert attributes(second)["gen_ai.response.finish_reasons"] == ("stop",)
    [tool] = traces.named("execute_tool look")
    assert attributes(tool)["gen_ai.tool.name"] == "look" and attributes(tool)["gen_ai.tool.call.id"]
    opened, told = traces.named("fire check")
    assert [attributes(one)["circuit.outcome"] for one in (opened, told)] == ["suspended", "completed"]
    assert [attributes(one)["circuit.start"] for one in (opened, told)] == [1, 2]
    assert attributes(told)["circuit.reason"] == "woken"
    [whole] = traces.named("invoke_workflow order")
    assert attributes(whole)["circuit.status"] == "completed" and whole.status.status_code is StatusCode.UNSET
    # Nothing that was said stands in any of them.
    text = "".join(span.to_json() for span in traces.spans)
    assert "prompt-words" not in text and "Seen" not in text and "You look" not in text


async def test_what_was_said_stands_in_spans_where_that_is_asked_for_and_no_key_does(database_url: str) -> None:
    traces = Traces()
    capture = {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY"}
    await run(database_url, traces, settings=Settings.from_environment(capture))
    second = attributes(traces.named("chat gpt-test")[1])
    told = orjson.loads(second["gen_ai.input.messages"])
    assert [message["role"] for message in told] == ["user", "assistant", "tool"]
    assert told[0]["parts"][0]["content"] == "Look at prompt-words"
    assert told[2]["parts"][0]["response"] == "*** with ***"
    assert orjson.loads(second["gen_ai.system_instructions"])[0]["content"].startswith("You look.")
    assert orjson.loads(second["gen_ai.output.messages"])[0]["parts"][0]["content"] == "Seen with ***"
    tool = attributes(traces.named("execute_tool look")[0])
    assert tool["gen_ai.tool.call.arguments"] == '{"word":"***"}' and tool["gen_ai.tool.call.result"] == "*** with ***"
    assert "sk-" not in "".join(span.to_json() for span in traces.spans)


TROUBLED = """
workflow: troubled
places: {open: {initial: true}, told: {}, done: {terminal: true}}
agents:
  writer:
    llm_provider: {type: scripted, model: first, responses: [{error: rate_limit}]}
    fallback:
      - {type: scripted, model: second, responses: [{error: unavailable, text: "Half of"}, "Whole."]}
    prompts: {system: You write., user_template: "Write"}
transitions:
  write:
    from_places: open
    to_place: told
    agent_execution:
      agent_id: writer
      output_mapping: {data.text: text}
      retry_config: {max_attempts: 2, backoff_seconds: 0.01, retry_on_errors: [unavailable]}
  fail: {from_places: told, to_place: done, action: {type: function, name: explode}}
"""


def explode() -> None:
    raise RuntimeError("it is broken")


async def test_errors_retries_and_incidents_are_said_with_their_codes(database_url: str) -> None:
    traces = Traces()
    actions = [action(explode)]
    async with Circuit.open(database_url, tracer_provider=traces.provider, actions=actions) as circuit:
        await circuit.load(TROUBLED)
        case = await circuit.start("troubled")
        assert (await circuit.wait(case)).status == "attention"
        assert not traces.named("invoke_workflow troubled"), "it has not ended"
        await circuit.cancel(case)
        await circuit.wait(case)
    assert (
        traces.tree()
        == """\
invoke_workflow troubled
  fire write
    invoke_agent writer
      chat first
      chat second
  fire write
    invoke_agent writer
      chat first
      chat second
  fire fail
  incident fail
"""
    )
    failed = [(span.name, attributes(span).get("error.type")) for span in traces.spans]
    assert failed == [
        ("chat first", "rate_limit"),
        ("chat second", "unavailable"),
        ("invoke_agent writer", "unavailable"),
        ("fire write", "unavailable"),
        ("chat first", "rate_limit"),
        ("chat second", None),
        ("invoke_agent writer", None),
        ("fire write", None),
        ("fire fail", "action_failed"),
        ("incident fail", "action_failed"),
        ("invoke_workflow troubled", None),
    ]
    ended = [span.status.status_code is StatusCode.ERROR for span in traces.spans]
    assert ended == [code is not None for _, code in failed]
    starts = [attributes(span) for span in traces.named("fire write")]
    found = [(one["circuit.attempt"], one["circuit.start"], one["circuit.reason"]) for one in starts]
    assert found == [(1, 1, "first"), (2, 2, "retry")]
    assert "it is broken" not in "".join(span.to_json() for span in traces.spans)


REFUSED = """
workflow: refused
places: {open: {initial: true}, done: {terminal: true}}
agents:
  caller:
    llm_provider:
      type: scripted
      model: gpt-test
      responses:
        - - tool_calls:
              - {name: made_up_by_a_model, arguments: {word: a}}
              - {name: look, arguments: {words: sk-secret123}}
              - {name: look, arguments: {word: b}}
              - {name: look, arguments: {word: c}}
          - Seen.
    prompts: {user_template: Look}
    capabilities: [react]
    tools: [look]
    policies: [{limit: look, to: 1}]
transitions: {ask: {from_places: open, to_place: done, agent_execution: {agent_id: caller}}}
"""


async def test_a_call_that_is_refused_has_a_span_with_the_code(database_url: str) -> None:
    traces, meters = Traces(), Meters()
    settings = Settings.from_environment({"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY"})
    async with Circuit.open(
        database_url, tools=[look], tracer_provider=traces.provider, meter_provider=meters.provider, settings=settings
    ) as circuit:
        await circuit.load(REFUSED)
        assert (await circuit.wait(await circuit.start("refused"))).status == "completed"
    calls = [attributes(span) for span in traces.spans if span.name.startswith("execute_tool")]
    told = sorted(
        (one.get("gen_ai.tool.name", ""), one.get("error.type", ""), one["gen_ai.tool.call.arguments"]) for one in calls
    )
    assert told == [
        ("", "tool_unknown", '{"word":"a"}'),
        ("look", "", '{"word":"b"}'),
        ("look", "tool_arguments", '{"words":"***"}'),
        ("look", "tool_denied", '{"word":"c"}'),
    ]
    assert len({one["gen_ai.tool.call.id"] for one in calls}) == 4
    assert all("made_up" not in span.name for span in traces.spans), "names of spans are few"
    counted = meters.counts("gen_ai.execute_tool.duration", "gen_ai.tool.name", "error.type")
    assert counted == {
        (None, "tool_unknown"): 1,
        ("look", None): 1,
        ("look", "tool_arguments"): 1,
        ("look", "tool_denied"): 1,
    }


async def test_what_a_resumed_run_does_not_do_again_makes_no_span(database_url: str) -> None:
    """The worker is lost while a tool runs: another one goes on with the answer that is in the journal."""
    traces = Traces()
    reached = asyncio.Event()

    async def slow(word: str) -> str:
        """Look at a word."""
        reached.set()
        await asyncio.Event().wait()
        return word

    slow.__name__ = "look"
    opened = Circuit.open(database_url, tools=[slow], tracer_provider=traces.provider, stop_seconds=0)
    async with opened as circuit:
        await circuit.load(CHILD)
        await circuit.load(PARENT)
        case = await circuit.start("order", {"word": "x"})
        await reached.wait()
    async with Circuit.open(database_url, tools=[look], tracer_provider=traces.provider) as circuit:
        await circuit.wait(case)
    assert (
        traces.tree().partition("  fire check")[0]
        == """\
invoke_workflow order
  fire research
    invoke_agent Researcher
      chat gpt-test
      execute_tool look
  fire research
    invoke_agent Researcher
      execute_tool look
      chat gpt-test
"""
    )
    first, second = (attributes(span) for span in traces.named("fire research"))
    assert (first["circuit.outcome"], second["circuit.outcome"]) == ("cancelled", "completed")
    assert (second["circuit.start"], second["circuit.attempt"], second["circuit.reason"]) == (2, 1, "resumed")
    assert first["circuit.worker.id"] != second["circuit.worker.id"]


WAITING = """
workflow: waiting
places: {open: {initial: true}, asked: {}, done: {terminal: true}}
transitions:
  ask: {from_places: open, to_place: asked, trigger: {type: manual}}
  hear: {from_places: asked, to_place: done, trigger: {type: message, message: word}}
"""


async def test_a_case_is_in_the_trace_of_who_starts_it_and_linked_to_who_asks_more_of_it(database_url: str) -> None:
    traces = Traces()
    own = traces.provider.get_tracer("own")
    async with Circuit.open(database_url, tracer_provider=traces.provider) as circuit:
        await circuit.load(WAITING)
        with own.start_as_current_span("starter"):
            case = await circuit.start("waiting")
        await circuit.wait(case)
        with own.start_as_current_span("asker"):
            await circuit.fire(case, "ask")
        with own.start_as_current_span("sender"):
            await circuit.send("word")
        view = await circuit.wait(case)
        assert view.status == "completed"
    assert view.as_dict()["trace_id"] == f"{traces.named('starter')[0].context.trace_id:032x}"
    assert (
        traces.tree()
        == """\
starter
  invoke_workflow waiting
    fire ask
    fire hear
asker
sender
"""
    )
    for fired, caller in (("fire ask", "asker"), ("fire hear", "sender")):
        [link] = traces.named(fired)[0].links
        assert link.context.span_id == traces.named(caller)[0].context.span_id


@given(case=uuids(), ratio=floats(0, 1))
def test_every_worker_decides_the_same_of_a_case(case: UUID, ratio: float) -> None:
    traces = Traces(ParentBased(TraceIdRatioBased(ratio)))
    telemetry = Telemetry(traces.provider)
    context, now = context_of(case, None), datetime.now(UTC)
    span = telemetry.begin("fire x", {}, parent=context)
    span.child("invoke_agent x", {}).end()
    span.end()
    telemetry.note("invoke_workflow x", {}, parent=None, began=now, ended=now, own=context)
    kept = [span.name for span in traces.spans]
    assert kept in ([], ["invoke_agent x", "fire x", "invoke_workflow x"])
    assert span.context.sampled is bool(kept) and span.context.trace == context.trace
    if kept:
        _, below, whole = traces.spans
        assert below.parent is not None and below.parent.span_id == whole.context.span_id == context.span


async def test_who_is_not_sampled_is_not_traced_nor_are_the_cases_that_his_opens(database_url: str) -> None:
    traces = Traces()
    settings = Settings.from_environment({"TRACEPARENT": f"00-{1:032x}-{2:016x}-00"})
    await run(database_url, traces, settings=settings)
    assert not traces.spans


def test_logs_name_the_trace() -> None:
    span = Telemetry(Traces().provider).begin("fire x", {}, parent=None)
    record = logging.LogRecord("circuit", logging.INFO, "file", 1, "said", (), None)
    with entered(span):
        AboutFilter().filter(record)
    line = orjson.loads(JSONFormatter().format(record))
    assert (int(line["trace_id"], 16), int(line["span_id"], 16)) == span.context[:2]


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "00",
        f"00-{0:032x}-{2:016x}-01",
        f"00-{1:032x}-{0:016x}-01",
        f"ff-{1:032x}-{2:016x}-01",
        f"00-{1:032x}-{2:016x}-01-more",
        f"00-{1:032x}-{2:016x}",
        f"00-{'G' * 32}-{2:016x}-01",
        f"01-{1:032x}-{2:016x}-01-{'x' * 300}",
    ],
)
def test_what_is_no_traceparent_is_none(text: str | None) -> None:
    assert Context.parse(text) is None


def test_a_traceparent_is_read_as_it_is_written() -> None:
    for sampled in (True, False):
        context = Context(7, 9, sampled)
        assert Context.parse(context.text) == context
    assert Context.parse(f"01-{7:032x}-{9:016x}-03-later") == Context(7, 9, True)


async def test_only_named_servers_hear_in_which_trace_they_are_asked() -> None:
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    http = Http()
    try:
        for hosts in ((), ("127.0.0.1",), (f"127.0.0.1:{port}",), ("127.0.0.1:1", "*.example.com"), ("*",)):
            span = Telemetry(Traces().provider, hosts=hosts).begin("fire x", {}, parent=None)
            with entered(span):
                await http.fetch("GET", f"http://127.0.0.1:{port}/", address="127.0.0.1", limit=10)
            told = f"traceparent: {span.context.text}".encode() in heard[-1].lower()
            assert told is (hosts not in ((), ("127.0.0.1:1", "*.example.com"))), hosts
        with entered(span):
            given = {"traceparent": "their own"}
            await http.fetch("GET", f"http://127.0.0.1:{port}/", address="127.0.0.1", limit=10, headers=given)
        assert heard[-1].lower().count(b"traceparent") == 1 and b"their own" in heard[-1]
    finally:
        await http.aclose()
        server.close()
    assert Telemetry(Traces().provider, hosts=("*.example.com",)).tells("API.example.com", 443)
    assert not Telemetry(Traces().provider, hosts=("*.example.com",)).tells("notexample.com", 443)
