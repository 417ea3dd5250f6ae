"""A workflow as GraphQL's input: the words of the workflow file in camelCase.

It becomes the same document as a file would, and goes the same way: the same checks, the same faults.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import strawberry
from strawberry.scalars import JSON


@strawberry.input(description="How often a failed action is tried again.")
class RetryConfigInput:
    max_attempts: int | None = None
    backoff_seconds: float | None = None
    retry_on_errors: list[str] | None = None


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
    capacity: int | None = None
    shared: bool | None = None


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


@strawberry.input(description="An agent.")
class AgentInput:
    id: str
    llm_provider: JSON = strawberry.field(description="`{type, model, ...}`; never a key.")
    name: str | None = None
    description: str | None = None
    llm_config: JSON | None = None
    prompts: PromptsInput | None = None
    capabilities: list[str] | None = None
    tools: list[str] | None = None
    output_schema: JSON | None = None


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
    regions: JSON | None = strawberry.field(default=None, description="By name: `{places, transitions}`.")
    budget: BudgetInput | None = None
    complete_when: str | None = strawberry.field(
        default=None, description="CEL over tokens and case: a case is complete when it holds."
    )
    start: JSON | None = strawberry.field(default=None, description="What starts cases: `{message: NAME}`.")
    subject: list[str] | None = strawberry.field(
        default=None, description="Paths in the tokens of its start to whom a case is about."
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


def _said(value: Any) -> Any:
    """An input as plain JSON, without what it does not say."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {name: _said(item) for name, item in pairs.items() if item is not None}
    if isinstance(value, list):
        return [_said(item) for item in cast("list[Any]", value)]
    return value
