"""The action of the kind `agent`: joins a firing to an agent run.

Its configuration is `agent_id`, `agent` (the definition as JSON: `provider`, `parameters`, `prompts`,
`output_schema`, `capabilities`, `tools`, `policies`), perhaps `provider` (which then counts instead of the agent's),
and `occurrence`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import gettempdir
from typing import Any, cast

from circuit.actions.conversation import Conversation, Memories
from circuit.actions.delegate import agent_tool
from circuit.actions.hand_over import hand_over_tool, handed_over
from circuit.actions.tools import Toolbox
from circuit.agents.agent import run_agent
from circuit.agents.image import images_of
from circuit.agents.interceptor import Interceptor
from circuit.agents.policy import Policies
from circuit.agents.ports import Journal
from circuit.agents.prompt import PromptTexts, build_messages, prompt_values
from circuit.agents.redaction import PromptRedaction
from circuit.agents.run import AgentResult, AgentRun, Capability, Choice
from circuit.agents.screening import Watch, settled, told_inputs, told_tools
from circuit.agents.window import Past, narrowed
from circuit.engine.action import ActionCall, ActionContext, ActionOutput
from circuit.engine.calls import rules_of_agents
from circuit.engine.suspension import APPROVAL
from circuit.events import StreamDelta
from circuit.providers.cache import AnswerStore
from circuit.providers.messages import Message, Role
from circuit.providers.pricing import Price
from circuit.providers.profiles import context_of
from circuit.providers.provider import ModelRequest
from circuit.providers.registry import ProviderRegistry
from circuit.security.redactor import Redactor
from circuit.security.rules import Rule, rules_of
from circuit.security.screening.found import Screener, Screening
from circuit.spend import Spend
from circuit.value import dataclass

KIND = "agent"

Permit = Callable[[int, str, str], Awaitable[None]]
"""Raises where, in a tenant, the workflow may not use the agent."""


class CallJournal:
    """The journal of one call: what it recorded before, and its context for the rest."""

    def __init__(self, call: ActionCall, context: ActionContext) -> None:
        self._recorded = call.recorded
        self._context = context

    async def emit(self, delta: StreamDelta) -> None:
        await self._context.emit(delta)

    def recorded(self, step: str) -> Any:
        return self._recorded.get(step)

    async def record(self, step: str, value: Any) -> Any:
        return await self._context.record(step, value)

    def screened(self, step: str, decision: Mapping[str, Any], event: Mapping[str, Any]) -> None:
        self._context.screened(step, decision, event)

    async def ask_person(
        self,
        key: str,
        payload: Mapping[str, Any],
        *,
        roles: Sequence[str] = (),
        timeout_seconds: float | None = None,
        form: Mapping[str, Any] | None = None,
    ) -> Mapping[str, Any]:
        woken = await self._context.suspend(APPROVAL, key, dict(payload), timeout_seconds, roles=roles, form=form)
        return {"timed_out": True} if woken.timed_out else cast("Mapping[str, Any]", woken.payload or {})

    async def hold(self, most: Spend) -> int | None:
        return await self._context.hold(most)

    def settle(self, charge: int, spent: Spend) -> None:
        self._context.settle(charge, spent)

    def now(self) -> datetime:
        return self._context.now()


class AgentAction:
    """Runs agents. `answers` gives what the agents of a tenant share of earlier answers, `memories` what their
    conversations remember; `permit` says whether a workflow may use an agent, `redactor` has the rules by which what
    models are told is redacted, `screener` says how it is screened. `fault` is called at `before_answer`,
    `after_answer`, `after_journal` and `after_tool`, for crash tests."""

    def __init__(
        self,
        registry: ProviderRegistry,
        *,
        toolbox: Toolbox | None = None,
        interceptors: Sequence[Interceptor] = (),
        answers: Callable[[int], AnswerStore] | None = None,
        memories: Memories | None = None,
        permit: Permit | None = None,
        redactor: Redactor | None = None,
        screener: Screener | None = None,
        fault: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._registry = registry
        self.redactor = redactor or Redactor()
        self._screener = screener or Screener()
        self._toolbox = toolbox or Toolbox(Path(gettempdir()) / "circuit-workspaces")
        self._interceptors = interceptors
        self._answers = answers
        self._memories = memories
        self._permit = permit
        self._fault = fault

    async def perform(self, call: ActionCall, context: ActionContext) -> ActionOutput:
        """Run the agent of `call`.

        The outputs are the keys of the structured output, and the built-in ones `agent_id`, `execution_id`, `model`,
        `timestamp`, `usage`, `text`, `output` and, of an agent with capabilities, `reasoning`, which hide keys of the
        same name (`output.NAME` reaches those).
        """
        agent: Mapping[str, Any] = call.config["agent"]
        spec: Mapping[str, Any] = call.config.get("provider") or agent["provider"]
        journal = CallJournal(call, context)
        watch = self.watch(agent, call)
        inputs, tokens, looks = told_inputs(watch, call.inputs, call.tokens, agent.get("images") or ())
        await settled(watch, journal, "input", looks, str(agent["id"]))
        run = _run(replace(call, inputs=inputs, tokens=tokens), agent, spec)
        asked = [message for message in run.messages if message.role != Role.SYSTEM]
        conversation = await self._conversation(agent, call, journal)
        if conversation is not None:
            run = replace(
                run,
                messages=conversation.before(run.messages),
                recalled=len(conversation.recalled),
                conversation=str(conversation.id),
            )
        result = await self.run(run, call, journal)
        answer = result.answer
        output: Any = result.output
        usage = result.counted
        named: dict[str, Any] = cast("dict[str, Any]", output) if isinstance(output, dict) else {}
        outputs: dict[str, Any] = {
            **named,
            "agent_id": result.speakers[-1] if result.speakers else agent["id"],
            "execution_id": call.execution_id,
            "model": answer.model,
            "timestamp": answer.at,
            "usage": usage,
            "text": answer.text,
            "output": output,
            **({"reasoning": result.reasoning} if result.reasoning else {}),
        }
        added = None if conversation is None else conversation.exchange(asked, result)
        return ActionOutput(outputs, answer.text, output, usage, answer.model, added)

    async def _conversation(self, agent: Mapping[str, Any], call: ActionCall, journal: Journal) -> Conversation | None:
        if self._memories is None:
            return None
        return await Conversation.open(agent, call, journal, self._memories)

    async def run(self, run: AgentRun, call: ActionCall, journal: CallJournal) -> AgentResult:
        """Perform `run`, which is of the agent of `call`."""
        tenant, permit = call.key.tenant, None
        if self._permit is not None:
            permit = partial(self._permit, tenant, call.workflow_id)
        store = self._store(tenant)
        case = str(call.key.case)
        return await self.work(run, call.config, journal, case, store, permit, call.redaction, call.screening)

    def watch(self, agent: Mapping[str, Any], call: ActionCall) -> Watch:
        """How what `agent` is told in `call` is screened."""
        return self.watching(agent, call.screening, (*call.redaction, *rules_of_agents(call.config)))

    def watching(self, agent: Mapping[str, Any], screening: Mapping[str, str] | None, rules: Sequence[Rule]) -> Watch:
        """How what `agent` is told is screened in a workflow that says this of it, and redacted by these rules."""
        known = Screening(agent.get("screening"), Screening(screening, self._screener.screening))
        return Watch(known, self.redactor.at("events", rules), self._screener.count)

    async def work(
        self,
        run: AgentRun,
        config: Mapping[str, Any],
        journal: Journal,
        case: str,
        answers: AnswerStore | None = None,
        permit: Callable[[str], Awaitable[None]] | None = None,
        rules: Sequence[Rule] = (),
        screening: Mapping[str, str] | None = None,
    ) -> AgentResult:
        """Perform `run`, which is of the agent of this configuration, as if in `case`. `permit` is asked before each
        agent begins, and raises where it may not; `rules` of redaction count beside those of each agent, and
        `screening` where an agent has none of its own."""
        agent: Mapping[str, Any] = config["agent"]
        spec: Mapping[str, Any] = config.get("provider") or agent["provider"]
        scene = _Scene(case, config.get("colleagues") or {}, answers, permit, tuple(rules), screening)
        return await self._run(run, agent, spec, journal, scene, ())

    async def _run(
        self,
        run: AgentRun,
        agent: Mapping[str, Any],
        spec: Mapping[str, Any],
        journal: Journal,
        scene: _Scene,
        askers: tuple[str, ...],
    ) -> AgentResult:
        """Run `agent`, and those to whom it hands over; `askers` are those that asked one another to this end."""

        async def go(name: str, messages: tuple[Message, ...], placed: Journal, number: int) -> AgentResult:
            other = scene.colleagues[name]
            mine = replace(
                self._colleague(other, messages, run),
                # Its calls are others than those of whom it follows.
                execution_id=f"{run.execution_id}>{number}",
                recalled=run.recalled,
                functions=run.functions,
            )
            if run.output_schema is not None:
                mine = replace(mine, output_schema=run.output_schema, schema_name=run.schema_name)
            return await self._alone(mine, other, other["provider"], placed, scene, askers)

        first = await self._alone(run, agent, spec, journal, scene, askers)
        texts = {name: (one.get("prompts") or {}).get("capabilities") for name, one in scene.colleagues.items()}
        return await handed_over(run, first, journal, go, texts)

    async def _alone(
        self,
        run: AgentRun,
        agent: Mapping[str, Any],
        spec: Mapping[str, Any],
        journal: Journal,
        scene: _Scene,
        askers: tuple[str, ...],
    ) -> AgentResult:
        """The part of a run that `agent` does itself."""
        if scene.permit is not None:
            await scene.permit(str(agent["id"]))
        watch = self.watching(agent, scene.screening, (*scene.rules, *rules_of(agent.get("redaction") or ())))
        tools, looks = told_tools(watch, await self._toolbox.tools(agent, scene.case))
        await settled(watch, journal, "tools", looks, str(agent["id"]))
        run = replace(run, watch=watch)
        asking = (*askers, str(agent["id"]))

        async def ask(name: str, messages: tuple[Message, ...], inner: Journal, execution_id: str) -> AgentResult:
            other = scene.colleagues[name]
            told = replace(self._colleague(other, messages, run), execution_id=execution_id)
            return await self._run(told, other, other["provider"], inner, scene, asking)

        for entry in agent.get("tools") or ():
            # Nobody is asked, in however many steps, by whom he asked himself.
            if entry["kind"] == "agent" and entry["name"] not in asking:
                tool = agent_tool(scene.colleagues[entry["name"]], journal, ask)
                tools[tool.name] = tool
            elif entry["kind"] == "hand_over":
                tool = hand_over_tool(scene.colleagues[entry["name"]])
                tools[tool.name] = tool
        cache: Mapping[str, Any] | None = agent.get("cache")
        # What an interceptor holds back must not lie in the cache either.
        shared = cache is not None and not any(interceptor.holds for interceptor in self._interceptors)
        store, kept = (scene.answers, cache["ttl"]) if cache is not None and shared else (None, 0.0)
        task = Past.of(run.messages, run.recalled).task

        def fitted(choice: int, request: ModelRequest) -> ModelRequest:
            return narrowed(request, run.context(choice), task)

        provider = self._registry.fallback([spec, *(agent.get("fallback") or ())], store, kept, fitted)
        redaction = self.redactor.at("prompts", (*scene.rules, *rules_of(agent.get("redaction") or ())))
        around = (*self._interceptors, PromptRedaction(redaction)) if redaction else self._interceptors
        return await run_agent(run, provider, journal, self._fault, tools=tools, interceptors=around)

    def _colleague(self, agent: Mapping[str, Any], messages: tuple[Message, ...], run: AgentRun) -> AgentRun:
        """A run of another agent within `run`: behind its own system prompt come `messages`."""
        values = prompt_values(inputs={}, tokens=(), workflow_id="", history_count=0)
        system = tuple(one for one in build_messages(prompt_texts(agent), values) if one.role == Role.SYSTEM)
        asked = agent_run(agent, agent["provider"], (*system, *messages))
        return replace(asked, occurrence=run.occurrence, attempt=run.attempt)

    def _store(self, tenant: int) -> AnswerStore | None:
        return None if self._answers is None else self._answers(tenant)


@dataclass(frozen=True, slots=True)
class _Scene:
    """What all agents of one execution have in common: their case, each other, the tenant's earlier answers, who says
    whether their workflow may use them, its rules of redaction and its screening."""

    case: str
    colleagues: Mapping[str, Any]
    answers: AnswerStore | None
    permit: Callable[[str], Awaitable[None]] | None = None
    rules: tuple[Rule, ...] = ()
    screening: Mapping[str, str] | None = None


def prompt_texts(agent: Mapping[str, Any]) -> PromptTexts:
    """The three texts of an agent's prompts."""
    prompts: Mapping[str, Any] = agent.get("prompts") or {}
    return PromptTexts(
        system=prompts.get("system") or "",
        user_template=prompts.get("user_template") or PromptTexts().user_template,
        context_instructions=prompts.get("context_instructions") or "",
        engine=prompts.get("engine") or "",
    )


def agent_run(agent: Mapping[str, Any], spec: Mapping[str, Any], messages: tuple[Message, ...]) -> AgentRun:
    """A run of `agent` (its definition as JSON) with the model that `spec` names, from `messages` on."""
    capabilities: Sequence[Mapping[str, Any]] = agent.get("capabilities") or ()
    return AgentRun(
        model=spec.get("model") or "",
        messages=messages,
        parameters=agent.get("parameters") or {},
        output_schema=agent.get("output_schema"),
        schema_name=str(agent["id"]),
        agent_id=str(agent["id"]),
        agent_name=str(agent.get("name") or ""),
        choices=tuple(_choice(one) for one in (spec, *(agent.get("fallback") or ()))),
        capabilities=tuple(Capability(one["name"], one) for one in capabilities),
        policies=Policies(tuple(agent.get("policies") or ())),
        templates=(agent.get("prompts") or {}).get("capabilities") or {},
        context_tokens=agent.get("context_tokens"),
    )


def _choice(spec: Mapping[str, Any]) -> Choice:
    price: Mapping[str, float] | None = (spec.get("options") or {}).get("price")
    return Choice(
        str(spec.get("type") or ""),
        str(spec.get("model") or ""),
        None if price is None else Price(price.get("input", 0.0), price.get("output", 0.0)),
        context_of(str(spec.get("model") or ""), spec.get("options") or {}),
    )


def _run(call: ActionCall, agent: Mapping[str, Any], spec: Mapping[str, Any]) -> AgentRun:
    named: Sequence[str] = agent.get("images") or ()
    shown = [image for name in named for image in images_of(call.inputs.get(name), name)]
    inputs = {name: value for name, value in call.inputs.items() if name not in named}
    values = prompt_values(
        inputs=inputs,
        tokens=call.tokens,
        workflow_id=call.workflow_id,
        history_count=call.history_count,
    )
    *before, asked = build_messages(prompt_texts(agent), values, inputs)
    return replace(
        agent_run(agent, spec, (*before, replace(asked, parts=(*asked.parts, *shown)))),
        occurrence=int(call.config.get("occurrence", 0)),
        attempt=call.attempt,
        execution_id=call.execution_id,
    )
