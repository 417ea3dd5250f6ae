"""The server that answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import strawberry
from strawberry.scalars import JSON

import circuit
from circuit.api.graphql.context import Resolving
from circuit.api.graphql.scalars import as_json
from circuit.security.permissions import Permission


@strawberry.type(description="The server that answers.")
class ServerStatus:
    version: str
    ready: bool
    stream_readers: int
    database: JSON

    @classmethod
    def of(cls, known: Mapping[str, Any], readers: int) -> ServerStatus:
        return cls(version=circuit.__version__, ready=True, stream_readers=readers, database=as_json(dict(known)))


@strawberry.type
class ServerQueries:
    @strawberry.field(description="Which release answers, and whether it can serve.")
    async def server_status(self, info: Resolving) -> ServerStatus:
        info.context.principal.require(Permission.READ)
        known = await info.context.services.ready()
        return ServerStatus.of(known, len(info.context.readers))
