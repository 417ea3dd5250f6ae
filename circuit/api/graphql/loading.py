"""Batch loading: what many objects of an answer ask for is read once for all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any
from uuid import UUID

from strawberry.dataloader import DataLoader

from circuit.engine.conversations import MessageView
from circuit.engine.pages import Execution, ListedExecution, Pages
from circuit.engine.provenance import AnswerView, FeedbackView
from circuit.engine.views import CaseSummary, EventView, IncidentView, TokenView, WorkflowView

Read = Callable[..., Awaitable[Mapping[Any, Any]]]
"""One of the methods of `Pages`: of a tenant, the wanted keys, and what else it takes."""

MOST_AT_ONCE = 1_000


class Loaders:
    """Loaders over `Pages`. Nothing that they read is kept, so that a later read sees what is there then."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._known: dict[Hashable, DataLoader[Any, Any]] = {}

    async def case(self, tenant: int, case: UUID) -> CaseSummary | None:
        return await self._one(self._pages.summaries, tenant, case)

    async def marking(self, tenant: int, case: UUID) -> Mapping[str, int]:
        return await self._one(self._pages.markings, tenant, case)

    async def parent(self, tenant: int, case: UUID) -> str | None:
        return await self._one(self._pages.parents, tenant, case)

    async def children(self, tenant: int, case: UUID, after: UUID | None, first: int) -> list[CaseSummary]:
        return await self._one(self._pages.children, tenant, case, after, first)

    async def tokens(self, tenant: int, case: UUID, after: int, first: int) -> list[TokenView]:
        return await self._one(self._pages.tokens, tenant, case, after, first)

    async def events(self, tenant: int, case: UUID, after: int, first: int) -> list[EventView]:
        return await self._one(self._pages.events, tenant, case, after, first)

    async def executions(self, tenant: int, case: UUID, after: int, first: int) -> list[ListedExecution]:
        return await self._one(self._pages.executions, tenant, case, after, first)

    async def incidents(self, tenant: int, case: UUID, after: int, first: int) -> list[IncidentView]:
        return await self._one(self._pages.incidents, tenant, case, after, first)

    async def said(self, tenant: int, conversation: UUID, after: int, first: int) -> list[MessageView]:
        return await self._one(self._pages.said, tenant, conversation, after, first)

    async def feedback(self, tenant: int, execution: Execution) -> list[FeedbackView]:
        return await self._one(self._pages.feedback, tenant, execution)

    async def answers(self, tenant: int, execution: Execution) -> list[AnswerView]:
        return await self._one(self._pages.answers, tenant, execution)

    async def versions(self, tenant: int, workflow_id: str, first: int) -> list[WorkflowView]:
        return await self._one(self._pages.versions, tenant, workflow_id, first)

    async def _one(self, read: Read, tenant: int, key: Any, *arguments: Hashable) -> Any:
        kind = (read, tenant, arguments)
        loader = self._known.get(kind)
        if loader is None:

            async def load(keys: list[Any]) -> list[Any]:
                # Two fields, or one under two aliases, ask for the same.
                found = await read(tenant, list(dict.fromkeys(keys)), *arguments)
                return [found.get(one) for one in keys]

            loader = self._known[kind] = DataLoader(load_fn=load, max_batch_size=MOST_AT_ONCE, cache=False)
        return await loader.load(key)
