"""The server that answers, and the workers of its deployment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import strawberry
from strawberry.scalars import JSON

import circuit
from circuit.api.graphql.context import Resolving
from circuit.api.graphql.scalars import as_json
from circuit.engine.fleet import WorkerView


@strawberry.type(description="The server that answers.")
class ServerStatus:
    version: str
    ready: bool
    stream_readers: int
    database: JSON
    workers: JSON = strawberry.field(description="How many workers of the deployment are in which state.")

    @classmethod
    def of(cls, known: Mapping[str, Any], readers: int, workers: Sequence[WorkerView]) -> ServerStatus:
        states = Counter(worker.state.value for worker in workers)
        return cls(
            version=circuit.__version__,
            ready=True,
            stream_readers=readers,
            database=as_json(dict(known)),
            workers=as_json(dict(states)),
        )


@strawberry.type
class ServerQueries:
    @strawberry.field(description="Which release answers, and whether it can serve.")
    async def server_status(self, info: Resolving) -> ServerStatus:
        info.context.require_reading()
        services = info.context.services
        known, workers = await services.ready(), await services.fleet.workers()
        return ServerStatus.of(known, len(info.context.readers), workers)
