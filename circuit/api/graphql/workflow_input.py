"""A workflow as GraphQL's input: the words of the workflow file in camelCase.

It becomes the same document as a file would, and goes the same way: the same checks, the same faults.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, cast

import strawberry
from strawberry.scalars import JSON

_SPELT = frozenset({"llm_provider", "llm_config", "fallback"})
"""JSON whose own keys are words of the workflow file: they may come in camelCase as all others do."""
_HUMP = re.compile(r"(?<=[a-z0-9])[A-Z]")


@strawberry.input(description="How often a failed action is tried again.")
class RetryConfigInput:
    max_attempts: int | None = None
    backoff_seconds: float | None = None
    retry_on_errors: list[str] | None = None
    max_crashes: int | None = None


@strawberry.input(description="Runs an agent between taking the tokens and producing the new ones.")
class AgentExecutionInput:
    agent_id: str
    input_mapping: JSON | None = strawberry.field(default=None, description="`{agentInput: tokenPath}`.")
    output_mapping: JSON | None = strawberry.field(default=None, description="`{tokenPath: agentOutput}`.")
    required: bool | None = None
    timeout_seconds: float | None = None
    retry_config: RetryConfigInput | None = None


@strawberry.input(description="Who fires a transition: `auto`, `manual`, and what else the format knows.")
class TriggerInput:
    type: str
    form: JSON | None = None
    roles: list[str] | None = None
    after: str | None = None
    at: str | None = None
    cron: str | None = None
    message: str | None = None
    correlate: list[str] | None = None
    interrupt: bool | None = None


@strawberry.input(description="A place.")
class PlaceInput:
    id: str
    description: str | None = None
    colour: str | None = None
    initial: bool | None = None
    terminal: bool | None = None
    outcome: str | None = None
    dead_letter: bool | None = None
    ends_case: bool | None = None
    roles: list[str] | None = None
    capacity: int | None = None
    shared: bool | None = None
    interval: JSON | None = strawberry.field(
        default=None, description="Of a shared place, until what was taken is there again: seconds, or `5m`."
    )
    tokens: list[JSON] | None = strawberry.field(
        default=None, description="Tokens that lie here when a case starts: `{data, metadata}`."
    )


@strawberry.input(description="A transition. Arcs are names of places, or objects as in the workflow file.")
class TransitionInput:
    id: str
    name: str | None = None
    description: str | None = None
    from_places: list[JSON] | None = None
    from_any: list[JSON] | None = None
    to_place: str | None = None
    to_places: list[JSON] | None = None
    priority: int | None = None
    rules: list[JSON] | None = None
    conditions: list[str] | None = None
    agent_execution: AgentExecutionInput | None = None
    action: JSON | None = strawberry.field(
        default=None,
        description="What it does, as in the workflow file: the name of a function, or `{type, ...}` of the type"
        " `human`, `http`, `function`, `job` or `subworkflow`.",
    )
    output_mapping: JSON | None = None
    on_failure: str | None = None
    merge: str | None = None
    trigger: TriggerInput | None = None
    cancels: JSON | None = strawberry.field(default=None, description="`{regions, places, transitions}`.")
    compensation: JSON | None = strawberry.field(
        default=None, description="What undoes a completed firing: `{action}` or `{agent_execution}`, as in the file."
    )
    compensates: list[str] | None = strawberry.field(
        default=None, description="The transitions of which firings are undone when it fires; `[all]` for all."
    )


@strawberry.input(description="The texts of an agent.")
class PromptsInput:
    system: str | None = None
    user_template: str | None = None
    context_instructions: str | None = None
    capabilities: JSON | None = strawberry.field(default=None, description="Texts of ways of working, by their names.")
    engine: str | None = strawberry.field(default=None, description="`jinja`, in the place of names in braces.")


@strawberry.input(description="An agent.")
class AgentInput:
    id: str
    llm_provider: JSON = strawberry.field(description="`{type, model, ...}`; never a key.")
    name: str | None = None
    description: str | None = None
    llm_config: JSON | None = strawberry.field(
        default=None, description="`{temperature, maxTokens, topP, stopSequences, ...}`, or as in the workflow file."
    )
    prompts: PromptsInput | None = None
    capabilities: list[str] | None = None
    tools: list[str] | None = None
    output_schema: JSON | None = None
    policies: list[JSON] | None = strawberry.field(
        default=None, description="What gates its tools, as in the workflow file: `{require_approval: fs.*}`."
    )
    conversation: str | None = strawberry.field(
        default=None, description="What it is told of its earlier runs: those about the same `token`, or of the `case`."
    )
    context_tokens: int | None = None
    fallback: list[JSON] | None = strawberry.field(default=None, description="Providers that answer in its place.")
    images: list[str] | None = strawberry.field(default=None, description="Mapped inputs that are images.")
    cache: JSON | None = strawberry.field(
        default=None, description="Whether identical requests get the earlier answer, as in the workflow file."
    )
    redaction: list[JSON] | None = strawberry.field(
        default=None, description="What is taken out of logs, events and prompts: kinds, or rules as in the file."
    )
    screening: JSON | None = strawberry.field(
        default=None,
        description="What is done about what is found in what agents are told: `allow`, `warn` or `refuse`, for all"
        " kinds or for each, as in the workflow file.",
    )


@strawberry.input(description="What each case may spend on calls of models.")
class BudgetInput:
    calls: int | None = None
    tokens: int | None = None
    usd: float | None = None


@strawberry.input(description="When a place agent runs.")
class PlaceAgentScheduleInput:
    initial_delay_seconds: float | None = None
    interval_seconds: float | None = None
    max_executions: int | None = None
    cron: str | None = None
    missed: str | None = None


@strawberry.input(description="An agent that runs on the tokens of a place.")
class PlaceAgentConfigInput:
    place_id: str
    agent_id: str
    llm_config: JSON | None = strawberry.field(default=None, description="Merged key by key over the agent's.")
    llm_provider: JSON | None = strawberry.field(default=None, description="In place of the agent's.")
    trigger_conditions: list[JSON] | None = strawberry.field(
        default=None, description="Rules, as in the workflow file."
    )
    input_mapping: JSON | None = None
    output_mapping: JSON | None = None
    auto_transition: str | None = None
    cron: str | None = strawberry.field(default=None, description="The same as `schedule.cron`.")
    schedule: PlaceAgentScheduleInput | None = None
    retry_config: RetryConfigInput | None = None


@strawberry.input(description="A workflow.")
class WorkflowInput:
    id: str
    places: list[PlaceInput]
    transitions: list[TransitionInput]
    name: str | None = None
    description: str | None = None
    labels: JSON | None = None
    colours: JSON | None = None
    agents: list[AgentInput] | None = None
    pool: str | None = strawberry.field(default=None, description="The pool of workers that runs its cases.")
    outbox: list[str] | None = strawberry.field(default=None, description="The kinds of events that go to the outbox.")
    include: list[JSON] | None = strawberry.field(
        default=None, description="Fragments that are put into it; their texts come in `files`."
    )
    regions: JSON | None = strawberry.field(default=None, description="By name: `{places, transitions}`.")
    budget: BudgetInput | None = None
    complete_when: str | None = strawberry.field(
        default=None, description="CEL over tokens and case: a case is complete when it holds."
    )
    start: JSON | None = strawberry.field(default=None, description="What starts cases: `{message: NAME}`.")
    subject: list[str] | None = strawberry.field(
        default=None, description="Paths in the tokens of its start to whom a case is about."
    )
    redaction: list[JSON] | None = strawberry.field(
        default=None, description="What is taken out of logs, events and prompts: kinds, or rules as in the file."
    )
    screening: JSON | None = strawberry.field(
        default=None,
        description="What is done about what is found in what agents are told: `allow`, `warn` or `refuse`, for all"
        " kinds or for each, as in the workflow file.",
    )
    place_agents: list[JSON] | None = strawberry.field(
        default=None, description="As in the workflow file: `place_id`, `agent_id`, ..."
    )


def document(given: WorkflowInput) -> dict[str, Any]:
    """The document that a workflow file would be."""
    said = _said(given)
    return {
        "workflow": said.pop("id"),
        **{name: value for name, value in said.items() if name not in ("places", "transitions", "agents")},
        "places": _by_id(given.places),
        "transitions": _by_id(given.transitions),
        **({"agents": _by_id(given.agents)} if given.agents else {}),
    }


def entry(given: AgentInput | PlaceAgentConfigInput) -> dict[str, Any]:
    """An agent or a place agent as the workflow file has it."""
    return _said(given)


def _by_id(entries: Sequence[Any]) -> dict[str, Any]:
    """Entries under their ids. A second one of the same id is kept under a name that the checks refuse, with it."""
    found: dict[str, Any] = {}
    for entry in entries:
        said = _said(entry)
        name = said.pop("id")
        found[f"{name} (again)" if name in found else name] = said
    return found


def words(value: Any) -> Any:
    """The keys of an object that somebody spelt in camelCase as the workflow file has them; of a list, of each."""
    if isinstance(value, list):
        return [words(one) for one in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    said = cast("dict[str, Any]", value)
    names = {name: _HUMP.sub(lambda hump: f"_{hump[0].lower()}", name) for name in said}
    return {(name if names[name] in said else names[name]): item for name, item in said.items()}


def _said(value: Any) -> Any:
    """An input as plain JSON, without what it does not say."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {
            name: words(_said(item)) if name in _SPELT else _said(item)
            for name, item in pairs.items()
            if item is not None
        }
    if isinstance(value, list):
        return [_said(item) for item in cast("list[Any]", value)]
    return value
