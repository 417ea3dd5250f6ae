"""What is said of cases to OpenTelemetry: the real SDK, with the spans kept in memory."""

from __future__ import annotations

from typing import Any

import orjson
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from circuit import Circuit
from circuit.settings import Settings
from tests.observability.traced import Traces

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
        assert (await circuit.wait(case)).status == "completed"
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
