"""What is published, as JSON, YAML and drawn, and publishing."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.agents import Agent
from circuit.api.graphql.context import Resolving
from circuit.api.graphql.net import Place, Transition
from circuit.api.graphql.paging import DEFAULT_PAGE, page, part
from circuit.api.graphql.scalars import as_json
from circuit.api.graphql.workflow_input import WorkflowInput, document
from circuit.definition import portrait
from circuit.definition.adoption import borrowed
from circuit.definition.inclusion import Reader, given
from circuit.definition.written import as_lines, written
from circuit.engine.commands import Published
from circuit.engine.pages import AgentView
from circuit.engine.views import WorkflowView
from circuit.errors import NotFound
from circuit.security.permissions import Permission

DEFAULT_SOURCE = "workflow.yaml"
LONGEST_SOURCE = 200
DEFAULT_VERSIONS = 10


@strawberry.type(description="A version of a published workflow: the current one, where no other was asked for.")
class Workflow:
    view: strawberry.Private[WorkflowView]
    id: str
    name: str
    description: str
    hash: str = strawberry.field(description="The content hash of the version.")
    published_at: datetime
    published_by: str
    retired_at: datetime | None = strawberry.field(
        description="Since when no new cases begin; known of the current version."
    )
    document: JSON = strawberry.field(description="The workflow as JSON, as it was published.")

    @classmethod
    def of(cls, view: WorkflowView) -> Workflow:
        return cls(
            view=view,
            id=view.id,
            name=view.name,
            description=view.description,
            hash=view.hash,
            published_at=view.published_at,
            published_by=view.published_by,
            retired_at=view.retired_at,
            document=as_json(dict(view.document)),
        )

    @strawberry.field(description="The places of its net.")
    def places(self) -> list[Place]:
        return [Place.of(name, said) for name, said in (self.view.document.get("places") or {}).items()]

    @strawberry.field(description="The transitions of its net, with the agents that they run.")
    def transitions(self) -> list[Transition]:
        return [Transition.of(name, said) for name, said in (self.view.document.get("transitions") or {}).items()]

    @strawberry.field(description="Its agents.")
    def agents(self) -> list[Agent]:
        said = self.view.document.get("agents") or {}
        return [Agent.of(AgentView(self.id, name, agent)) for name, agent in said.items()]

    @strawberry.field(description="The workflow as a file, in its long form: `loadWorkflow` gives this version again.")
    async def yaml(self) -> str:
        return await asyncio.to_thread(written, self.view.document)

    @strawberry.field(description="The net as a picture, as a case begins: an SVG document.")
    async def svg(self) -> str:
        return await asyncio.to_thread(portrait.svg_of, self.view.document)

    @strawberry.field(description="The net as a Mermaid flowchart.")
    async def mermaid(self) -> str:
        return await asyncio.to_thread(portrait.mermaid_of, self.view.document)

    @strawberry.field(description="The versions of this workflow that were published, the newest first.")
    async def versions(self, info: Resolving, first: int = DEFAULT_VERSIONS) -> list[Workflow]:
        found = await info.context.loaders.versions(info.context.tenant, self.id, part(first))
        return [Workflow.of(view) for view in found]


@strawberry.type
class WorkflowQueries:
    @strawberry.field(description="The current version of a workflow, or the one with this `hash`.")
    async def workflow(self, info: Resolving, id: str, hash: str | None = None) -> Workflow | None:  # noqa: A002
        tenant = info.context.tenant
        if hash is None:
            found = await info.context.services.queries.workflow(tenant, id)
        else:
            found = await info.context.services.pages.version(tenant, id, hash)
        return None if found is None else Workflow.of(found)

    @strawberry.field(
        description="The current versions of workflows, by id; `after` is the `id` of the last one that is known."
    )
    async def workflows(self, info: Resolving, first: int = DEFAULT_PAGE, after: str | None = None) -> list[Workflow]:
        found = await info.context.services.pages.workflows(info.context.tenant, page(first), after or "")
        return [Workflow.of(view) for view in found]


Unsound = Annotated[
    bool, strawberry.argument(description="Take a workflow that may deadlock, grow without bound or never end.")
]


@strawberry.input(description="A file beside a workflow file, which that includes.")
class WorkflowFileInput:
    path: str = strawberry.field(description="Its path, from the directory of the workflow file.")
    text: str


Files = Annotated[list[WorkflowFileInput] | None, strawberry.argument(description="The fragments that it includes.")]


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
        idempotency_key: str | None = None,
        allow_unsound: Unsound = False,
        files: Files = None,
    ) -> Workflow:
        name = "".join(letter if letter.isprintable() else "?" for letter in source[:LONGEST_SOURCE])
        source, read = name or DEFAULT_SOURCE, _reader(files)
        return await _publish(info, yaml, source, idempotency_key, unsound=allow_unsound, read=read)

    @strawberry.mutation(
        description="Publish a workflow that is given as input objects. It goes the same way as a file, and its faults"
        " come as those of a file do: lines count in the document as JSON."
    )
    async def create_workflow(
        self,
        info: Resolving,
        workflow: WorkflowInput,
        idempotency_key: str | None = None,
        allow_unsound: Unsound = False,
        files: Files = None,
    ) -> Workflow:
        text, read = as_lines(document(workflow)), _reader(files)
        return await _publish(info, text, "createWorkflow", idempotency_key, unsound=allow_unsound, read=read)

    @strawberry.mutation(description="Make a version that was published before the current one again, by its `hash`.")
    async def publish_workflow(self, info: Resolving, id: str, hash: str) -> Workflow:  # noqa: A002
        await info.context.services.publishing.make_current(id, hash, principal=info.context.principal)
        return await current_workflow(info, id)

    @strawberry.mutation(
        description="Let no new cases of a workflow begin; those that run go on. With `retired: false` they may begin"
        " again."
    )
    async def retire_workflow(self, info: Resolving, id: str, retired: bool = True) -> Workflow:  # noqa: A002
        await info.context.services.commands.retire(id, info.context.principal, retired=retired)
        return await current_workflow(info, id)

    @strawberry.mutation(
        description="Take a workflow away, of which no case runs: no list shows it, and no case of it can begin. Cases"
        " that have ended keep the version that they ran."
    )
    async def delete_workflow(self, info: Resolving, id: str) -> bool:  # noqa: A002
        await info.context.services.publishing.delete(id, principal=info.context.principal)
        return True


def _reader(files: list[WorkflowFileInput] | None) -> Reader | None:
    return None if files is None else given((file.path, file.text) for file in files)


async def _publish(
    info: Resolving, text: str, source: str, key: str | None, *, unsound: bool, read: Reader | None = None
) -> Workflow:
    """Publish the workflow in a YAML or JSON text. Raises `DefinitionError`, `Forbidden`."""
    services = info.context.services
    info.context.principal.require(Permission.EDIT)  # before the work that a large file makes
    # Compiling a large file takes a while, which the streams of others should not feel.
    asked, names = services.consultations, borrowed(text, source, read)
    agents = await asked.documents(info.context.principal.tenant, names) if asked is not None and names else {}
    more = ({"agents": agents} if agents else {}) | ({"read": read} if read is not None else {})
    workflow = await asyncio.to_thread(services.load, text, source, unsound=unsound, **more)
    published = await services.publishing.publish(workflow, principal=info.context.principal, key=key)
    return await published_workflow(info, published)


async def published_workflow(info: Resolving, published: Published) -> Workflow:
    """The version that was published, which another may have followed meanwhile."""
    tenant = info.context.principal.tenant
    view = await info.context.services.queries.workflow(tenant, published.workflow_id)
    if view is not None and view.hash != published.hash:
        view = await info.context.services.pages.version(tenant, published.workflow_id, published.hash) or view
    if view is None:
        raise NotFound(f"workflow {published.workflow_id} was published and is gone")
    return Workflow.of(view)


async def current_workflow(info: Resolving, workflow_id: str) -> Workflow:
    """The current version of a workflow. Raises `NotFound`."""
    view = await info.context.services.queries.workflow(info.context.principal.tenant, workflow_id)
    if view is None:
        raise NotFound(f"there is no workflow {workflow_id[:100]!r}")
    return Workflow.of(view)
