"""Reads a database page by page and gathers what its cases and workers break.

Memory holds one page, or one case with its tokens. A snapshot lasts a few seconds at most and is then taken anew, so
that an audit of a large database holds up neither the vacuum nor the archive: every invariant of a case is judged
within one snapshot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from circuit.definition.workflow import Workflow
from circuit.engine.audit import (
    answers,
    artefacts,
    budgets,
    counters,
    deployment,
    endings,
    firings,
    progress,
    schedules,
    streams,
    tokens,
)
from circuit.engine.audit.case import AuditedCase
from circuit.engine.audit.fault import LOST, Fault
from circuit.engine.audit.replay import Replay
from circuit.engine.connecting import connected
from circuit.engine.tombstone import is_erased
from circuit.engine.versions import VersionKey, Versions, VersionUnusable
from circuit.errors import ArtefactLost, SchemaMismatch
from circuit.events import CaseMigrated, CaseStarted, decode_event
from circuit.ids import CaseKey
from circuit.storage import audit, rows, schema
from circuit.storage.artefacts import hashes
from circuit.storage.database import Database
from circuit.storage.driver import Connection

SNAPSHOT_SECONDS = 5.0
MOST_FAULTS = 1_000
"""So many faults are kept; the others are counted."""

_CHECKS = (
    counters.check,
    tokens.check,
    firings.check,
    progress.check,
    streams.check,
    endings.check,
    answers.check,
    schedules.check,
    budgets.check,
)


@dataclass(slots=True)
class Report:
    """What an audit found. Of `erased` cases the hashes of payloads were compared; `unchecked` are cases that this
    release could not judge, and why."""

    cases: int = 0
    events: int = 0
    erased: int = 0
    found: int = 0
    faults: list[Fault] = field(default_factory=list[Fault])
    unchecked: dict[CaseKey, str] = field(default_factory=dict[CaseKey, str])
    notes: list[str] = field(default_factory=list[str])

    @property
    def clean(self) -> bool:
        """Whether everything was judged and nothing is wrong."""
        return not self.found and not self.unchecked

    def add(self, fault: Fault) -> None:
        self.found += 1
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(fault)

    def as_dict(self) -> dict[str, Any]:
        unchecked = [
            {"tenant_id": key.tenant, "case_id": str(key.case), "reason": reason}
            for key, reason in self.unchecked.items()
        ]
        return {
            "clean": self.clean,
            "cases": self.cases,
            "events": self.events,
            "erased": self.erased,
            "found": self.found,
            "faults": [fault.as_dict() for fault in self.faults],
            "unchecked": unchecked,
            "notes": self.notes,
        }


Progress = Callable[[Report, int], None]
"""Hears after each page what was found so far, and how many cases there are to look at."""


async def inspect_at(url: str, **options: Any) -> Report:
    """`inspect` the database at `url`. Raises `SchemaMismatch` where it is not one that this release can judge."""
    database = await Database.open(url)
    try:
        await schema.require_current(database)
        return await inspect(database, **options)
    finally:
        await database.close()


async def inspect(
    database: Database,
    *,
    tenant: int | None = None,
    case: UUID | None = None,
    share: float = 1.0,
    seed: int = 0,
    versions: Versions | None = None,
    progress: Progress = lambda report, total: None,
) -> Report:
    """Check every case (of one tenant, one case, or a share drawn by `seed`), and, where no single case was asked for,
    the workers. Raises `StorageError`."""
    report = Report()
    scope = audit.Scope.of(tenant, case, share, seed)
    kept = versions or Versions()
    async with connected(database) as conn:
        await audit.prepare(conn)
        async with audit.snapshot(conn):
            if case is None:
                found, report.notes = await deployment.check(conn)
                for fault in found:
                    report.add(fault)
            total = await audit.count(conn, scope)
        after: CaseKey | None = scope.after
        while after is not None:
            after = await _within_snapshot(conn, scope, after, kept, report, lambda: progress(report, total))
    return report


async def _within_snapshot(
    conn: Connection,
    scope: audit.Scope,
    after: CaseKey,
    versions: Versions,
    report: Report,
    told: Callable[[], None],
) -> CaseKey | None:
    """Check pages for a while; where to go on, or None at the end."""
    loop = asyncio.get_running_loop()
    until = loop.time() + SNAPSHOT_SECONDS
    async with audit.snapshot(conn):
        leaving = await audit.leaving(conn)
        while loop.time() < until:
            page = await audit.page(conn, scope, after)
            for fault in deployment.strays(page, leaving):
                report.add(fault)
            for stored in page.cases:
                gone = any(week.state == "streams" and week.lower <= stored.key.case < week.upper for week in leaving)
                await _check(conn, page, stored, versions, report, gone)
            told()
            if page.last:
                return None
            after = page.upto
    return after


async def _check(
    conn: Connection,
    page: audit.Page,
    stored: audit.StoredCase,
    versions: Versions,
    report: Report,
    streams_gone: bool,
) -> None:
    """Replay one case and compare. What this release cannot read is said, and spoils no other case."""
    report.cases += 1
    report.erased += is_erased(rows.document(stored.row["parameters"]))
    key = stored.key
    for fault in artefacts.check(stored):
        report.add(fault)
    try:
        workflow = await _version(conn, stored, stored.row["workflow_hash"], versions, report)
        replay = Replay(key, None, counted_upto=stored.row["fired_seq"])
        found: list[Fault] = []
        async for row in audit.history(conn, page, key):
            report.events += 1
            event = decode_event(row["kind"], rows.document(row["body"]))
            found += artefacts.unkept(stored, "history", hashes(row), seq=row["seq"])
            if isinstance(event, CaseStarted | CaseMigrated):
                of = await _version(conn, stored, event.workflow_hash, versions, report)
                replay.net = None if of is None else of.net
            found += replay.apply(row["seq"], row["at"], event)
        audited = AuditedCase(stored, replay, workflow, streams_gone)
        if replay.started is None:
            found.append(audited.fault("I2", "history", "the case has no first event", LOST, seq=1))
        for fault in (*found, *_compared(audited)):
            report.add(fault)
    except (ArtefactLost, SchemaMismatch) as error:
        report.unchecked[key] = error.message
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        report.unchecked[key] = f"this release cannot read it: {type(error).__name__}: {error}"


async def _version(
    conn: Connection, stored: audit.StoredCase, version: str, versions: Versions, report: Report
) -> Workflow | None:
    """A version that a case is on, or was on before. None where this release cannot use it, which is said."""
    key = VersionKey(stored.key.tenant, stored.row["workflow_id"], version)
    try:
        if not versions.known(key):
            versions.add(key, await audit.document(conn, *key))
        return versions.get(key)
    except VersionUnusable as error:
        report.unchecked[stored.key] = error.message
        return None


def _compared(audited: AuditedCase) -> Iterator[Fault]:
    for check in _CHECKS:
        yield from check(audited)
