"""How often a run of an agent asks its models at worst, and what that comes to, with the prices that somebody supplies:
nothing here knows any."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from circuit.definition.workflow import COLLEAGUES, ActionSpec, AgentDefinition, ProviderSpec, Workflow
from circuit.spend import microdollars

TURNS = 20
"""How often an agent with tools asks its model, where it does not say."""
ROUNDS = 2
"""How often `self_reflection` improves an answer, where it does not say."""


class Tariff(Protocol):
    """What is known of models. `circuit.providers.tariff` supplies it."""

    @property
    def source(self) -> str:
        """Where the prices come from, for people."""
        ...

    def answer(self, kind: str, model: str, parameters: Mapping[str, Any]) -> int | None:
        """The most tokens of an answer; None where nobody knows."""
        ...

    def prompt(self, model: str) -> int | None:
        """The most tokens of a prompt; None where nobody knows."""
        ...

    def most(self, kind: str, model: str, options: Mapping[str, Any], prompt: int, answer: int) -> float | None:
        """What so many tokens cost at most, in US dollars; None where no price is known."""
        ...

    def usual(self, kind: str, model: str, options: Mapping[str, Any], prompt: int, answer: int) -> float | None:
        """What they cost where nothing comes from a cache or goes into one."""
        ...


@dataclass(frozen=True, slots=True)
class Worst:
    """What one attempt of an action comes to at worst: tokens of answers, and millionths of a dollar; None where nobody
    knows, for the reasons in `open`. `assumed` says what was reckoned with."""

    tokens: int | None
    microdollars: int | None
    open: tuple[str, ...]
    assumed: str


def spends(action: ActionSpec) -> bool:
    """Whether an action asks models, or opens cases that may."""
    return "agent_id" in action.config or action.kind == "subworkflow"


def worst_of(workflow: Workflow, transition: str, tariff: Tariff | None) -> Worst:
    """The worst attempt of the agent on `transition`: every answer as long as it may be, every prompt as much as its
    model holds, and where there is a fallback every model of it asked each time."""
    spec = workflow.actions[transition]
    if "agent_id" not in spec.config:
        return Worst(None, None, (f"what the cases cost that {transition} opens is not known here",), "")
    agent = workflow.agents[spec.config["agent_id"]]
    asks = asks_of(agent)
    if asks is None:
        return Worst(None, None, (f"how often {agent.id} lets other agents work is for its model to say",), "")
    parameters = {**agent.parameters, **spec.config.get("llm_config", {})}
    lacking: list[str] = []
    shown: list[str] = []
    tokens: int | None = 0
    money: float | None = 0.0
    for provider in (spec.provider(workflow.agents), *_fallback(agent)):
        kind, model, options = provider.type, provider.model, provider.options
        answer = parameters.get("max_tokens") if tariff is None else tariff.answer(kind, model, parameters)
        if not isinstance(answer, int):
            lacking.append(f"no max_tokens is set for {agent.id}")
            tokens = money = None
            continue
        tokens = None if tokens is None else tokens + answer * asks
        if tariff is None:
            continue
        known = [size for size in (agent.document.get("context_tokens"), tariff.prompt(model)) if size is not None]
        # What takes no money takes none for the longest prompt either.
        prompt = min(known) if known else 0
        cost = tariff.most(kind, model, options, prompt, answer)
        if cost is None:
            lacking.append(
                f"no price is known of {model or kind}, which {agent.id} asks (llm_provider.price names one)"
            )
        elif cost and not known:
            lacking.append(f"how much {model or kind} holds is not known: give {agent.id} context_tokens")
            cost = None
        money = None if money is None or cost is None else money + cost * asks
        size = f"prompts of {prompt:,}, " if known else ""
        shown.append(f"{agent.id}: {asks} calls of {model or kind} a run, {size}answers of {answer:,} tokens")
    amount = None if money is None or tariff is None else microdollars(money)
    return Worst(tokens, amount, tuple(lacking), "; ".join(shown))


def asks_of(agent: AgentDefinition) -> int | None:
    """How often one run asks its model at most: its turns, what its capabilities add, a mended answer, and a summary
    before each of them where there can be too much to be said. None where other agents may work for it."""
    document = agent.document
    tools: Sequence[Mapping[str, Any]] = document.get("tools") or ()
    if any(entry["kind"] in COLLEAGUES for entry in tools):
        return None
    options = {entry["name"]: entry for entry in document.get("capabilities") or ()}
    bound = (options.get("react") or options.get("direct") or {}).get("max_turns")
    asks = bound or TURNS if tools or "react" in options else 1
    if "chain_of_thought" in options:
        asks += 1
    if "self_reflection" in options:
        asks = (asks + 1) * ((options["self_reflection"].get("max_rounds", ROUNDS)) + 1)
    if agent.output_schema is not None:
        asks += 1
    grows = asks > 2 or document.get("conversation") is not None
    return 2 * asks if grows else asks


def usual_cost(workflow: Workflow, transition: str, inputs: Any, answer: Any, tariff: Tariff) -> float | None:
    """About what a run costs that asks once: tokens from the sizes of prompt and answer, four bytes each. None where no
    price is known."""
    spec = workflow.actions[transition]
    agent = workflow.agents[spec.config["agent_id"]]
    prompts, provider = agent.prompts, spec.provider(workflow.agents)
    fixed = len(prompts.system) + len(prompts.context_instructions) + len(prompts.user_template)
    sizes = (fixed + len(str(inputs)), len(str(answer)))
    prompt, said = (max(1, math.ceil(size / 4)) for size in sizes)
    return tariff.usual(provider.type, provider.model, provider.options, prompt, said)


def _fallback(agent: AgentDefinition) -> list[ProviderSpec]:
    given: Sequence[Mapping[str, Any]] = agent.document.get("fallback") or ()
    return [ProviderSpec(one["type"], one.get("model") or "", one.get("options") or {}) for one in given]
