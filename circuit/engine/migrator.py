"""Brings the live cases of a workflow to another of its versions: judges each, moves those that can go, lists the rest.

What has to be proven is proven once for each distinct marking: that from there the new version can always come to an
end. A case is moved by its owner, with one command, and only as it was judged; so whoever is interrupted asks again,
and what has gone already is not asked a second time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from uuid import UUID

from circuit.definition.versions import content_hash
from circuit.definition.workflow import Workflow
from circuit.engine.commands import CommandOutcome, Commands, OutcomeState
from circuit.engine.migration import Passage
from circuit.engine.queries import Queries
from circuit.engine.requirement import of_child, requirement
from circuit.engine.versions import VersionKey, VersionUnusable
from circuit.errors import CircuitError, Conflict, InvalidRequest, NotFound
from circuit.ids import CaseKey
from circuit.net.analysis.completion import completion
from circuit.net.analysis.limits import Limits
from circuit.net.analysis.translation import translate
from circuit.net.analysis.verdict import Verdict, unknown
from circuit.security.permissions import Permission
from circuit.security.principal import Principal
from circuit.storage import commands, standing, workflows
from circuit.storage.database import Database
from circuit.storage.records import CaseRow
from circuit.storage.standing import Standing

PAGE = 100
AT_ONCE = 16
"""So many cases are asked at a time."""
TRIES = 3
"""So often a case is judged anew that has gone on since it was judged."""
PROOF_SECONDS = 10.0
WAIT_SECONDS = 10.0
MOST_LISTED = 1_000
"""So many of the cases that stay are named; the others are counted."""
SHORTEST_PREFIX = 4


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be moved where: the cases of `workflow_id` on the version `old` (every other, if None) to `new`; both
    may be the beginning of a hash, and `new` is the current version if it is None. `places` are the names that places
    have in the new version, where they have others. With `restart`, firings that cannot go along are cancelled and
    begin anew; with `unproven`, cases go of which it could not be decided whether they come to an end."""

    workflow_id: str
    old: str | None = None
    new: str | Workflow | None = None
    places: Mapping[str, str] = field(default_factory=dict[str, str])
    restart: bool = False
    unproven: bool = False
    dry_run: bool = False


@dataclass(slots=True)
class MarkingReport:
    """A distinct marking of live cases, of how many, and whether they can always come to an end from there."""

    version: str
    marking: Mapping[str, int]
    verdict: str
    reason: str = ""
    trace: Sequence[str] = ()
    cases: int = 0

    @property
    def movable(self) -> bool:
        return self.verdict == "proven"

    def as_dict(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "marking": dict(self.marking),
            "cases": self.cases,
            "completion": self.verdict,
            "reason": self.reason,
            "trace": list(self.trace),
        }


@dataclass(slots=True)
class MigrationReport:
    """What became of a migration. `moved` are the cases that went (or, of a dry run, would); `stay` names those that
    did not, each with the reason; `pending` have been asked, and their owner has not answered yet. `last` is where to
    go on, where a limit ended it."""

    workflow_id: str
    version: str
    dry_run: bool
    markings: list[MarkingReport] = field(default_factory=list[MarkingReport])
    moved: int = 0
    left: int = 0
    pending: int = 0
    stay: dict[CaseKey, str] = field(default_factory=dict[CaseKey, str])
    last: UUID | None = None

    @property
    def cases(self) -> int:
        return self.moved + self.left + self.pending

    def leave(self, key: CaseKey, reason: str) -> None:
        self.left += 1
        if len(self.stay) < MOST_LISTED:
            self.stay[key] = reason

    def as_dict(self) -> dict[str, Any]:
        return {
            "workflow": self.workflow_id,
            "version": self.version,
            "dry_run": self.dry_run,
            "cases": self.cases,
            "moved": self.moved,
            "left": self.left,
            "pending": self.pending,
            "markings": [one.as_dict() for one in self.markings],
            "stay": [{"case_id": str(key.case), "reason": reason} for key, reason in self.stay.items()],
        }


Take = Callable[[CaseKey], AbstractContextManager[None]]
"""Entered with each case while it is asked, so that a process which has to move it itself takes it."""


class Migrator:
    """Judges and moves cases. Each call acts in the tenant of its principal."""

    def __init__(self, database: Database, queries: Queries, asking: Commands) -> None:
        self._database = database
        self._queries = queries
        self._asking = asking

    async def migrate(
        self,
        wanted: Wanted,
        *,
        principal: Principal,
        limit: int | None = None,
        after: UUID | None = None,
        take: Take = lambda key: nullcontext(),
        progress: Callable[[MigrationReport], None] = lambda report: None,
    ) -> MigrationReport:
        """Move what can be moved, the oldest cases first: `limit` cases at most, behind the case `after`.

        Raises `NotFound` for a workflow or a version that is not there, `InvalidRequest` for places that are not there
        and for a version that several begin with, `Forbidden`.
        """
        principal.require(Permission.EDIT)
        tenant = principal.tenant
        known = await self._versions(tenant, wanted.workflow_id)
        new = await self.target(tenant, wanted)
        old = None if wanted.old is None else _meant(wanted.workflow_id, wanted.old, known)
        if old is not None and old == new.hash:
            raise InvalidRequest(f"the cases are on version {old[:12]} of {wanted.workflow_id} already")
        await self._check_places(tenant, wanted, known if old is None else [old], new)
        report = MigrationReport(wanted.workflow_id, new.hash, wanted.dry_run, last=after)
        moving = _Moving(self, wanted, new, principal, report, take)
        while limit is None or report.cases < limit:
            size = PAGE if limit is None else min(PAGE, limit - report.cases)
            async with self._database.transaction(tenant) as connection:
                page = await standing.live_cases(
                    connection,
                    tenant,
                    wanted.workflow_id,
                    version=old,
                    other_than=new.hash,
                    after=report.last,
                    limit=size,
                )
            await moving.page(page)
            progress(report)
            if page:
                report.last = page[-1].key.case
            if len(page) < size:
                report.last = None
                break
        return report

    async def again(self, key: CaseKey, wanted: Wanted, new: str) -> Standing | None:
        """A case as it stands now, or None if it has ended or is on the new version."""
        async with self._database.transaction(key.tenant) as connection:
            found = await standing.live_cases(
                connection, key.tenant, wanted.workflow_id, version=None, other_than=new, only=key.case
            )
        return found[0] if found else None

    async def passage(self, key: CaseKey, wanted: Wanted, version: str, new: Workflow) -> Passage:
        """The way from a version. Raises `VersionUnusable`."""
        old = await self._queries.version(VersionKey(key.tenant, wanted.workflow_id, version))
        return Passage(old, new, wanted.places, wanted.restart)

    async def bucket(self, tenant: int, needs: Mapping[str, Any]) -> int:
        """The bucket of cases with these needs."""
        async with self._database.transaction(tenant) as connection:
            return await commands.bucket_of(connection, needs)

    async def ask(self, found: Standing, payload: Mapping[str, Any], principal: Principal) -> CommandOutcome:
        """Put the command to the owner of a case; of the same judgement, once."""
        key = f"migrate {content_hash(payload)[:40]}"
        return await self._asking.ask(found.key, "migrate", payload, principal, key, wait_seconds=WAIT_SECONDS)

    # -- what is meant ------------------------------------------------------------------------------------------------

    async def _versions(self, tenant: int, workflow_id: str) -> list[str]:
        async with self._database.transaction(tenant) as connection:
            known = await workflows.hashes(connection, tenant, workflow_id)
        if not known:
            raise NotFound(f"there is no workflow {workflow_id!r}; publish it with `circuit load`")
        return known

    async def target(self, tenant: int, wanted: Wanted) -> Workflow:
        """The version that cases are to go to. Raises `NotFound`, `InvalidRequest`."""
        known, new = await self._versions(tenant, wanted.workflow_id), wanted.new
        if isinstance(new, Workflow):
            if new.id != wanted.workflow_id:
                raise InvalidRequest(f"cases of {wanted.workflow_id} do not go to another workflow, {new.id}")
            if new.hash not in known and not wanted.dry_run:
                raise NotFound(
                    f"this version of workflow {new.id} is not published: `circuit load` it first, or try --dry-run"
                )
            return new
        if new is None:
            view = await self._queries.workflow(tenant, wanted.workflow_id)
            new = known[0] if view is None else view.hash
        version = _meant(wanted.workflow_id, new, known)
        return await self._queries.version(VersionKey(tenant, wanted.workflow_id, version))

    async def _check_places(self, tenant: int, wanted: Wanted, old: Sequence[str], new: Workflow) -> None:
        """Raise `InvalidRequest` for names that no version has."""
        if not wanted.places:
            return
        named: set[str] = set()
        for version in old:
            try:
                workflow = await self._queries.version(VersionKey(tenant, wanted.workflow_id, version))
            except VersionUnusable:
                continue
            named |= workflow.net.places.keys()
        for place, name in wanted.places.items():
            if place not in named:
                raise InvalidRequest(f"no version that cases are to leave has a place {place!r}")
            if name not in new.net.places:
                raise InvalidRequest(f"version {new.hash[:12]} of {new.id} has no place {name!r}")


class _Moving:
    """One migration: what was judged and asked so far."""

    def __init__(
        self,
        migrator: Migrator,
        wanted: Wanted,
        new: Workflow,
        principal: Principal,
        report: MigrationReport,
        take: Take,
    ) -> None:
        self._migrator = migrator
        self._wanted = wanted
        self._new = new
        self._principal = principal
        self._report = report
        self._take = take
        self._known: dict[tuple[str, frozenset[tuple[str, int]]], MarkingReport] = {}
        self._buckets: dict[str, int] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def page(self, page: Sequence[Standing]) -> None:
        """Judge these cases, and move those that can go."""
        judged = [(found, await self._judge(found, count=True)) for found in page]
        if self._wanted.dry_run:
            self._report.moved += sum(payload is not None for _, payload in judged)
            return
        await asyncio.gather(*(self._move(found, payload) for found, payload in judged if payload is not None))

    async def _judge(self, found: Standing, *, count: bool) -> dict[str, Any] | None:
        """The command that moves a case, or None where it stays, which the report is told."""
        key, row = found.key, found.row
        try:
            passage = await self._migrator.passage(key, self._wanted, row.workflow_hash, self._new)
        except VersionUnusable as error:
            self._report.leave(key, error.message)
            return None
        marking = await self._marking(passage, Counter(token.place for token in found.tokens))
        marking.cases += count
        restarted, reasons = passage.held_back(found.firings)
        reasons = [*([] if marking.movable else [marking.reason]), *passage.refuses(found.tokens), *reasons]
        if reasons:
            self._report.leave(key, "; ".join(reasons))
            return None
        return {
            "from": row.workflow_hash,
            "to": self._new.hash,
            "seq": row.seq,
            "bucket": await self._bucket(key.tenant, row),
            "places": {old: new for old, new in self._wanted.places.items() if old in passage.old.net.places},
            "restart": restarted,
        }

    async def _marking(self, passage: Passage, counts: Mapping[str, int]) -> MarkingReport:
        """What was found of a marking of a version, found out once."""
        name = (passage.old.hash, frozenset(counts.items()))
        known = self._known.get(name)
        if known is not None:
            return known
        mapped, reasons = passage.marking(counts)
        report = MarkingReport(passage.old.hash, dict(sorted(counts.items())), "refused", "; ".join(reasons))
        if not reasons:
            verdict = await asyncio.to_thread(_completion, self._new, mapped)
            report.verdict, report.reason = verdict.answer.value, verdict.reason
            report.trace = verdict.trace or ()
            if verdict.violated:
                report.reason = f"it could not always come to an end there: {verdict.reason}"
            elif verdict.unknown:
                report.reason = f"whether it always comes to an end there is not decided: {verdict.reason}"
                report.verdict = "proven" if self._wanted.unproven else report.verdict
        self._known[name] = report
        self._report.markings.append(report)
        return report

    async def _bucket(self, tenant: int, row: CaseRow) -> int:
        needs: Mapping[str, Any] = requirement(self._new, row.parameters)
        if row.parent is not None:
            needs = of_child(needs)
        name = repr(needs)
        if name not in self._buckets:
            self._buckets[name] = await self._migrator.bucket(tenant, needs)
        return self._buckets[name]

    async def _move(self, found: Standing, payload: dict[str, Any] | None) -> None:
        """Ask the owner of a case; one that has gone on since it was judged is judged anew."""
        async with self._slots:
            for _ in range(TRIES):
                if payload is None:
                    return
                try:
                    with self._take(found.key):
                        outcome = await self._migrator.ask(found, payload, self._principal)
                except Conflict as error:
                    outcome, told = None, error.message
                else:
                    if outcome.state is OutcomeState.APPLIED:
                        self._report.moved += 1
                        return
                    if outcome.state is OutcomeState.PENDING:
                        self._report.pending += 1
                        return
                    told = str((outcome.result.get("error") or {}).get("message", "refused"))
                again = await self._migrator.again(found.key, self._wanted, self._new.hash)
                if again is None:
                    # It has ended meanwhile, or somebody else has moved it.
                    self._report.leave(found.key, told)
                    return
                if again.row.seq == found.row.seq:
                    self._report.leave(found.key, told)
                    return
                found, payload = again, await self._judge(again, count=False)
            if payload is not None:
                self._report.leave(found.key, "it goes on all the time: try again when it rests")


def _completion(new: Workflow, marking: Mapping[str, int]) -> Verdict:
    try:
        translated = translate(new.net, marking)
        if translated.inexact or translated.open_end:
            return unknown("none", translated.inexact or translated.open_end)
        return completion(translated.net, Limits(monotonic, seconds=PROOF_SECONDS))
    except CircuitError as error:
        return unknown("none", error.message)


def _meant(workflow_id: str, text: str, known: Sequence[str]) -> str:
    """The version whose hash begins so. Raises `NotFound`, and `InvalidRequest` where it is not the only one."""
    found = [version for version in known if version.startswith(text)] if len(text) >= SHORTEST_PREFIX else []
    if len(found) == 1:
        return found[0]
    listed = ", ".join(version[:12] for version in known[:10])
    if found:
        raise InvalidRequest(f"{len(found)} versions of workflow {workflow_id} begin with {text!r}: {listed}")
    raise NotFound(f"workflow {workflow_id} has no version {text!r}; the newest are {listed}")
