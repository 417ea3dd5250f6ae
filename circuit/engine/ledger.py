"""The audit log as it is read: who did what to which, when, from where."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from circuit.engine.views import instant
from circuit.errors import Forbidden, InvalidRequest
from circuit.ids import DEFAULT_TENANT, DEPLOYMENT
from circuit.security.permissions import Permission
from circuit.security.principal import Principal
from circuit.storage import ledger
from circuit.storage.database import Database
from circuit.storage.ledger import LedgerEntry as LedgerEntry
from circuit.storage.ledger import Sought as Sought

LARGEST_PAGE = 1_000


class Ledger:
    """The door to the audit log. It takes the permission to administer.

    What is done to the deployment itself (its workers, its tenants, the limits of providers), and who was not let in,
    is no tenant's: the deployment has a log of its own.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self,
        principal: Principal,
        sought: Sought,
        limit: int,
        before: int | None = None,
        *,
        deployment: bool = False,
    ) -> list[LedgerEntry]:
        """Entries of the principal's tenant, or of the deployment, the youngest first; `before` is the last one of the
        page before. Raises `Forbidden` and `InvalidRequest`."""
        tenant = _whose(principal, deployment=deployment)
        if not 1 <= limit <= LARGEST_PAGE:
            raise InvalidRequest(f"a page of the audit log has 1 to {LARGEST_PAGE} entries, not {limit}")
        async with self._database.transaction(tenant) as connection:
            return await ledger.entries(connection, tenant, sought, limit=limit, before=before)

    async def all(
        self, principal: Principal, sought: Sought, *, deployment: bool = False
    ) -> AsyncGenerator[LedgerEntry]:
        """All entries, the oldest first. Raises `Forbidden` at the first step."""
        tenant = _whose(principal, deployment=deployment)
        after = 0
        while True:
            async with self._database.transaction(tenant) as connection:
                found = await ledger.entries(connection, tenant, sought, limit=LARGEST_PAGE, after=after)
            for entry in found:
                yield entry
            if len(found) < LARGEST_PAGE:
                return
            after = found[-1].number


def _whose(principal: Principal, *, deployment: bool) -> int:
    """The tenant whose entries are read. Those of the deployment are for who administers its first tenant."""
    principal.require(Permission.ADMINISTER)
    if not deployment:
        return principal.tenant
    if principal.tenant != DEFAULT_TENANT:
        raise Forbidden("what concerns the whole deployment is for the administrators of its first tenant")
    return DEPLOYMENT


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
