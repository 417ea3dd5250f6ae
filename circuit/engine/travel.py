"""Time travel: a case as it was after any of its events, a new case that starts there, and how two cases differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from circuit.engine.asking import check_idempotency_key, fingerprint, start_parameters
from circuit.engine.audit.replay import Replay
from circuit.engine.comparison import Cost, Difference, Side, compare
from circuit.engine.conversations import carry_over
from circuit.engine.fork import fork_tokens, origin_of
from circuit.engine.hints import Hints
from circuit.engine.past import Moment, moment
from circuit.engine.queries import Queries
from circuit.engine.rates import StartRates
from circuit.engine.requirement import requirement
from circuit.engine.token_change import TokenChange
from circuit.engine.tombstone import is_erased
from circuit.engine.versions import VersionKey, VersionUnusable
from circuit.errors import Conflict, InvalidRequest, NotFound
from circuit.events import CaseMigrated, CaseStarted, Origin, TokenImage
from circuit.ids import CaseKey, IdSource, parse_case_id
from circuit.net.structure import Net
from circuit.security.permissions import Permission
from circuit.security.principal import Principal
from circuit.storage import commands, history, ledger, listing, subjects, tokens, workflows
from circuit.storage.database import Database
from circuit.storage.history import Recorded
from circuit.storage.records import CaseRow, CaseStatus

PAGE_EVENTS = 1_000
MOST_FORKS = 100
"""A fork of a fork of a fork: so many are followed back for the path that a case went."""


class Travel:
    """Reads and forks of the past. Each method acts in the tenant of its principal or key."""

    def __init__(
        self,
        database: Database,
        queries: Queries,
        ids: IdSource,
        now: Callable[[], datetime],
        hints: Hints,
        starts: StartRates | None = None,
    ) -> None:
        self._database = database
        self._queries = queries
        self._ids = ids
        self._now = now
        self._hints = hints
        self._starts = starts

    async def at(self, key: CaseKey, seq: int | None = None) -> Moment | None:
        """A case as it was after its event `seq` (its last one, if None), or None if there is no such case. Raises
        `InvalidRequest` for an event that it does not have."""
        row = await self._row(key)
        return None if row is None else moment(*await self._replayed(key, row, seq), row.seq)

    async def diff(self, first: CaseKey, second: CaseKey) -> Difference:
        """How two cases differ. Raises `NotFound`."""
        return compare(await self._side(first), await self._side(second))

    async def fork(
        self,
        key: CaseKey,
        seq: int | None = None,
        *,
        principal: Principal,
        changes: Sequence[TokenChange] = (),
        models: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> CaseKey:
        """Start a case from the marking that case `key` had after its event `seq` (its last one, if None), on the
        version of the workflow that it had then; with an idempotency key, at most once.

        `changes` are made to its tokens first, and `models` (by agent id, or `*`) go over those of the origin. Raises
        `NotFound`, `InvalidRequest`, `TokenRefused`, `PayloadTooLarge`, `Forbidden`, and `Conflict` for a workflow that
        is retired.
        """
        principal.require(Permission.OPERATE)
        check_idempotency_key(idempotency_key)
        given = start_parameters({"models": models} if models else None)
        row = await self._row(key) if key.tenant == principal.tenant else None
        if row is None:
            raise _no_case(key)
        laid_over = [change.as_dict() for change in changes]
        request = fingerprint(
            idempotency_key, {"fork": str(key.case), "at": seq, "changes": laid_over, "parameters": given}
        )
        if idempotency_key is not None:
            async with self._database.transaction(key.tenant) as connection:
                before = await commands.started_with(connection, key.tenant, idempotency_key, request)
            if before is not None:
                return before
        if is_erased(row.parameters):
            raise Conflict(f"what case {key} held was erased: nothing can start from it")
        replay, told = await self._replayed(key, row, seq)
        async with self._database.transaction(key.tenant) as connection:
            current = await workflows.current(connection, key.tenant, row.workflow_id)
            firings = await listing.firings(connection, key)
        if current is not None and current.retired_at is not None:
            raise Conflict(
                f"workflow {row.workflow_id} is retired: its cases go on, and no new ones begin;"
                " `circuit unretire` lets them begin again"
            )
        version = VersionKey(key.tenant, row.workflow_id, replay.version)
        workflow = await self._queries.version(version)
        now = self._now()
        laid = fork_tokens(workflow, replay, firings, changes, told.at, now)
        parameters = _over(row.parameters, given)
        case = CaseKey(key.tenant, self._ids.uuid())
        fired = {name: times for name, times in replay.fired.items() if times}
        event = CaseStarted(
            workflow.id,
            workflow.hash,
            tuple(TokenImage(one.number, one.version, one.place, one.data, one.metadata) for one in laid),
            principal.subject,
            origin_of(key, told.seq, laid, fired),
        )
        next_token = max((one.number for one in laid), default=0) + 1
        new = CaseRow(
            workflow.id,
            workflow.hash,
            CaseStatus.RUNNING,
            1,
            next_token,
            1,
            1,
            now,
            parameters=parameters,
            traceparent=self._hints.caller(),
        )
        async with self._database.transaction(key.tenant) as connection:
            new = replace(new, bucket=await commands.bucket_of(connection, requirement(workflow, parameters)))
            started = await commands.insert_case(
                connection,
                case,
                new,
                laid,
                event,
                now,
                idempotency_key=idempotency_key,
                request=request,
                leaving=event.kind in workflow.outbox,
                fired=fired,
            )
            if started == case:
                if self._starts is not None and workflow.agents:
                    await self._starts.check(principal, connection)
                ended = [one.number for one in replay.firings.values() if not one.live]
                await carry_over(connection, key, case, ended, principal)
                await subjects.inherit(connection, key, case, principal.subject)
                await ledger.note(connection, principal, "case.fork", case, source=str(key), seq=told.seq)
        self._hints.work()
        return started

    # -- the past -----------------------------------------------------------------------------------------------------

    async def _row(self, key: CaseKey) -> CaseRow | None:
        async with self._database.transaction(key.tenant) as connection:
            return await listing.find_case(connection, key)

    async def _replayed(self, key: CaseKey, row: CaseRow, seq: int | None) -> tuple[Replay, Recorded]:
        """The case up to and with its event `seq`, and that event."""
        upto = row.seq if seq is None else seq
        if not 1 <= upto <= row.seq:
            raise InvalidRequest(f"case {key} has the events 1 to {row.seq}; it has no event {upto}")
        replay = Replay(key, None)
        while True:
            async with self._database.transaction(key.tenant) as connection:
                page = await history.read_events(connection, key, replay.seq, min(PAGE_EVENTS, upto - replay.seq))
            for recorded in page:
                if isinstance(recorded.event, CaseStarted | CaseMigrated):
                    replay.net = await self._net(key, recorded.event)
                # What breaks the rules is for `circuit fsck` to say; here it is shown as it is.
                for _ in replay.apply(*recorded):
                    pass
            if not page or replay.started is None:
                raise NotFound(f"the history of case {key} is not there up to its event {upto}")
            if replay.seq >= upto:
                return replay, page[-1]

    async def _net(self, key: CaseKey, event: CaseStarted | CaseMigrated) -> Net | None:
        """The net of a version; None where this release cannot use it: its history can be shown all the same."""
        try:
            version = await self._queries.version(VersionKey(key.tenant, event.workflow, event.workflow_hash))
        except VersionUnusable:
            return None
        return version.net

    async def _origin(self, key: CaseKey) -> Origin | None:
        async with self._database.transaction(key.tenant) as connection:
            found = await history.read_events(connection, key, 0, 1)
        return found[0].event.origin if found and isinstance(found[0].event, CaseStarted) else None

    # -- comparing ----------------------------------------------------------------------------------------------------

    async def _side(self, key: CaseKey) -> Side:
        async with self._database.transaction(key.tenant) as connection:
            row = await listing.find_case(connection, key)
            laid = await tokens.of_case(connection, key)
            executions = await listing.executions(connection, key)
        if row is None:
            raise _no_case(key)
        origin = await self._origin(key)
        path = await self._path(key, row.seq, origin)
        return Side(key, row, origin, [token for token, _ in laid], path, Cost.of(row, executions, self._now()))

    async def _path(self, key: CaseKey, upto: int, origin: Origin | None) -> list[str]:
        """What a case has fired, after what its origins had fired before it was forked."""
        parts: list[list[str]] = []
        for _ in range(MOST_FORKS):
            async with self._database.transaction(key.tenant) as connection:
                parts.append(await history.path(connection, key, upto))
            case = None if origin is None else parse_case_id(origin.case_id)
            if origin is None or case is None:
                break
            key, upto = CaseKey(key.tenant, case), origin.seq
            origin = await self._origin(key)
        return [transition for part in reversed(parts) for transition in part]


def _over(before: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a case with the models of another start over its own: one for every agent goes over all."""
    models: dict[str, Any] = given.get("models") or {}
    if not models:
        return dict(before)
    kept = {} if "*" in models else before.get("models") or {}
    return {**before, "models": {**kept, **models}}


def _no_case(key: CaseKey) -> NotFound:
    return NotFound(f"there is no case {key}; `circuit cases` lists them")
