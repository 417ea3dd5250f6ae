"""Agents that run on the tokens of a place."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.addressing import asked_case, numbered
from circuit.api.graphql.commands import CommandOutcome
from circuit.api.graphql.context import Resolving
from circuit.api.graphql.net import RetryConfig
from circuit.api.graphql.paging import DEFAULT_PAGE, behind_name, page
from circuit.api.graphql.scalars import as_json
from circuit.api.graphql.workflow_input import PlaceAgentConfigInput, entry
from circuit.api.graphql.workflows import Workflow, published_workflow
from circuit.engine.commands import DEFAULT_WAIT_SECONDS
from circuit.engine.pages import PlaceAgentView
from circuit.engine.summons import KIND, wanted
from circuit.errors import InvalidRequest


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


@strawberry.type
class PlaceAgentQueries:
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
        workflow, number = behind_name(after)
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


@strawberry.type
class PlaceAgentMutations:
    @strawberry.mutation(
        description="Have the agents of a place run now, whatever their schedules say: all of them or one, on every"
        " token of a case that lies there or on one. `result.executions` are their executions."
    )
    async def trigger_place_agents(
        self,
        info: Resolving,
        case_id: str,
        place_id: str,
        agent_id: str | None = None,
        token_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> CommandOutcome:
        key, token = asked_case(info, case_id), None
        if token_id is not None:
            of, token = numbered(info, token_id, "token")
            if of != key:
                raise InvalidRequest("the token is of another case")
        outcome = await info.context.services.commands.ask(
            key, KIND, wanted(place_id, agent_id, token), info.context.principal, idempotency_key, DEFAULT_WAIT_SECONDS
        )
        return CommandOutcome.of(outcome)

    @strawberry.mutation(
        description="Publish a version of a workflow in which an agent runs on the tokens of a place. Where the"
        " workflow does not have the agent, the published one of this id is taken. Cases that run stay on their"
        " version."
    )
    async def create_place_agent_config(
        self,
        info: Resolving,
        workflow_id: str,
        config: PlaceAgentConfigInput,
        idempotency_key: str | None = None,
    ) -> Workflow:
        published = await info.context.services.publishing.add_place_agent(
            workflow_id,
            entry(config),
            # An agent on a place moves no token: the workflow stays as sound as it was.
            partial(info.context.services.load, unsound=True),
            principal=info.context.principal,
            key=idempotency_key,
        )
        return await published_workflow(info, published)
