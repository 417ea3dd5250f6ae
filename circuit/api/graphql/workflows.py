"""What is published, and publishing."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated

import orjson
import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.context import Resolving
from circuit.api.graphql.scalars import as_json
from circuit.api.graphql.workflow_input import WorkflowInput, document
from circuit.engine.views import WorkflowView
from circuit.errors import NotFound

DEFAULT_SOURCE = "workflow.yaml"
LONGEST_SOURCE = 200


@strawberry.type(description="A published workflow, in its current version.")
class Workflow:
    id: str
    name: str
    description: str
    hash: str = strawberry.field(description="The content hash of the version.")
    published_at: datetime
    document: JSON = strawberry.field(description="The workflow as JSON, as it was published.")

    @classmethod
    def of(cls, view: WorkflowView) -> Workflow:
        return cls(
            id=view.id,
            name=view.name,
            description=view.description,
            hash=view.hash,
            published_at=view.published_at,
            document=as_json(dict(view.document)),
        )


@strawberry.type
class WorkflowQueries:
    @strawberry.field(description="The current version of a workflow.")
    async def workflow(self, info: Resolving, id: str) -> Workflow | None:  # noqa: A002
        found = await info.context.services.queries.workflow(info.context.tenant, id)
        return None if found is None else Workflow.of(found)

    @strawberry.field(description="The current versions of all workflows.")
    async def workflows(self, info: Resolving) -> list[Workflow]:
        return [Workflow.of(view) for view in await info.context.services.queries.workflows(info.context.tenant)]


@strawberry.type
class WorkflowMutations:
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
        name = "".join(letter if letter.isprintable() else "?" for letter in source[:LONGEST_SOURCE])
        return await _publish(info, yaml, name or DEFAULT_SOURCE)

    @strawberry.mutation(
        description="Publish a workflow that is given as input objects. It goes the same way as a file, and its faults"
        " come as those of a file do: lines count in the document as JSON."
    )
    async def create_workflow(self, info: Resolving, workflow: WorkflowInput) -> Workflow:
        text = orjson.dumps(document(workflow), option=orjson.OPT_INDENT_2).decode()
        return await _publish(info, text, "createWorkflow")


async def _publish(info: Resolving, text: str, source: str) -> Workflow:
    services = info.context.services
    # Compiling a large file takes a while, which the streams of others should not feel.
    workflow = await asyncio.to_thread(services.load, text, source)
    published = await services.commands.publish(workflow, info.context.principal)
    view = await services.queries.workflow(info.context.tenant, published.workflow_id)
    if view is None:
        raise NotFound(f"workflow {published.workflow_id} was published and is gone")
    return Workflow.of(view)
