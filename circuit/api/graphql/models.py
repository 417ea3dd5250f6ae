"""The models inside: which worker holds which."""

from __future__ import annotations

import strawberry

from circuit.api.graphql.context import Resolving
from circuit.providers.catalogue import HeldModel as HeldModelView
from circuit.security.permissions import Permission


@strawberry.type(description="A model that a worker runs itself, with vLLM.")
class HeldModel:
    worker: strawberry.ID
    host: str
    model: str
    state: str = strawberry.field(
        description="cold, loading, ready, asleep, pausing (after a crash) or failed; unanswered or refused where the"
        " worker said nothing of its models."
    )
    id: str = strawberry.field(description="Its name among loads of the same model.")
    detail: str = strawberry.field(description="What it said last while it loads, or why it failed.")
    running: int = strawberry.field(description="Requests that it answers now.")
    crashes: int
    context_tokens: int | None
    version: str = strawberry.field(description="The version of vLLM.")

    @classmethod
    def of(cls, view: HeldModelView) -> HeldModel:
        return cls(
            worker=strawberry.ID(view.worker),
            host=view.host,
            model=view.model,
            state=view.state,
            id=view.id,
            detail=view.detail,
            running=view.running,
            crashes=view.crashes,
            context_tokens=view.context_tokens,
            version=view.version,
        )


@strawberry.type
class ModelQueries:
    @strawberry.field(
        description="The models that workers hold themselves. The workers are asked, which takes a second or two."
    )
    async def held_models(self, info: Resolving) -> list[HeldModel]:
        info.context.principal.require(Permission.READ)
        held = info.context.services.held_models
        return [] if held is None else [HeldModel.of(view) for view in await held()]
