"""New cases on their way into the database. Many that are started at once are looked up and written together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from circuit.storage import commands, ledger, workflows
from circuit.storage.database import Database
from circuit.storage.ferry import Ferry
from circuit.storage.records import NewCase
from circuit.storage.workflows import Pointer


class Intake:
    """For all tenants of a process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pointers = Ferry(self._look_up)
        self._documents = Ferry(self._read)
        self._cases = Ferry(self._write, weigh=_size)

    async def pointer(self, tenant: int, workflow_id: str) -> Pointer | None:
        """Which version of a workflow is the current one; None if there is no such workflow."""
        return await self._pointers.take(tenant, workflow_id)

    async def document(self, tenant: int, workflow_id: str, version: str) -> Mapping[str, Any] | None:
        """The document of a version, by its hash; None if it is not stored."""
        return await self._documents.take(tenant, (workflow_id, version))

    async def put(self, new: NewCase, entry: Mapping[str, Any]) -> None:
        """Write a new case, and its `entry` into the audit log; returns when it is committed."""
        await self._cases.take(new.key.tenant, (new, entry))

    async def _look_up(self, tenant: int, wanted: Sequence[str]) -> Sequence[Pointer | None]:
        async with self._database.transaction(tenant) as connection:
            found = await workflows.pointers(connection, tenant, sorted(set(wanted)))
        return [found.get(workflow_id) for workflow_id in wanted]

    async def _read(self, tenant: int, wanted: Sequence[tuple[str, str]]) -> Sequence[Mapping[str, Any] | None]:
        async with self._database.transaction(tenant) as connection:
            found = {one: await workflows.by_hash(connection, tenant, *one) for one in set(wanted)}
        return [None if (version := found[one]) is None else version.document for one in wanted]

    async def _write(self, tenant: int, given: Sequence[tuple[NewCase, Mapping[str, Any]]]) -> Sequence[None]:
        async with self._database.transaction(tenant) as connection:
            await commands.write_cases(connection, [new for new, _ in given])
            await ledger.write(connection, [entry for _, entry in given])
        return [None] * len(given)


def _size(given: tuple[NewCase, Mapping[str, Any]]) -> int:
    """How many bytes the tokens of a new case are."""
    return sum(len(orjson.dumps((token.data, token.metadata))) for token in given[0].tokens)
