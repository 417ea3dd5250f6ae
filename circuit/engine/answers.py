"""The answers of models that a tenant's identical requests share, in the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from circuit.engine.payload import PayloadFault, PayloadOversize, storable
from circuit.storage import answers
from circuit.storage.database import Database


@dataclass(frozen=True, slots=True)
class Answers:
    """What one tenant has of them; no other sees it."""

    database: Database
    tenant: int

    async def find(self, digest: bytes) -> Mapping[str, Any] | None:
        """The answer that is kept under `digest`, unless its time is over. Raises `StorageError`."""
        async with self.database.transaction(self.tenant) as connection:
            return await answers.find(connection, self.tenant, digest)

    async def keep(self, digest: bytes, answer: Mapping[str, Any], seconds: float) -> None:
        """Keep `answer` for so long. One that no row can hold is not kept. Raises `StorageError`."""
        try:
            stored = storable(answer)
        except (PayloadFault, PayloadOversize):
            return
        async with self.database.transaction(self.tenant) as connection:
            await answers.keep(connection, self.tenant, digest, stored, seconds)
