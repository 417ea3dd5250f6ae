"""The audit log as it is read: who did what to which, when, from where."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from circuit.engine.views import instant
from circuit.errors import InvalidRequest
from circuit.security.permissions import Permission
from circuit.security.principal import Principal
from circuit.storage import ledger
from circuit.storage.database import Database
from circuit.storage.ledger import LedgerEntry as LedgerEntry
from circuit.storage.ledger import Sought as Sought

LARGEST_PAGE = 1_000


class Ledger:
    """The door to the audit log. It takes the permission to administer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self, principal: Principal, sought: Sought, limit: int, before: int | None = None
    ) -> list[LedgerEntry]:
        """Entries of the principal's tenant, the youngest first; `before` is the last one of the page before. Raises
        `Forbidden` and `InvalidRequest`."""
        principal.require(Permission.ADMINISTER)
        if not 1 <= limit <= LARGEST_PAGE:
            raise InvalidRequest(f"a page of the audit log has 1 to {LARGEST_PAGE} entries, not {limit}")
        async with self._database.transaction(principal.tenant) as connection:
            return await ledger.entries(connection, principal.tenant, sought, limit=limit, before=before)

    async def all(self, principal: Principal, sought: Sought) -> AsyncGenerator[LedgerEntry]:
        """All entries, the oldest first. Raises `Forbidden` at the first step."""
        principal.require(Permission.ADMINISTER)
        after = 0
        while True:
            async with self._database.transaction(principal.tenant) as connection:
                found = await ledger.entries(connection, principal.tenant, sought, limit=LARGEST_PAGE, after=after)
            for entry in found:
                yield entry
            if len(found) < LARGEST_PAGE:
                return
            after = found[-1].number


def entry_json(entry: LedgerEntry) -> dict[str, Any]:
    """An entry as every door shows it."""
    return {
        "entry": entry.number,
        "at": instant(entry.at),
        "subject": entry.subject,
        "action": entry.action,
        "target": entry.target,
        "origin": entry.origin,
        "details": dict(entry.details),
    }
