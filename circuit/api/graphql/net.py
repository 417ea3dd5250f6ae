"""What a workflow is made of: its places, and its transitions with the agents that they run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.scalars import as_json


@strawberry.type(description="How often a failed run is tried again.")
class RetryConfig:
    max_attempts: int | None
    backoff_seconds: float | None
    retry_on_errors: list[str]

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> RetryConfig:
        return cls(
            max_attempts=said.get("max_attempts"),
            backoff_seconds=said.get("backoff_seconds"),
            retry_on_errors=list(said.get("retry_on_errors") or ()),
        )


@strawberry.type(description="A place of a net.")
class Place:
    id: str
    description: str
    colour: str | None
    initial: bool
    terminal: bool
    outcome: str | None
    dead_letter: bool
    ends_case: bool
    roles: list[str]
    capacity: int | None
    shared: bool

    @classmethod
    def of(cls, name: str, said: Mapping[str, Any]) -> Place:
        return cls(
            id=name,
            description=said.get("description") or "",
            colour=said.get("colour"),
            initial=bool(said.get("initial")),
            terminal=bool(said.get("terminal")),
            outcome=said.get("outcome"),
            dead_letter=bool(said.get("dead_letter")),
            ends_case=bool(said.get("ends_case")),
            roles=list(said.get("roles") or ()),
            capacity=said.get("capacity"),
            shared=bool(said.get("shared")),
        )


@strawberry.type(description="How a transition runs an agent between taking the tokens and producing the new ones.")
class AgentExecution:
    agent_id: str
    input_mapping: JSON
    output_mapping: JSON
    required: bool
    timeout_seconds: float | None
    retry_config: RetryConfig | None

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> AgentExecution:
        retry = said.get("retry_config")
        return cls(
            agent_id=str(said.get("agent_id", "")),
            input_mapping=as_json(said.get("input_mapping") or {}),
            output_mapping=as_json(said.get("output_mapping") or {}),
            required=bool(said.get("required", True)),
            timeout_seconds=said.get("timeout_seconds"),
            retry_config=None if retry is None else RetryConfig.of(retry),
        )


@strawberry.type(description="A transition of a net.")
class Transition:
    id: str
    name: str
    description: str
    from_places: list[str] = strawberry.field(description="The places that it takes from or looks at.")
    to_places: list[str] = strawberry.field(description="The places that it puts into.")
    to_place: str | None = strawberry.field(description="The place that it puts into, if that is one.")
    conditions: list[str]
    rules: list[JSON]
    priority: int
    trigger: str = strawberry.field(description="Who fires it: `auto`, `manual`, or what else the format knows.")
    agent_execution: AgentExecution | None
    on_failure: str | None
    document: JSON = strawberry.field(description="The transition as JSON, with all that its file says.")

    @classmethod
    def of(cls, name: str, said: Mapping[str, Any]) -> Transition:
        run, after = said.get("agent_execution"), _ends(said.get("to_places"))
        return cls(
            id=name,
            name=said.get("name") or name,
            description=said.get("description") or "",
            from_places=_ends(said.get("from_places") or said.get("from_any")),
            to_places=after,
            to_place=after[0] if len(after) == 1 else None,
            conditions=list(said.get("conditions") or ()),
            rules=[as_json(rule) for rule in said.get("rules") or ()],
            priority=said.get("priority") or 0,
            trigger=(said.get("trigger") or {}).get("type", "auto"),
            agent_execution=None if run is None else AgentExecution.of(run),
            on_failure=said.get("on_failure"),
            document=as_json(dict(said)),
        )


def _ends(arcs: Any) -> list[str]:
    """The places of arcs, each once."""
    return list(dict.fromkeys(arc["place"] for arc in arcs or ()))
