"""Whom cases are about: named, found, exported, erased.

A subject is a person, by whatever name the deployment knows him. An erasure takes the payloads of all cases about him,
and of those that they opened; the rows stay, each with the hash of what was there (`circuit.engine.tombstone`), so that
the histories still replay. Each case is a transaction of its own: what was interrupted is asked for again and goes on.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from circuit.engine.archive.round import Archive, Erased
from circuit.engine.asking import check_subject, check_subjects
from circuit.engine.commands import Commands, OutcomeState
from circuit.engine.connecting import connected
from circuit.engine.tombstone import PERSONAL, erased_row
from circuit.engine.views import instant
from circuit.errors import Conflict, NotFound
from circuit.ids import CaseKey
from circuit.security.permissions import Permission
from circuit.security.principal import Principal
from circuit.storage import artefacts, ledger, subjects
from circuit.storage.archive import ARCHIVED
from circuit.storage.database import Database
from circuit.storage.driver import Connection
from circuit.storage.records import CaseStatus
from circuit.storage.subjects import LinkRow

CANCEL_SECONDS = 30.0
LOOK_SECONDS = 0.1
EXPORTED = tuple(
    table for table in dict.fromkeys(("case", *ARCHIVED, "sent_message")) if not table.startswith("artefact")
)
"""The tables of which an export has the rows, each whole."""
_REASON = "what it holds is erased"


@dataclass(frozen=True, slots=True)
class SubjectCase:
    """A case that is about a subject. Without a `status` it is not in the database: it may be archived."""

    key: CaseKey
    workflow_id: str | None
    status: str | None
    erased_at: datetime | None

    @classmethod
    def of(cls, tenant: int, row: LinkRow) -> SubjectCase:
        return cls(CaseKey(tenant, row.case), row.workflow_id, row.status, row.erased_at)

    @property
    def open(self) -> bool:
        return self.status is not None and not CaseStatus(self.status).terminal

    def as_dict(self) -> dict[str, Any]:
        return {
            "case_id": str(self.key.case),
            "workflow": self.workflow_id,
            "status": self.status,
            "erased_at": None if self.erased_at is None else instant(self.erased_at),
        }


@dataclass(slots=True)
class Erasure:
    """What an erasure did, or would do: in how many rows of each table, and what it could not reach."""

    cases: int = 0
    archived: int = 0
    rows: Counter[str] = field(default_factory=Counter[str])
    cached_answers: int = 0
    messages: int = 0
    unreachable: Sequence[str] = ()
    dry_run: bool = False

    @property
    def whole(self) -> bool:
        """Whether nothing is left of which Circuit knows."""
        return not self.unreachable

    def as_dict(self) -> dict[str, Any]:
        return {
            "cases": self.cases,
            "archived_cases": self.archived,
            "rows": dict(sorted(self.rows.items())),
            "cached_answers": self.cached_answers,
            "messages_deleted": self.messages,
            "unreachable": list(self.unreachable),
            "dry_run": self.dry_run,
        }


class Subjects:
    """The door to what is personal. Naming a subject takes the permission to operate, all else to administer."""

    def __init__(self, database: Database, commands: Commands, archive: Archive) -> None:
        self._database = database
        self._commands = commands
        self._archive = archive

    async def add(self, key: CaseKey, wanted: Collection[str], principal: Principal) -> None:
        """Say that a case is about these too, and so are the cases that it opens. Raises `NotFound`, `Forbidden`,
        `InvalidRequest`."""
        principal.require(Permission.OPERATE)
        check_subjects(wanted)
        async with self._database.transaction(principal.tenant) as connection:
            if key.tenant != principal.tenant or not await subjects.is_there(connection, key):
                raise NotFound(f"there is no case {key}; `circuit cases` lists them")
            await subjects.link(connection, key, wanted, principal.subject)
            for one in wanted:
                await ledger.note(connection, principal, "subject.add", named(one), case=str(key))

    async def cases(self, subject: str, principal: Principal) -> list[SubjectCase]:
        """The cases that are about a subject, the oldest first. Raises `Forbidden`, `InvalidRequest`."""
        principal.require(Permission.ADMINISTER)
        check_subject(subject)
        async with connected(self._database) as connection:
            return await _cases(connection, principal.tenant, subject)

    async def export(self, subject: str, principal: Principal) -> AsyncGenerator[tuple[str, dict[str, Any]]]:
        """All rows of the cases about a subject, each with its table; a case's own row comes first. Raises as `cases`
        does, and `ArchiveDamaged`."""
        for one in await self._exporting(subject, await self.cases(subject, principal), principal):
            for table, row in await self._rows(one.key):
                yield table, row

    async def exported(
        self, subject: str, key: CaseKey, principal: Principal
    ) -> list[tuple[str, dict[str, Any]]] | None:
        """All rows of one case about a subject, each with its table; None of a case that is not about him. Raises as
        `export` does."""
        found = [one for one in await self.cases(subject, principal) if one.key == key]
        if not found:
            return None
        await self._exporting(subject, found, principal)
        return await self._rows(key)

    async def _exporting(
        self, subject: str, found: Sequence[SubjectCase], principal: Principal
    ) -> Sequence[SubjectCase]:
        async with self._database.transaction(principal.tenant) as connection:
            await ledger.note(connection, principal, "subject.export", named(subject), cases=len(found))
        return found

    async def _rows(self, key: CaseKey) -> list[tuple[str, dict[str, Any]]]:
        """All rows of a case; none of one that is nowhere."""
        async with connected(self._database) as connection:
            found: list[tuple[str, dict[str, Any]]] = []
            for table in EXPORTED:
                rows = await subjects.rows_of(connection, table, key)
                found += [(table, row) for row in await artefacts.whole(connection, key.tenant, rows)]
        if not any(table == "case" for table, _ in found):
            try:
                archived: dict[str, list[dict[str, Any]]] = (await self._archive.show(key))["rows"]
            except NotFound:
                return found
            found += [(table, row) for table in EXPORTED for row in archived.get(table, ())]
        return found

    async def erase(
        self, subject: str, principal: Principal, *, cancel: bool = False, dry_run: bool = False
    ) -> Erasure:
        """Erase what the cases about a subject hold. With `cancel`, those that go on are cancelled first; `dry_run`
        changes nothing and counts.

        Raises `Conflict` where cases have not ended, or the archive is at work; `ArchiveDamaged`, `Forbidden`,
        `InvalidRequest`.
        """
        found = await self.cases(subject, principal)
        await self._end([one for one in found if one.open], principal, cancel=cancel, dry_run=dry_run)
        erasure = Erasure(dry_run=dry_run)
        async with connected(self._database) as connection:
            # The archive first: it is not at work from then on, and moves no case meanwhile.
            found = await _cases(connection, principal.tenant, subject)
            filed = await self._archive.erase(connection, [one.key for one in found], dry_run=dry_run)
            self._count(erasure, filed)
            for one in found:
                await self._erase(connection, one.key, erasure, dry_run=dry_run)
            if not dry_run:
                await self._finish(connection, subject, found, filed, principal, erasure)
        return erasure

    async def _end(self, going: Sequence[SubjectCase], principal: Principal, *, cancel: bool, dry_run: bool) -> None:
        if not going or dry_run:
            return
        if not cancel:
            named_ = ", ".join(str(one.key.case) for one in going[:5])
            raise Conflict(
                f"{len(going)} cases about this subject have not ended, among them {named_}: wait, or have them"
                " cancelled (--cancel)"
            )
        for one in going:
            try:
                outcome = await self._commands.cancel(
                    one.key, _REASON, principal=principal, wait_seconds=CANCEL_SECONDS
                )
            except Conflict:
                continue  # it has ended meanwhile, perhaps with the case that opened it
            if outcome.state is OutcomeState.PENDING:
                raise Conflict(f"case {one.key} is not cancelled yet: no worker has come to it; ask again when one has")

    async def _erase(self, connection: Connection, key: CaseKey, erasure: Erasure, *, dry_run: bool) -> None:
        """Erase one case, all of it or nothing; of one that is archived, what lies in the database still."""
        there = not dry_run and await self._over(connection, key)
        changed = Counter[str]()
        async with connection.transaction(isolation="read_committed"):
            await subjects.lock(connection, key)
            for table in PERSONAL:
                rows = await subjects.rows_of(connection, table, key)
                whole = await artefacts.whole(connection, key.tenant, rows)
                erased = [(stored, erased_row(table, row, stored)) for row, stored in zip(whole, rows, strict=True)]
                changes = [(stored, columns) for stored, columns in erased if columns]
                changed[table] = len(changes)
                if not dry_run:
                    await subjects.change(connection, table, key, changes)
            if there:
                changed["artefact"] = await artefacts.let_go(connection, key)
                await subjects.mark(connection, key)
        erasure.cases += bool(changed["case"])
        erasure.rows += +changed

    async def _over(self, connection: Connection, key: CaseKey) -> bool:
        """Whether a case is there, and over. Its worker may hold it for a moment after its end. Raises `Conflict`."""
        deadline = asyncio.get_running_loop().time() + CANCEL_SECONDS
        while (over := await subjects.over(connection, key)) is False:
            if asyncio.get_running_loop().time() >= deadline:
                raise Conflict(f"case {key} goes on: ask again when it has ended, or with --cancel")
            await asyncio.sleep(LOOK_SECONDS)
        return over is not None

    def _count(self, erasure: Erasure, filed: Erased) -> None:
        erasure.archived = len(filed.held)
        erasure.rows += filed.changed
        erasure.unreachable = tuple(filed.unreachable)

    async def _finish(
        self,
        connection: Connection,
        subject: str,
        found: Sequence[SubjectCase],
        filed: Erased,
        principal: Principal,
        erasure: Erasure,
    ) -> None:
        """What lies beside the cases, and the entry in the audit log."""
        tenant = principal.tenant
        async with connection.transaction(isolation="read_committed"):
            for key in filed.held:
                await subjects.mark(connection, key)
            erasure.cached_answers = await subjects.empty_cache(connection, tenant)
            erasure.messages = await subjects.forget_untaken(connection, tenant, subject)
            await ledger.enter(
                connection,
                principal,
                "subject.erase",
                named(subject),
                tenant=tenant,
                cases=erasure.cases,
                archived=erasure.archived,
                rows=erasure.rows.total(),
                unreachable=len(erasure.unreachable),
            )
            if erasure.whole:
                gone = [one.key for one in found if one.status is None and one.key not in filed.held]
                await subjects.forget_strays(connection, tenant, [key.case for key in gone])


def named(subject: str) -> str:
    """A subject as the audit log has it, which nobody can erase: by the hash of its name."""
    return f"sha256:{subjects.digest(subject).hex()}"


async def _cases(connection: Connection, tenant: int, subject: str) -> list[SubjectCase]:
    return [SubjectCase.of(tenant, row) for row in await subjects.linked(connection, tenant, subject)]
