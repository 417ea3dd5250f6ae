"""What one run of an agent asks for, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from circuit.agents.answer import Answer
from circuit.agents.policy import Policies
from circuit.agents.screening import Watch
from circuit.providers.messages import Message, ToolCallPart
from circuit.providers.pricing import Price
from circuit.providers.provider import ToolSpec
from circuit.value import dataclass


@dataclass(frozen=True, slots=True)
class Capability:
    """A way of working by its name, with its options."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Choice:
    """A model that may answer: the type of its provider, its name, its price where the workflow names one, and how many
    tokens it holds, where that is known."""

    provider: str = ""
    model: str = ""
    price: Price | None = None
    context: int | None = None


@dataclass(frozen=True, slots=True)
class AgentRun:
    """What one run asks for. `occurrence` counts the completed runs before it at the same transition of its case,
    `attempt` its own tries from 1. `choices` are the models that may answer, the first one first; `context_tokens`
    bounds the conversation below what the model's profile says. `recalled` says how many of the messages behind the
    system's were said in earlier runs. `functions` are tools of whoever asks: a call of one ends the run, for only he
    can make it. `tool_choice` says which tool the first answer calls, as in a `ModelRequest`. `agent_name` is for
    people, `conversation` the id of the one that the run goes on with, `watch` how results of tools are screened.
    """

    model: str
    messages: tuple[Message, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    output_schema: Mapping[str, Any] | None = None
    schema_name: str = "output"
    occurrence: int = 0
    attempt: int = 1
    agent_id: str = ""
    execution_id: str = ""
    choices: tuple[Choice, ...] = (Choice(),)
    capabilities: tuple[Capability, ...] = ()
    policies: Policies = field(default_factory=Policies)
    templates: Mapping[str, str] = field(default_factory=dict[str, str])
    context_tokens: int | None = None
    functions: tuple[ToolSpec, ...] = ()
    tool_choice: str = "auto"
    recalled: int = 0
    agent_name: str = ""
    conversation: str = ""
    watch: Watch = field(default_factory=Watch)

    def context(self, choice: int = 0) -> int | None:
        """How many tokens of a conversation one of the `choices` is shown with its answer; None where nobody knows."""
        known = (self.context_tokens, self.choices[choice].context)
        return min((size for size in known if size is not None), default=None)


@dataclass(frozen=True, slots=True)
class Recap:
    """What a model wrote of the first `recalled` messages that came from earlier runs, in their place."""

    text: str
    recalled: int


@dataclass(frozen=True, slots=True)
class HandOver:
    """Another agent answers from here on, and why."""

    agent: str
    why: str


@dataclass(frozen=True, slots=True)
class AgentResult:
    """The final answer and, where a schema asked for it, the structured output in it. `usage` and `cost` are of all
    that was asked; `reasoning` is what the capabilities kept: steps, reflections, confidence. `calls` are those that
    whoever asked has to make: then there is no output yet; nor is there where a `successor` goes on. `said` is what a
    later run should know of this one (the calls with their results, and the answer), and `speakers` who said each."""

    answer: Answer
    output: Any
    usage: Mapping[str, Any] = field(default_factory=dict[str, Any])
    cost: float | None = None
    reasoning: Mapping[str, Any] = field(default_factory=dict[str, Any])
    messages: tuple[Message, ...] = ()
    calls: tuple[ToolCallPart, ...] = ()
    said: tuple[Message, ...] = ()
    recap: Recap | None = None
    successor: HandOver | None = None
    speakers: tuple[str, ...] = ()

    @property
    def counted(self) -> dict[str, Any]:
        """The usage, with the cost where it is known."""
        return {**self.usage, **({} if self.cost is None else {"cost_usd": self.cost})}
