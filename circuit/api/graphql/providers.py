"""Providers and their models: those that agents name, and those that the providers' servers say they serve."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import strawberry

from circuit.api.graphql.context import Resolving
from circuit.api.graphql.paging import DEFAULT_PAGE, DEFAULT_PART, LARGEST_PAGE, page, part
from circuit.errors import InvalidRequest
from circuit.providers.catalogue import KnownModel, KnownProvider, Unanswered
from circuit.security.permissions import Permission

Asked = Sequence[Mapping[str, Any]]


@strawberry.type(
    description="A model, as far as its name and its servers tell; a model that is not known is used all the same."
)
class Model:
    id: str = strawberry.field(description="What chooses it, `TYPE:NAME`: as `model` of a chat client, and elsewhere.")
    provider: str
    name: str
    context_tokens: int | None
    max_output_tokens: int | None
    tools: bool
    images: bool
    reasoning: bool
    json_schema: bool = strawberry.field(description="Whether structured output goes by the protocol's own way.")
    named: bool = strawberry.field(description="Whether an agent asks for it.")
    servers: list[str] = strawberry.field(description="The servers that say that they serve it.")

    @classmethod
    def of(cls, known: KnownModel) -> Model:
        return cls(
            id=known.id,
            provider=known.provider,
            name=known.name,
            context_tokens=known.context_tokens,
            max_output_tokens=known.max_output_tokens,
            tools=known.tools,
            images=known.images,
            reasoning=known.reasoning,
            json_schema=known.json_schema,
            named=known.named,
            servers=list(known.servers),
        )


@strawberry.type(description="A server of a provider that did not say which models it serves.")
class UnansweredServer:
    server: str
    code: str
    message: str
    retryable: bool

    @classmethod
    def of(cls, one: Unanswered) -> UnansweredServer:
        return cls(server=one.place, code=one.error.code, message=one.error.message, retryable=one.error.retryable)


@strawberry.type(description="A type of providers, and whether it can be used as this server is configured.")
class Provider:
    asked: strawberry.Private[Asked]
    type: str
    configured: bool
    lacks: str | None = strawberry.field(description="What it lacks, where it lacks something.")

    @classmethod
    def of(cls, known: KnownProvider, asked: Asked) -> Provider:
        return cls(asked=asked, type=known.type, configured=known.lacks is None, lacks=known.lacks)

    @strawberry.field(
        description="The models that agents name, and those that the provider's servers serve: they are asked, which"
        " takes three seconds at most, and what they say is kept for a minute. `after` is the `id` of the last one"
        " that is known."
    )
    async def models(self, info: Resolving, first: int = DEFAULT_PART, after: str | None = None) -> list[Model]:
        offer = await info.context.services.catalogue.offer(self.type, self.asked)
        return [Model.of(model) for model in offer.models if model.id > (after or "")][: part(first)]

    @strawberry.field(description="The servers that could not be asked which models they serve, and why.")
    async def unanswered(self, info: Resolving) -> list[UnansweredServer]:
        offer = await info.context.services.catalogue.offer(self.type, self.asked)
        return [UnansweredServer.of(one) for one in offer.unanswered]


@strawberry.type
class ProviderQueries:
    @strawberry.field(
        description="The types of providers, whether each is configured, and their models: those that agents name, and"
        " those that their servers serve."
    )
    async def providers(self, info: Resolving) -> list[Provider]:
        asked = await _asked(info)
        return [Provider.of(one, asked) for one in info.context.services.catalogue.providers(asked)]

    @strawberry.field(
        description="The models of all providers or of one type, by `id`: those that agents name, and those that the"
        " providers' servers say they serve. `search` is a part of the id, whatever its case; `after` is the `id` of"
        " the last one that is known. A server that cannot be asked is left out: `providers` says why."
    )
    async def models(
        self,
        info: Resolving,
        provider: str | None = None,
        search: str | None = None,
        first: int = DEFAULT_PAGE,
        after: str | None = None,
    ) -> list[Model]:
        limit, asked, catalogue = page(first), await _asked(info), info.context.services.catalogue
        kinds = [one.type for one in catalogue.providers(asked)]
        if provider is not None and provider not in kinds:
            raise InvalidRequest(f"there are no providers of the type {provider[:100]!r}; there are {', '.join(kinds)}")
        wanted = kinds if provider is None else [provider]
        offers = await asyncio.gather(*(catalogue.offer(kind, asked) for kind in wanted))
        found = sorted((model for offer in offers for model in offer.models), key=lambda one: one.id)
        sought, known = (search or "").casefold(), after or ""
        return [Model.of(one) for one in found if one.id > known and sought in one.id.casefold()][:limit]


async def _asked(info: Resolving) -> Asked:
    """The providers that agents of current workflows and published agents name. Raises `Forbidden`."""
    context = info.context
    context.principal.require(Permission.READ)
    documents: list[Mapping[str, Any]] = []
    after = ("", "")
    while True:
        found = await context.services.pages.agents(context.tenant, None, LARGEST_PAGE, after)
        documents += (one.document for one in found)
        if len(found) < LARGEST_PAGE:
            break
        after = (found[-1].workflow_id, found[-1].id)
    if context.services.consultations is not None:
        documents += [one.document for one in await context.services.consultations.agents(context.tenant)]
    return [
        spec
        for document in documents
        for spec in (document.get("llm_provider") or {}, *(document.get("fallback") or ()))
        if spec
    ]
