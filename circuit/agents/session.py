"""One run of an agent while it goes on: what was said so far, the model that is asked, the tools that are called.

Every answer of the model and every result of a tool is journalled before anything is made of it. A run that starts
again goes the same way and finds them, so that nothing is asked or done a second time; what it had told its readers it
tells them again. Strategies say what is asked when; this says how.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import orjson

from circuit.agents.answer import Answer, Silence, Voice, hear
from circuit.agents.batch import together
from circuit.agents.interceptor import Interceptor, passed, prepared
from circuit.agents.meter import Meter
from circuit.agents.policy import ApprovalRule, Policies, Record
from circuit.agents.ports import Journal
from circuit.agents.run import AgentRun, HandOver, Recap
from circuit.agents.screening import STEP, decision, tell
from circuit.agents.template import text_of
from circuit.agents.tools import Tool, ToolContext, call_tool, check_arguments, read_arguments
from circuit.agents.window import Past, excerpt, fit, room, transcript
from circuit.errors import (
    CircuitError,
    OutputTruncated,
    ProviderError,
    ToolArgumentsMalformed,
    ToolDenied,
    ToolError,
    ToolLoop,
    ToolUnknown,
)
from circuit.events import StreamDelta, StreamType
from circuit.providers.genai import clean
from circuit.providers.messages import Message, Role, ToolCallPart, ToolResultPart, calls_of
from circuit.providers.provider import ModelChunk, ModelRequest, Provider, ToolSpec, recalled
from circuit.providers.wire import plain_name
from circuit.security.redaction import redact
from circuit.tracing import Span, Value, piece
from circuit.value import dataclass

MOST_CALLS = 64
"""How many calls one answer may make; the others are refused."""
MOST_REPEATS = 5
"""How often the same call with the same arguments may be made in one run."""
DONE = "tool:"
"""Begins the journal's name for what a call gave. It outlives a retry: what was done is not done again."""
REFUSED = "refused:"
"""The same for a call that failed, which a retry may make again."""
CACHED = "the answer to an identical request was taken from the cache"
LONGEST_TRANSCRIPT = 200_000
"""How many bytes of what has to go a summary is made of, where the model holds them."""

APPROVAL_FORM: Mapping[str, Any] = {
    "type": "object",
    "required": ["approved"],
    "properties": {"approved": {"type": "boolean"}, "reason": {"type": "string"}},
}


class Session:
    """`messages` is the conversation, which grows; `said` what of this run a later one should know; `recap` what stands
    for messages of earlier runs that had to go; `successor` who goes on in its place; `texts` which prompts of
    capabilities the model was told."""

    def __init__(
        self,
        run: AgentRun,
        provider: Provider,
        journal: Journal,
        tools: Mapping[str, Tool],
        interceptors: Sequence[Interceptor] = (),
        fault: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.run = run
        self.journal = journal
        self.messages: list[Message] = list(run.messages)
        self.usage: dict[str, Any] = {}
        self.cost: float | None = None
        self.turns = 0
        self.said: list[Message] = []
        self.recap: Recap | None = None
        self.successor: HandOver | None = None
        self.texts: list[str] = []
        self._past = Past.of(run.messages, run.recalled)
        self._provider = provider
        self._tools = tools
        self._policies: Policies = run.policies
        self._interceptors = interceptors
        self._fault = fault
        self._meter = Meter(run, journal)
        self._record = Record()
        self._made: dict[str, int] = {}
        self._stopped = False
        self._over = False

    @property
    def offered(self) -> tuple[ToolSpec, ...]:
        """The tools that the model sees."""
        own = (self._tools[name].spec for name in self._policies.offered(self._tools))
        return (*own, *self.run.functions)

    def handed_out(self, answer: Answer) -> tuple[ToolCallPart, ...]:
        """The calls of `answer` that only whoever asked can make."""
        theirs = {function.name for function in self.run.functions}
        return tuple(call for call in answer.calls if call.name in theirs)

    async def ask(
        self,
        *more: Message,
        voice: Voice | None = None,
        schema: Mapping[str, Any] | None = None,
        tools: bool = False,
        keep: bool = True,
        choice: str = "auto",
    ) -> Answer:
        """What the model says to the conversation and `more`. With `keep`, `more` and the answer become part of it.

        The answer is told with `voice` (as the agent's own by default). Raises `ProviderError` where there is none.
        """
        step = f"answer:{self.turns}"
        turn, self.turns = self.turns, self.turns + 1
        told = voice or Voice(self.journal)
        # Also where the answer is there already: what comes after it begins from the same conversation.
        messages = await self._fitted()
        kept = self.journal.recorded(step)
        if kept is None:
            # Some providers take a conversation with calls only beside the tools that were called.
            offered = self.offered if tools or any(calls_of(one.parts) for one in messages) else ()
            request = self._request((*messages, *more), schema, offered, choice if tools else "none", turn)
            fresh = await self._hear(request, told)
            # What it did cost is settled with this record of it.
            self._fault("after_answer")
            answer = Answer.from_dict(await self.journal.record(step, fresh.as_dict()))
            self._fault("after_journal")
        else:
            answer = Answer.from_dict(kept)
            await told.again(answer.text)
        self._count(answer)
        if keep:
            self.messages += [*more, Message(Role.ASSISTANT, answer.parts)]
        return answer

    async def act(self, answer: Answer) -> None:
        """Make the calls of `answer`; their results become part of the conversation, in the order of the calls."""
        planned: list[_Planned] = []
        for number, call in enumerate(answer.calls):
            leaving = next((name for one in planned if (name := self._leads_to(one))), "")
            cut = answer.finish == "length" and number == len(answer.calls) - 1
            planned.append(await self._planned(call, number, leaving, cut))
        results = await together([partial(self._perform, one) for one in planned])
        for one, result in zip(planned, results, strict=True):
            if not result.failed and (name := self._leads_to(one)):
                self.successor = HandOver(name, str(one.arguments.get("why", "")))
        self.keep(answer)
        made = Message(Role.TOOL, tuple(results))
        self.said.append(made)
        self.messages.append(made)

    def keep(self, answer: Answer) -> None:
        """A later run should know this answer."""
        self.said.append(Message(Role.ASSISTANT, answer.parts))

    def text(self, name: str, **values: str) -> str:
        """The prompt `name` as this agent is told it."""
        self.texts.append(name)
        return text_of(name, self.run.templates, **values)

    def note(self, text: str, role: Role = Role.USER) -> None:
        """Say something in the conversation that no model is asked about yet."""
        self.messages.append(Message.text(role, text))

    def _request(
        self,
        messages: tuple[Message, ...],
        schema: Mapping[str, Any] | None,
        tools: tuple[ToolSpec, ...],
        choice: str,
        turn: int,
    ) -> ModelRequest:
        run = self.run
        return ModelRequest(
            model=run.model,
            messages=messages,
            parameters=run.parameters,
            output_schema=schema,
            schema_name=run.schema_name,
            turn=turn,
            occurrence=run.occurrence,
            attempt=run.attempt,
            tools=tools,
            tool_choice=choice,
        )

    async def _hear(self, request: ModelRequest, voice: Voice) -> Answer:
        asked = await prepared(self._interceptors, request)
        held = any(interceptor.holds for interceptor in self._interceptors)
        quiet = Silence(self.journal) if held else voice
        begin = (lambda: self._fault("before_answer")) if not held else (lambda: None)
        # An answer that is there already costs nothing, so that no budget is asked.
        kept = await recalled(self._provider, asked)
        charge = await self._meter.hold(asked) if kept is None else None
        stream = self._provider.stream(asked) if kept is None else _replayed(kept)
        try:
            answer = await hear(stream, quiet, self.journal, self.run.model, begin)
        except ProviderError as error:
            self._meter.failed(charge, error)
            raise
        self._meter.answered(charge, answer)
        asked_of = self._meter.choice(answer)
        answer = replace(
            answer,
            cost=self._meter.cost(answer),
            agent=self.run.agent_id,
            provider=asked_of.provider,
            asked=asked_of.model,
        )
        try:
            answer = await passed(self._interceptors, asked, answer)
        except CircuitError:
            # What was held back is kept by nobody, but it was paid for.
            await self.journal.record(f"held:{request.turn}", answer.account)
            raise
        if held:
            await voice.again(answer.text)
        if answer.cached:
            await self.journal.emit(StreamDelta.thinking(CACHED))
        return answer

    async def _fitted(self) -> tuple[Message, ...]:
        """The conversation as far as the model can hold it; what had to go is summarised once."""
        context = self.run.context()
        if context is None:
            return tuple(self.messages)
        size = room(context, self.run.model, self.run.parameters, self.offered)
        fitted = fit(self.messages, size, self._past.task)
        if fitted.over and not self._over:
            self._over = True
            said = f"about {size + fitted.over} tokens must stay of it, and there is room for {size}"
            await self.journal.emit(StreamDelta.thinking("the conversation is too long for the model", said))
        if not fitted.dropped:
            return fitted.messages
        summary = await self._summary(fitted.dropped, size)
        # From now on the summary stands in the place of what it is of.
        at = self._past.place(fitted.messages)
        self.messages = [*fitted.messages[:at], recap(summary), *fitted.messages[at:]]
        if covered := self._past.drop(len(fitted.dropped)):
            self.recap = Recap(summary, covered)
        return tuple(self.messages)

    async def _summary(self, dropped: Sequence[Message], size: int) -> str:
        step = f"summary:{self.turns}"
        told = self.text("summary")
        kept = self.journal.recorded(step)
        if kept is None:
            await self.journal.emit(StreamDelta.thinking("summarising what was said before"))
            asked = ModelRequest(
                model=self.run.model,
                messages=(
                    Message.text(Role.SYSTEM, told),
                    Message.text(Role.USER, excerpt(transcript(dropped), min(3 * size, LONGEST_TRANSCRIPT))),
                ),
                parameters=self.run.parameters,
                turn=self.turns,
                occurrence=self.run.occurrence,
                attempt=self.run.attempt,
            )
            answer = await self._hear(asked, Silence(self.journal))
            kept = await self.journal.record(step, answer.as_dict())
        answer = Answer.from_dict(kept)
        self._count(answer)
        return answer.text

    def _leads_to(self, one: _Planned) -> str:
        """The agent to which a call that is not refused hands over, if it does."""
        tool = self._tools.get(one.call.name)
        return tool.successor if tool is not None and one.refusal is None else ""

    async def _planned(self, call: ToolCallPart, number: int, leaving: str, cut: bool) -> _Planned:
        """A call with all that can be said of it before anything is done: this is where people are asked. `leaving` is
        the agent to which an earlier call of the same answer hands over; `cut` says that the answer stopped in it."""
        # One that is kept from the model was told by no name that the provider's could lead back to.
        call = replace(call, name=plain_name((tool.spec for tool in self._tools.values()), call.name))
        tool = self._tools.get(call.name)
        arguments: dict[str, Any] = {}
        refusal: ToolError | None = None
        try:
            if number >= MOST_CALLS:
                raise ToolDenied(f"{MOST_CALLS} calls may be made at once; make this one later")
            arguments, twice = read_arguments(call.arguments)
            if twice:
                said = f"the arguments of {call.name} were JSON within JSON"
                await self.journal.emit(StreamDelta.thinking(said, "they were decoded twice"))
            if tool is None:
                known = ", ".join(self._policies.offered(self._tools)) or "none"
                raise ToolUnknown(f"there is no tool {call.name!r}; there are: {known}")
            check_arguments(tool, arguments)
        except ToolArgumentsMalformed as error:
            refusal = self._cut_off(call) if cut else error
        except ToolError as error:
            refusal = error
        written = orjson.dumps([call.name, arguments or call.arguments], option=orjson.OPT_SORT_KEYS)
        same = hashlib.sha256(written).hexdigest()[:16]
        times = self._made[same] = self._made.get(same, 0) + 1
        if times > MOST_REPEATS:
            raise ToolLoop(f"the model called {call.name} {times} times with the same arguments: it goes in circles")
        step = f"{same}:{times}"
        if refusal is None:
            try:
                self._policies.check(call.name, self._record)
                if tool is not None and tool.successor and leaving:
                    raise ToolDenied(f"this goes to {leaving} already: one takes over at a time")
                self._record.called(call.name)
                await self._allowed(call, arguments, step)
            except ToolDenied as error:
                refusal = error
        return _Planned(call, arguments, step, refusal)

    def _cut_off(self, call: ToolCallPart) -> ToolError:
        """What a model is told whose answer stopped in the middle of a call. Raises `OutputTruncated` the next time."""
        said = f"the answer stopped at max_tokens in the middle of a call of {call.name}"
        if self._stopped:
            raise OutputTruncated(f"{said}, twice: raise max_tokens in llm_config, or have it write less at once")
        self._stopped = True
        return ToolArgumentsMalformed(f"{said}: write less at once")

    async def _allowed(self, call: ToolCallPart, arguments: Mapping[str, Any], step: str) -> None:
        """Returns where nobody, or somebody who may, has to allow the call and did. Raises `ToolDenied`."""
        rule = self._policies.approval(call.name)
        tool = self._tools[call.name]
        doubt = tool.doubt
        if rule is None and doubt:
            rule = ApprovalRule()
        if rule is None or self.journal.recorded(DONE + step) is not None:
            return
        payload = {"agent": self.run.agent_id, "tool": call.name, "arguments": dict(arguments)}
        if doubt:
            payload["doubt"] = doubt
        said = await self.journal.ask_person(
            # A tool in doubt may be another one than somebody allowed before it was.
            f"approve:{step}:{tool.pin}" if doubt else f"approve:{step}",
            payload,
            roles=rule.roles,
            timeout_seconds=rule.timeout_seconds,
            form=APPROVAL_FORM,
        )
        if not said.get("approved"):
            why = f": {said['reason']}" if said.get("reason") else ""
            nobody = "nobody allowed the call in time" if said.get("timed_out") else f"the call was not allowed{why}"
            raise ToolDenied(f"{call.name}: {nobody}")

    async def _perform(self, one: _Planned) -> ToolResultPart:
        """The result of a call, or its error, as the model is told of it."""
        call = one.call
        told: dict[str, Any] = {"toolName": call.name, "callId": call.id}
        await self.journal.emit(StreamDelta(StreamType.TOOL_CALL, {**told, "arguments": one.told}))
        kept = self.journal.recorded(DONE + one.step)
        failed = kept is None
        kept = kept or self.journal.recorded(REFUSED + one.step)
        if kept is None:
            value, failed, spent = await self._called(one)
            took = {"took": spent} if spent else {}
            look = self.run.watch.look("result", call.name)
            look.value(value)
            decided = decision(self.run.watch, [look])
            done = {"value": value, **took, **({} if decided is None else {"screened": decided})}
            kept = await self.journal.record((REFUSED if failed else DONE) + one.step, done)
            self._fault("after_tool")
        value = kept["value"]
        took: Mapping[str, Any] = kept.get("took") or {}
        self._add(took.get("usage") or {}, took.get("cost"))
        if not failed:
            self._record.succeeded.add(call.name)
        await self.journal.emit(StreamDelta(StreamType.TOOL_RESULT, {**told, "result": value}))
        if kept.get("screened") is not None:
            await tell(self.journal, f"{STEP}{call.name}:{one.step}", kept["screened"], self.run.agent_id)
        said = self.run.watch.look("result", call.name).value(value)
        return ToolResultPart(call.id, call.name, _as_text(said), failed=failed)

    async def _called(self, one: _Planned) -> tuple[Any, bool, Mapping[str, Any]]:
        """What the call gave back, whether that is an error, and what models took that were asked for it."""
        execution = self.run.execution_id
        context = ToolContext(execution, self.run.agent_id, one.call.id, f"{execution}/{one.step}")
        # What a model made up is said by no span, nor does it name one.
        tool = self._tools.get(one.call.name)
        try:
            with piece("execute_tool" if tool is None else f"execute_tool {tool.name}", _tool(tool, one)) as span:
                if span is not None and span.content:
                    span.set({"gen_ai.tool.call.arguments": _shown(span, tool, one.told)})
                if one.refusal is not None:
                    raise one.refusal
                tool = self._tools[one.call.name]
                value = await call_tool(tool, one.arguments, context)
                if span is not None and span.content:
                    span.set({"gen_ai.tool.call.result": _shown(span, tool, value)})
            return value, False, context.spent
        except ToolError as error:
            return {"error": {"code": error.code, "message": error.message}}, True, context.spent

    def _count(self, answer: Answer) -> None:
        self._add(answer.usage, answer.cost if answer.cost or answer.cached else None)

    def _add(self, usage: Mapping[str, Any], cost: float | None) -> None:
        for name, count in usage.items():
            if isinstance(count, int):
                self.usage[name] = self.usage.get(name, 0) + count
        if cost is not None:
            self.cost = round((self.cost or 0.0) + cost, 9)


@dataclass(frozen=True, slots=True)
class _Planned:
    """A call of a model, looked at. `refusal` says why it is not made; `step` is its place in the journal."""

    call: ToolCallPart
    arguments: Mapping[str, Any]
    step: str
    refusal: ToolError | None

    @property
    def told(self) -> Any:
        """The arguments, as readers are told of them: those that could not be read are the model's own text."""
        return self.arguments or (self.call.arguments if self.refusal is not None else {})


async def _replayed(chunks: Sequence[ModelChunk]) -> AsyncGenerator[ModelChunk, None]:
    for chunk in chunks:
        yield chunk


def recap(summary: str) -> Message:
    """How a model is told what was said before."""
    return Message.text(Role.USER, f"What was said before, in short:\n{summary}")


def _tool(tool: Tool | None, one: _Planned) -> dict[str, Value]:
    """A call, of a tool if there is one, in the words of OpenTelemetry's conventions."""
    named: dict[str, Value] = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.call.id": one.call.id,
        "gen_ai.tool.type": "function",
    }
    if tool is not None:
        named["gen_ai.tool.name"] = tool.name
    if tool is not None and tool.spec.description:
        named["gen_ai.tool.description"] = tool.spec.description
    return named


def _shown(span: Span, tool: Tool | None, value: Any) -> str:
    """What goes into a tool or comes out of it, as a span may show it."""
    return clean(redact(_as_text(value), () if tool is None else tool.secrets), span.shown)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
