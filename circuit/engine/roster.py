"""The published agents that something names, with all whom these may ask or hand over to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from circuit.definition.adoption import colleagues
from circuit.storage import agents


async def documents(connection: Any, tenant: int, ids: Collection[str]) -> dict[str, Mapping[str, Any]]:
    """Those of these agents that are published, by id, in canonical form, and those of their colleagues that are."""
    found: dict[str, Mapping[str, Any]] = {}
    asked: set[str] = set()
    wanted = set(ids)
    while wanted:
        asked |= wanted
        found |= {one.id: one.document for one in await agents.current(connection, tenant, sorted(wanted))}
        wanted = {name for one in found.values() for name in colleagues(one)} - asked
    return found
