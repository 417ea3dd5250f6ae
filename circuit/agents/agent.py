"""One run of an agent: its capabilities come to an answer, which is then read as its structured output.

Answers are journalled when they are whole and before anything is made of them, so that after a crash no request is sent
for an answer that is there. An answer that is no output gets one round to be mended; one that is of no use then fails
the attempt, and another attempt has another journal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from circuit.agents.answer import Answer, Voice
from circuit.agents.interceptor import Interceptor
from circuit.agents.output import interpret
from circuit.agents.ports import Journal
from circuit.agents.run import AgentResult, AgentRun, Capability
from circuit.agents.session import Session
from circuit.agents.strategies.chain_of_thought import ChainOfThought
from circuit.agents.strategies.direct import MOST_TURNS, Direct
from circuit.agents.strategies.react import React
from circuit.agents.strategies.self_reflection import ROUNDS, THRESHOLD, SelfReflection
from circuit.agents.strategies.strategy import Strategy
from circuit.agents.template import versions_of
from circuit.agents.tools import Tool
from circuit.errors import InvalidOutput, OutputImpossible, ToolsMisconfigured
from circuit.events import StreamDelta, StreamType
from circuit.net.contradiction import contradiction
from circuit.providers.genai import provider_name, usage_of
from circuit.providers.messages import Message, Role
from circuit.providers.provider import Provider
from circuit.providers.wire import arguments_of
from circuit.tracing import Value, piece

ANSWER_STEP = "answer:0"


def strategy_of(capabilities: Sequence[Capability]) -> Strategy:
    """The strategy that `capabilities` come to; none are `direct`."""
    options = {capability.name: capability.options for capability in capabilities}
    plain = options.get("direct", {})
    strategy: Strategy = Direct(plain.get("max_turns", MOST_TURNS))
    if "react" in options:
        strategy = React(options["react"].get("max_turns", MOST_TURNS))
    if "chain_of_thought" in options:
        strategy = ChainOfThought(strategy)
    if "self_reflection" in options:
        given = options["self_reflection"]
        strategy = SelfReflection(
            strategy,
            given.get("confidence_threshold", THRESHOLD),
            given.get("max_rounds", ROUNDS),
            tuple(given.get("criteria", ())),
        )
    return strategy


async def run_agent(
    run: AgentRun,
    provider: Provider,
    journal: Journal,
    fault: Callable[[str], None] = lambda _: None,
    *,
    tools: Mapping[str, Tool] | None = None,
    interceptors: Sequence[Interceptor] = (),
) -> AgentResult:
    """Perform `run`, a piece of what goes on here. `fault` is called at the named crash points.

    Raises `ProviderError` where there is no answer, `InvalidOutput`, `OutputTruncated`, `ContentFiltered` or
    `ModelRefusal` where the answer is of no use, `AgentError` where the agent does not come to one.
    """
    with piece(f"invoke_agent {run.agent_name or run.agent_id}".strip(), _named(run)) as span:
        result = await _run(run, provider, journal, fault, tools or {}, interceptors)
        if span is not None:
            span.set(usage_of(result.usage))
            span.set({"gen_ai.response.finish_reasons": [result.answer.finish]})
            if result.successor is not None:
                span.set({"circuit.handed_over_to": result.successor.agent})
    return result


async def _run(
    run: AgentRun,
    provider: Provider,
    journal: Journal,
    fault: Callable[[str], None],
    tools: Mapping[str, Tool],
    interceptors: Sequence[Interceptor],
) -> AgentResult:
    clash = sorted({function.name for function in run.functions} & set(tools))
    if clash:
        raise ToolsMisconfigured(
            f"the agent has tools of its own called {', '.join(clash)}: name the others differently"
        )
    session = Session(run, provider, journal, tools, interceptors, fault)
    reasoning: dict[str, Any] = {}
    answer = await strategy_of(run.capabilities).answer(session, Voice(journal), reasoning)
    calls = session.handed_out(answer)
    if calls:
        for call in calls:
            told = {"toolName": call.name, "callId": call.id, "arguments": arguments_of(call)}
            await journal.emit(StreamDelta(StreamType.TOOL_CALL, told))
        return AgentResult(answer, None, session.usage, session.cost, reasoning, tuple(session.messages), calls)
    output = None
    if session.successor is None:
        answer, output = await _output(session, answer)
        session.keep(answer)
    if run.capabilities:
        reasoning["templates"] = versions_of(session.texts, run.templates)
    return AgentResult(
        answer,
        output,
        session.usage,
        session.cost,
        reasoning,
        tuple(session.messages),
        said=tuple(session.said),
        recap=session.recap,
        successor=session.successor,
        speakers=(run.agent_id,) * len(session.said),
    )


def _named(run: AgentRun) -> dict[str, Value]:
    """The run in the words of OpenTelemetry's conventions."""
    named: dict[str, Value] = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": provider_name(run.choices[0].provider),
        "gen_ai.request.model": run.model,
        "gen_ai.agent.id": run.agent_id,
        "gen_ai.agent.name": run.agent_name or run.agent_id,
        "gen_ai.output.type": "text" if run.output_schema is None else "json",
        "circuit.execution.id": run.execution_id,
        "circuit.attempt": run.attempt,
    }
    if run.conversation:
        named["gen_ai.conversation.id"] = run.conversation
    return named


async def _output(session: Session, answer: Answer) -> tuple[Answer, Any]:
    schema = session.run.output_schema
    try:
        return answer, interpret(answer.text, answer.finish, schema)
    except InvalidOutput as error:
        if schema is None:
            raise
        fault = error
    if why := contradiction(schema):
        raise OutputImpossible(f"nothing satisfies the output_schema of {session.run.agent_id}: {why}")
    asked = Message.text(Role.USER, session.text("repair", fault=fault.message[:2_000]))
    voice = Voice(session.journal, "repair")
    mended = await session.ask(asked, voice=voice, schema=schema)
    output = interpret(mended.text, mended.finish, schema)
    # The readers heard the answer that could not be used: what counts is said anew.
    await session.journal.emit(StreamDelta.restarted("the answer did not fit its schema and was mended"))
    await Voice(session.journal).again(mended.text)
    return mended, output
