"""The audit log: who did what to which, when, from where."""

from __future__ import annotations

from datetime import datetime

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.context import Resolving
from circuit.api.graphql.paging import DEFAULT_PAGE, page
from circuit.api.graphql.scalars import as_json
from circuit.engine.ledger import LedgerEntry, Sought
from circuit.errors import Conflict, InvalidRequest


@strawberry.type(description="An entry of the audit log, which never changes.")
class AuditEntry:
    id: str = strawberry.field(description="Give it as `after` to go on with older ones.")
    at: datetime
    subject: str = strawberry.field(description="Who.")
    action: str = strawberry.field(description="What, such as `case.start`.")
    target: str = strawberry.field(description="To which: the id of a case, a workflow, a key.")
    origin: str = strawberry.field(description="From where: an address and a path, or `local`.")
    details: JSON

    @classmethod
    def of(cls, entry: LedgerEntry) -> AuditEntry:
        return cls(
            id=str(entry.number),
            at=entry.at,
            subject=entry.subject,
            action=entry.action,
            target=entry.target,
            origin=entry.origin,
            details=as_json(dict(entry.details)),
        )


@strawberry.type
class AuditQueries:
    @strawberry.field(
        description="The audit log, the youngest entry first. It takes the permission to administer. `action` is one "
        "action, or the first part of some (`case`). `deployment`: what is done to the deployment itself and who was "
        "not let in, for administrators of its first tenant."
    )
    async def audit_log(
        self,
        info: Resolving,
        subject: str | None = None,
        action: str | None = None,
        target: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        deployment: bool = False,
        first: int = DEFAULT_PAGE,
        after: str | None = None,
    ) -> list[AuditEntry]:
        ledger = info.context.services.ledger
        if ledger is None:
            raise Conflict("this server shows no audit log")
        sought = Sought(subject, action, target, since, until)
        found = await ledger.page(info.context.principal, sought, page(first), _behind(after), deployment=deployment)
        return [AuditEntry.of(entry) for entry in found]


def _behind(after: str | None) -> int | None:
    if after is None:
        return None
    if not after.isascii() or not after.isdigit() or len(after) > 18:
        raise InvalidRequest("`after` is the id of the last entry that is known")
    return int(after)
