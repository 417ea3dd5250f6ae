"""The queries, mutations and subscriptions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, Any, cast

import strawberry

from circuit.api.graphql.context import Resolving
from circuit.api.graphql.types import AgentStreamEvent, Case, CaseSummary, TokenInput, Workflow, stream_event
from circuit.engine.commands import TokenInput as Token
from circuit.errors import InvalidRequest, NotFound
from circuit.ids import CaseKey, parse_case_id

DEFAULT_PAGE = 50
LARGEST_PAGE = 200
DEFAULT_SOURCE = "workflow.yaml"
LONGEST_SOURCE = 200


@strawberry.type
class Query:
    @strawberry.field(description="The current version of a workflow.")
    async def workflow(self, info: Resolving, id: str) -> Workflow | None:  # noqa: A002
        found = await info.context.services.queries.workflow(info.context.tenant, id)
        return None if found is None else Workflow.of(found)

    @strawberry.field(description="The current versions of all workflows.")
    async def workflows(self, info: Resolving) -> list[Workflow]:
        return [Workflow.of(view) for view in await info.context.services.queries.workflows(info.context.tenant)]

    @strawberry.field
    async def case(self, info: Resolving, id: str) -> Case | None:  # noqa: A002
        case = parse_case_id(id)
        if case is None:
            return None
        found = await info.context.services.queries.case(CaseKey(info.context.tenant, case))
        return None if found is None else Case.of(found)

    @strawberry.field(description="Cases, the youngest first; `after` is the `caseId` of the last one that is known.")
    async def cases(
        self,
        info: Resolving,
        workflow_id: str | None = None,
        status: str | None = None,
        first: int = DEFAULT_PAGE,
        after: str | None = None,
    ) -> list[CaseSummary]:
        if not 1 <= first <= LARGEST_PAGE:
            raise InvalidRequest(f"`first` is 1 to {LARGEST_PAGE}, not {first}; go on with `after`")
        before = None if after is None else parse_case_id(after)
        if after is not None and before is None:
            raise InvalidRequest("`after` is not the id of a case")
        found = await info.context.services.queries.cases(
            info.context.tenant, workflow_id=workflow_id, status=status, limit=first, before=before
        )
        return [CaseSummary.of(view) for view in found]


@strawberry.type
class Mutation:
    @strawberry.mutation(
        description="Publish a workflow. What is wrong with it comes as an error with the code `invalid_definition`,"
        " whose `extensions.faults` have line, column, message and hint."
    )
    async def load_workflow(
        self,
        info: Resolving,
        yaml: Annotated[str, strawberry.argument(description="The text of a workflow file.")],
        source: Annotated[str, strawberry.argument(description="What faults call the text.")] = DEFAULT_SOURCE,
    ) -> Workflow:
        services = info.context.services
        name = "".join(letter if letter.isprintable() else "?" for letter in source[:LONGEST_SOURCE])
        # Compiling a large file takes a while, which the streams of others should not feel.
        workflow = await asyncio.to_thread(services.load, yaml, name or DEFAULT_SOURCE)
        published = await services.commands.publish(workflow, info.context.principal)
        view = await services.queries.workflow(info.context.tenant, published.workflow_id)
        if view is None:
            raise NotFound(f"workflow {published.workflow_id} was published and is gone")
        return Workflow.of(view)

    @strawberry.mutation(
        description="Start a case of the current version of a workflow. Asked again with the same `idempotencyKey`,"
        " it answers with the case that was started first."
    )
    async def start_case(
        self,
        info: Resolving,
        workflow_id: str,
        token: TokenInput | None = None,
        idempotency_key: str | None = None,
    ) -> Case:
        services = info.context.services
        key = await services.commands.start_case(
            workflow_id, _token(token), principal=info.context.principal, key=idempotency_key
        )
        view = await services.queries.case(key)
        if view is None:
            raise NotFound(f"case {key} was started and is gone")
        return Case.of(view)


@strawberry.type
class Subscription:
    @strawberry.subscription(
        description="The stream of an execution: from its start, or behind the cursor `after`; then live, to its end."
    )
    async def agent_execution_stream(
        self, info: Resolving, execution_id: str, after: str | None = None
    ) -> AsyncGenerator[AgentStreamEvent, None]:
        readers = info.context.readers
        reader = await readers.open(execution_id, after)
        try:
            while not reader.over:
                for frame in await reader.read():
                    yield stream_event(frame)
        finally:
            readers.close(reader)


def _token(given: TokenInput | None) -> Token | None:
    if given is None:
        return None
    return Token(_object(given.data, "data"), _object(given.metadata, "metadata"))


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(f"the token's {name} must be a JSON object, not {type(value).__name__}")
    return cast("dict[str, Any]", value)
