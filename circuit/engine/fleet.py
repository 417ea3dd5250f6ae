"""The workers of a deployment: who they are, and how an operator asks one to end or to give cases up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from circuit.engine.connecting import connected
from circuit.engine.process import alive, this_process
from circuit.engine.views import instant
from circuit.errors import Conflict, InvalidRequest, NotFound
from circuit.ids import DEPLOYMENT, CaseKey, IdSource
from circuit.security.principal import Principal
from circuit.storage import fleet, ledger, workers
from circuit.storage.database import Database
from circuit.storage.driver import Connection
from circuit.storage.fleet import Request, WorkerRow

LOOK_SECONDS = 0.1
DEFAULT_DRAIN_SECONDS = 60.0


class WorkerState(StrEnum):
    """`DEAD`: it said nothing for longer than its lease, or its process is gone; the next look of another worker
    takes its cases over. `FENCED`: that has happened. `RETIRED`: it ended in good order."""

    ALIVE = "alive"
    DRAINING = "draining"
    DEAD = "dead"
    FENCED = "fenced"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker as it stands by the database's clock. `lease_seconds` is what is left of its lease."""

    row: WorkerRow
    state: WorkerState

    @property
    def id(self) -> UUID:
        return self.row.id

    @property
    def age_seconds(self) -> float:
        return (self.row.now - self.row.started_at).total_seconds()

    @property
    def lease_seconds(self) -> float | None:
        expires_at = self.row.expires_at
        return None if expires_at is None else (expires_at - self.row.now).total_seconds()

    def as_dict(self) -> dict[str, Any]:
        row = self.row
        return {
            "worker_id": str(row.id),
            "state": self.state.value,
            "host": row.host,
            "pid": row.pid,
            "pools": list(row.pools),
            "started_at": instant(row.started_at),
            "age_seconds": round(self.age_seconds, 1),
            "lease_seconds": None if self.lease_seconds is None else round(self.lease_seconds, 1),
            "cases": row.cases,
            "executions": row.executions,
            "retired_at": None if row.retired_at is None else instant(row.retired_at),
        }


class Fleet:
    """The door to the workers. What it asks of one, that worker does itself; only a dead one is fenced from here."""

    def __init__(self, database: Database, ids: IdSource) -> None:
        self._database = database
        self._ids = ids

    async def workers(self, *, ended: bool = False) -> list[WorkerView]:
        """All workers that are not over, the oldest first; with `ended` those too that lately were."""
        async with connected(self._database) as connection:
            return [_view(row) for row in await fleet.listed(connection, ended=ended)]

    async def drain(
        self, worker: str, principal: Principal, within_seconds: float = DEFAULT_DRAIN_SECONDS
    ) -> WorkerView:
        """Ask a worker to end: it claims nothing more, what runs gets `within_seconds`, the rest goes to others.
        Raises `NotFound`, and `Conflict` if it does not live."""
        if within_seconds < 0:
            raise InvalidRequest("a drain takes 0 seconds or more")
        async with connected(self._database) as connection:
            found = await self._living(connection, worker)
            request = Request(self._ids.uuid(), "drain", {"within_seconds": within_seconds})
            async with connection.transaction(isolation="read_committed"):
                await fleet.ask(connection, found.id, request, principal.subject)
                await ledger.enter(connection, principal, "worker.drain", found.id, tenant=DEPLOYMENT)
        return found

    async def drained(self, worker: UUID, wait_seconds: float) -> bool:
        """Whether a worker is over, waited for up to `wait_seconds`."""
        deadline = asyncio.get_running_loop().time() + wait_seconds
        async with connected(self._database) as connection:
            while True:
                if all(row.id != worker for row in await fleet.listed(connection)):
                    return True
                if asyncio.get_running_loop().time() >= deadline:
                    return False
                await asyncio.sleep(LOOK_SECONDS)

    async def release(
        self, target: str, principal: Principal, *, wait_seconds: float = 10.0
    ) -> Mapping[str, Any] | None:
        """Ask for one case (an id of a case) or all cases of a worker (its id, or the beginning of it) to be given up.

        Returns what the worker answered: `{"worker_id", "released": [...]}`, or None where it has not answered within
        `wait_seconds`. Raises `NotFound`, and `Conflict` where nobody has the case.
        """
        async with connected(self._database) as connection:
            payload: dict[str, Any] = {}
            case = _case_id(target)
            owner = None
            if case is not None:
                owner, payload = await self._owner_of(connection, CaseKey(principal.tenant, case))
            found = await self._living(connection, str(owner) if owner is not None else target)
            request = Request(self._ids.uuid(), "release", payload)
            async with connection.transaction(isolation="read_committed"):
                await fleet.ask(connection, found.id, request, principal.subject)
                # One case is its tenant's; all that a worker has is the deployment's.
                about, owner_of = (found.id, DEPLOYMENT) if case is None or owner is None else (case, principal.tenant)
                await ledger.enter(connection, principal, "worker.release", about, tenant=owner_of)
            deadline = asyncio.get_running_loop().time() + wait_seconds
            while True:
                answer = await fleet.result(connection, found.id, request.id)
                if answer is not None:
                    return {"worker_id": str(found.id), **_told(answer)}
                if asyncio.get_running_loop().time() >= deadline:
                    return None
                await asyncio.sleep(LOOK_SECONDS)

    async def fence(self, worker: str, principal: Principal) -> int:
        """Take the cases of a dead worker over: they are free at once. Returns how many. Raises `NotFound`, and
        `Conflict` for a worker that lives: that one is asked, and never robbed."""
        async with connected(self._database) as connection:
            found = await self._named(connection, worker, ended=True)
            if found.state in (WorkerState.FENCED, WorkerState.RETIRED):
                return 0
            if found.state is not WorkerState.DEAD:
                raise Conflict(f"worker {found.id} lives: ask it with `circuit workers drain {found.id}`")
            freed = await workers.take_over(connection, found.id)
            await ledger.enter(connection, principal, "worker.fence", found.id, tenant=DEPLOYMENT, cases=freed)
            return freed

    async def errand(
        self,
        kind: str,
        payload: Mapping[str, Any],
        principal: Principal,
        *,
        worker: str | None = None,
        wait_seconds: float,
        audited: tuple[str, str] | None = None,
    ) -> list[tuple[WorkerView, Mapping[str, Any] | None]]:
        """What each living worker (or this one) answers to an errand; None where it has not within `wait_seconds`.
        Where it changes anything, `audited` is the action and the target that the audit log has of it. Raises
        `NotFound`, and `Conflict` if the one does not live."""
        async with connected(self._database) as connection:
            if worker is not None:
                asked = [await self._living(connection, worker)]
            else:
                rows = [_view(row) for row in await fleet.listed(connection)]
                asked = [one for one in rows if one.state in (WorkerState.ALIVE, WorkerState.DRAINING)]
            requests = [Request(self._ids.uuid(), kind, dict(payload)) for _ in asked]
            async with connection.transaction(isolation="read_committed"):
                for one, request in zip(asked, requests, strict=True):
                    await fleet.ask(connection, one.id, request, principal.subject)
                if audited is not None:
                    await ledger.enter(connection, principal, *audited, tenant=DEPLOYMENT, workers=len(asked))
            deadline = asyncio.get_running_loop().time() + wait_seconds
            answers: dict[UUID, Mapping[str, Any]] = {}
            while len(answers) < len(asked):
                for one, request in zip(asked, requests, strict=True):
                    answer = None if one.id in answers else await fleet.result(connection, one.id, request.id)
                    if answer is not None:
                        answers[one.id] = answer
                if len(answers) == len(asked) or asyncio.get_running_loop().time() >= deadline:
                    break
                await asyncio.sleep(LOOK_SECONDS)
        return [(one, answers.get(one.id)) for one in asked]

    async def _owner_of(self, connection: Connection, key: CaseKey) -> tuple[UUID | None, dict[str, Any]]:
        """Who owns a case, and the payload that names it. (None, {}) if the id is not that of a case."""
        try:
            owner = await fleet.owner(connection, key)
        except LookupError:
            return None, {}
        if owner is None:
            raise Conflict(f"nobody has case {key}: there is nothing to give up")
        return owner, {"cases": [[key.tenant, str(key.case)]]}

    async def _living(self, connection: Connection, worker: str) -> WorkerView:
        found = await self._named(connection, worker)
        if found.state is WorkerState.DEAD:
            raise Conflict(
                f"worker {found.id} is dead and answers nothing; a living worker takes its cases over, or"
                f" `circuit workers release {found.id} --fence` does"
            )
        return found

    async def _named(self, connection: Connection, worker: str, *, ended: bool = False) -> WorkerView:
        rows = await fleet.listed(connection, ended=ended)
        found = [_view(row) for row in rows if worker and str(row.id).startswith(worker.lower())]
        if not found:
            raise NotFound(f"there is no worker (and no case) {worker!r}; `circuit workers` lists the workers")
        if len(found) > 1:
            raise InvalidRequest(f"{len(found)} workers have ids that begin with {worker!r}: write more of it")
        return found[0]


def _view(row: WorkerRow) -> WorkerView:
    if row.retired_at is not None:
        return WorkerView(row, WorkerState.RETIRED)
    if row.fenced:
        return WorkerView(row, WorkerState.FENCED)
    here = this_process()
    gone = (row.host, row.boot_id) == (here.host, here.boot_id) and not alive(row.pid, row.pid_started)
    if not row.leased or gone:
        return WorkerView(row, WorkerState.DEAD)
    return WorkerView(row, WorkerState.DRAINING if row.draining else WorkerState.ALIVE)


def _case_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _told(answer: Mapping[str, Any]) -> dict[str, Any]:
    released = answer.get("released")
    return dict(answer) if released is None else {"released": [case for _, case in released]}
