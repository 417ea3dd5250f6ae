"""Agents, those that run on the tokens of a place, and the models that they ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.context import Resolving
from circuit.api.graphql.paging import DEFAULT_PAGE, LARGEST_PAGE, page
from circuit.api.graphql.scalars import as_json
from circuit.engine.pages import AgentView, PlaceAgentView
from circuit.errors import InvalidRequest
from circuit.providers.catalogue import KnownModel, KnownProvider
from circuit.security.permissions import Permission


@strawberry.type(description="An agent's texts.")
class Prompts:
    system: str
    user_template: str
    context_instructions: str

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Prompts:
        return cls(
            system=said.get("system") or "",
            user_template=said.get("user_template") or "",
            context_instructions=said.get("context_instructions") or "",
        )


@strawberry.type(description="An agent of a workflow's current version.")
class Agent:
    cursor: str = strawberry.field(description="Give it as `after` to go on behind this agent.")
    id: str
    workflow: str
    name: str
    description: str
    llm_provider: JSON = strawberry.field(description="Type, model and options; keys are never part of it.")
    llm_config: JSON
    prompts: Prompts
    capabilities: list[str]
    tools: list[str]
    output_schema: JSON | None
    document: JSON = strawberry.field(description="The agent as JSON, with all that its file says.")

    @classmethod
    def of(cls, view: AgentView) -> Agent:
        said = view.document
        return cls(
            cursor=f"{view.workflow_id}/{view.id}",
            id=view.id,
            workflow=view.workflow_id,
            name=said.get("name") or view.id,
            description=said.get("description") or "",
            llm_provider=as_json(said.get("llm_provider") or {}),
            llm_config=as_json(said.get("llm_config") or {}),
            prompts=Prompts.of(said.get("prompts") or {}),
            capabilities=_names(said.get("capabilities")),
            tools=_names(said.get("tools")),
            output_schema=as_json(said.get("output_schema")),
            document=as_json(dict(said)),
        )


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


@strawberry.type(description="When a place agent runs.")
class PlaceAgentSchedule:
    initial_delay_seconds: float | None
    interval_seconds: float | None
    max_executions: int | None
    cron: str | None
    missed: str | None

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> PlaceAgentSchedule:
        names = ("initial_delay_seconds", "interval_seconds", "max_executions", "cron", "missed")
        return cls(**{name: said.get(name) for name in names})


@strawberry.type(description="An agent that runs on the tokens of a place.")
class PlaceAgentConfig:
    cursor: str = strawberry.field(description="Give it as `after` to go on behind this entry.")
    workflow: str
    place_id: str
    agent_id: str
    llm_config: JSON | None
    llm_provider: JSON | None
    trigger_conditions: list[JSON]
    input_mapping: JSON | None
    output_mapping: JSON | None
    auto_transition: str | None
    schedule: PlaceAgentSchedule | None
    retry_config: RetryConfig | None

    @classmethod
    def of(cls, view: PlaceAgentView) -> PlaceAgentConfig:
        said = view.document
        schedule, retry = said.get("schedule"), said.get("retry_config")
        return cls(
            cursor=f"{view.workflow_id}/{view.number}",
            workflow=view.workflow_id,
            place_id=str(said.get("place_id", "")),
            agent_id=str(said.get("agent_id", "")),
            llm_config=as_json(said.get("llm_config")),
            llm_provider=as_json(said.get("llm_provider")),
            trigger_conditions=[as_json(rule) for rule in said.get("trigger_conditions") or ()],
            input_mapping=as_json(said.get("input_mapping")),
            output_mapping=as_json(said.get("output_mapping")),
            auto_transition=said.get("auto_transition"),
            schedule=None if schedule is None else PlaceAgentSchedule.of(schedule),
            retry_config=None if retry is None else RetryConfig.of(retry),
        )


@strawberry.type(description="A model, as far as its name tells; a model that is not known is used all the same.")
class Model:
    name: str
    context_tokens: int | None
    max_output_tokens: int | None
    tools: bool
    images: bool
    reasoning: bool
    json_schema: bool = strawberry.field(description="Whether structured output goes by the protocol's own way.")

    @classmethod
    def of(cls, known: KnownModel) -> Model:
        return cls(
            name=known.name,
            context_tokens=known.context_tokens,
            max_output_tokens=known.max_output_tokens,
            tools=known.tools,
            images=known.images,
            reasoning=known.reasoning,
            json_schema=known.json_schema,
        )


@strawberry.type(description="A type of providers, and whether it can be used as this server is configured.")
class Provider:
    type: str
    configured: bool
    lacks: str | None = strawberry.field(description="What it lacks, where it lacks something.")
    models: list[Model] = strawberry.field(description="The models that agents of current workflows name.")

    @classmethod
    def of(cls, known: KnownProvider) -> Provider:
        return cls(
            type=known.type,
            configured=known.lacks is None,
            lacks=known.lacks,
            models=[Model.of(model) for model in known.models],
        )


@strawberry.type
class AgentQueries:
    @strawberry.field(
        description="The agents of the current versions of all workflows, or of one; `after` is the `cursor` of the"
        " last one that is known."
    )
    async def agents(
        self, info: Resolving, workflow_id: str | None = None, first: int = DEFAULT_PAGE, after: str | None = None
    ) -> list[Agent]:
        found = await info.context.services.pages.agents(info.context.tenant, workflow_id, page(first), _behind(after))
        return [Agent.of(one) for one in found]

    @strawberry.field(
        description="The place agents of the current versions of workflows: of a place, of a workflow, or all. `after`"
        " is the `cursor` of the last one that is known."
    )
    async def place_agent_configs(
        self,
        info: Resolving,
        place_id: str | None = None,
        workflow_id: str | None = None,
        first: int = DEFAULT_PAGE,
        after: str | None = None,
    ) -> list[PlaceAgentConfig]:
        workflow, number = _behind(after)
        if number and not number.isdecimal():
            raise InvalidRequest("`after` is the `cursor` of an entry of `placeAgentConfigs`")
        found = await info.context.services.pages.place_agents(
            info.context.tenant,
            workflow_id=workflow_id,
            place=place_id,
            limit=page(first),
            after=(workflow, min(int(number[:9] or 0), 2**31 - 1)),
        )
        return [PlaceAgentConfig.of(one) for one in found]

    @strawberry.field(
        description="The types of providers, whether each is configured, and the models that agents name."
    )
    async def providers(self, info: Resolving) -> list[Provider]:
        info.context.principal.require(Permission.READ)
        named = await info.context.services.pages.agents(info.context.tenant, None, LARGEST_PAGE)
        asked = [one.document.get("llm_provider") or {} for one in named]
        return [Provider.of(one) for one in info.context.services.catalogue(asked)]


def _behind(after: str | None) -> tuple[str, str]:
    if after is None:
        return "", ""
    workflow, slash, rest = after.rpartition("/")
    if not slash:
        raise InvalidRequest("`after` is the `cursor` of the last entry that is known")
    return workflow, rest


def _names(said: Any) -> list[str]:
    return [_name(one) for one in said or ()]


def _name(one: Any) -> str:
    return str(one.get("name") or one.get("kind") or "") if isinstance(one, dict) else str(one)
