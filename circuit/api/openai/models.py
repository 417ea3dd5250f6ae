"""Which models there are for a chat client: agents, workflows, and plain models: those that published agents use, and
those that the providers serve for which this server is configured."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from circuit.engine.consultations import Consultations
from circuit.engine.queries import Queries
from circuit.errors import NotFound
from circuit.providers.catalogue import ModelCatalogue
from circuit.security.permissions import Permission
from circuit.security.principal import Principal

OWNER = "circuit"
_UNKNOWN = datetime.fromtimestamp(0, UTC)
"""When a model came that a provider serves."""


class ChatModels:
    """The models of a tenant."""

    def __init__(self, queries: Queries, consultations: Consultations, catalogue: ModelCatalogue) -> None:
        self._queries = queries
        self._consultations = consultations
        self._catalogue = catalogue

    async def all(self, principal: Principal) -> dict[str, Any]:
        """The list, by id. Raises `Forbidden`."""
        entries = await self._entries(principal)
        return {"object": "list", "data": [entries[name] for name in sorted(entries)]}

    async def one(self, name: str, principal: Principal) -> Mapping[str, Any]:
        """One of them. Raises `NotFound`, `Forbidden`."""
        found = (await self._entries(principal)).get(name)
        if found is None:
            raise NotFound(f"there is no model {name[:100]!r}; /v1/models lists them", details={"param": "model"})
        return found

    async def _entries(self, principal: Principal) -> dict[str, Mapping[str, Any]]:
        principal.require(Permission.READ)
        entries: dict[str, Mapping[str, Any]] = {}
        for agent in await self._consultations.agents(principal.tenant):
            provider: Mapping[str, Any] = agent.document["llm_provider"]
            plain = f"{provider['type']}:{provider['model']}"
            entries.setdefault(plain, _entry(plain, agent.updated_at, str(provider["type"])))
            entries[f"agent:{agent.id}"] = _entry(f"agent:{agent.id}", agent.updated_at, OWNER)
        served = await asyncio.gather(*(self._catalogue.offer(one.type, ()) for one in self._catalogue.providers(())))
        for model in (model for offer in served for model in offer.models):
            entries.setdefault(model.id, _entry(model.id, _UNKNOWN, model.provider))
        for workflow in await self._queries.workflows(principal.tenant):
            name = f"workflow:{workflow.id}"
            entries[name] = _entry(name, workflow.published_at, OWNER)
        return entries


def _entry(name: str, at: datetime, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": int(at.timestamp()), "owned_by": owner}
