"""How cases come to a worker: claimed in batches when they have work, attended when somebody asks something of them,
and read anew after something went wrong with them.

One loop with one connection does all three. It looks when it is woken (a hint, a free slot, a case to be read anew),
when the next case is due, and now and then, for a hint may be lost. What it claims it can start: with no slot free,
or with a database that is behind, it claims nothing, so that another worker can.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from circuit.definition.workflow import Workflow
from circuit.engine.connecting import connected
from circuit.engine.desk import Desk
from circuit.engine.execution import FaultHook, no_fault
from circuit.engine.handover import HandOver
from circuit.engine.kinship import children_of
from circuit.engine.service import Service
from circuit.engine.troubles import Remains, Troubles, surrender
from circuit.engine.versions import VersionKey, Versions, VersionUnusable
from circuit.errors import CircuitError, Fenced, GuardLost
from circuit.ids import CaseKey
from circuit.storage import cases, commands, listing, ownership, workers, workflows
from circuit.storage.cases import NO_USELESS, Useless
from circuit.storage.database import Database
from circuit.storage.driver import Connection
from circuit.storage.records import CaseRow, CaseState, CaseStatus, CaseWrite

logger = logging.getLogger(__name__)

Found = TypeVar("Found")

POLL_SECONDS = 1.0
CHECK_SECONDS = 15.0
CLAIM_BATCH = 200
MOST_HELD = 2_000
MOST_FLYING = 4_000
"""Writes in flight above which nothing more is claimed: the database is behind."""
LEAST_APPETITE = 0.1
REFILL_SECONDS = 0.01
REST_SECONDS = 5.0
UNUSABLE_WAIT = timedelta(seconds=60)
"""A case whose version this release cannot run comes up again after this time, for another release may be there."""
GIVEN_UP_WAIT = timedelta(minutes=15)
"""So does a case that Circuit failed to work on too many times, if nobody asks for it before."""


class Claims(Service):
    """Claims, attends and reads the cases of one incarnation, and puts them on its desk. `pressed` names the types of
    providers that have no capacity now."""

    def __init__(
        self,
        database: Database,
        worker: UUID,
        desk: Desk,
        versions: Versions,
        *,
        now: Callable[[], datetime],
        fenced: Callable[[], None],
        only: Sequence[CaseKey] | None = None,
        fault: FaultHook = no_fault,
        pressed: Callable[[], Collection[str]] = tuple,
        poll_seconds: float = POLL_SECONDS,
        check_seconds: float = CHECK_SECONDS,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__("circuit-claims")
        self._database = database
        self._worker = worker
        self._desk = desk
        self._versions = versions
        self._now = now
        self._fenced = fenced
        self._only = only
        self._kin: list[CaseKey] = []
        self._fault = fault
        self._pressed = pressed
        self._poll_seconds = poll_seconds
        self._check_seconds = check_seconds
        self._check_at = float("-inf")
        self._rng = rng or random.Random()
        self._troubles = Troubles(self._rng)
        self.leaving = HandOver(desk, worker)
        self._woken = asyncio.Event()
        self._starved = False
        self._left = NO_USELESS
        self._refill: asyncio.TimerHandle | None = None
        # How many executions a case that was claimed asks for, 1 at most; and what that is reckoned from: how many were
        # claimed, and how many of these had come to their first commit when so many executions were asked for.
        self._appetite = 1.0
        self._claimed = 0
        self._opened = 0
        self._submitted = 0
        # Whose turn is next, and how many workers share what is due.
        self._next_tenant = 0
        self._workers = 1
        # Cases of this worker that are to be read as soon as nothing of them is on the desk or in flight; cases with a
        # command for an owner that may be gone.
        self._to_read: set[CaseKey] = set()
        self._to_look_after: set[CaseKey] = set()
        # Named cases are claimed whether they are due or not: those that were just given up have a rest first.
        self._resting: dict[CaseKey, float] = {}
        self._next_due: datetime | None = None

    @property
    def starved(self) -> bool:
        """Whether nothing could be claimed when it was looked last, for want of room."""
        return self._starved

    def follow(self, keys: Iterable[CaseKey]) -> None:
        """A worker that is restricted to named cases works on those too that they open."""
        if self._only is not None:
            known = {*self._only, *self._kin}
            self._kin += [key for key in keys if key not in known]

    def wake(self) -> None:
        """There may be something to claim or to attend to."""
        self._woken.set()

    def freed(self) -> None:
        """A slot is free; only matters if there was none before, or what was passed over is of use now. Others that
        come free at once are claimed for too."""
        if self._refill is None and (self._starved or (self._left != NO_USELESS and self._useless() != self._left)):
            self._refill = asyncio.get_running_loop().call_later(REFILL_SECONDS, self._refilled)

    def _refilled(self) -> None:
        self._refill = None
        self._woken.set()

    def lost(self, key: CaseKey, error: BaseException) -> None:
        """A case was dropped from memory: read it anew after a while, unless it fails again and again."""
        if isinstance(error, Fenced):
            self._fenced()
            return
        self._troubles.add(key, error, asyncio.get_running_loop().time())
        self._woken.set()

    def holds(self, key: CaseKey) -> bool:
        """Whether this case is to be read, or went wrong and is not settled yet."""
        return key in self._to_read or self._troubles.knows(key)

    def released(self, key: CaseKey, unapplied: bool) -> None:
        """A case was given up, perhaps with a command that came too late to be applied."""
        self._troubles.forget(key)
        if unapplied:
            self._to_look_after.add(key)
        # It may have been claimed again before the answer to its release came.
        if unapplied or key in self._to_read:
            self._woken.set()

    def landed(self, key: CaseKey) -> None:
        """Nothing of a case that is not held is in flight any more: it can be read."""
        if self.holds(key) or self.leaving.holds(key):
            self._woken.set()

    def hand_over(self, keys: Collection[CaseKey] | None) -> asyncio.Future[list[CaseKey]]:
        """Give these cases (None: all) up to other workers; done when they are free, with those that were here."""
        done = self.leaving.ask(keys)
        self._woken.set()
        return done

    # -- the loop ---------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        # The last connection may have broken when a claim was committed, before its answer came.
        self._check_at = float("-inf")
        async with connected(self._database) as connection:
            while not self.stopping:
                self._woken.clear()
                more = await self._look(connection)
                self._working()
                if not more:
                    await self._rest()

    async def _find_forgotten(self, connection: Connection) -> None:
        """Now and then: a case that belongs to this worker and is nowhere in its memory would wait for ever."""
        now = asyncio.get_running_loop().time()
        if now < self._check_at:
            return
        self._check_at = now + self._check_seconds
        self._workers = max(1, await workers.living(connection))
        for key in await ownership.owned(connection, self._worker):
            known = key in self._desk or self._troubles.knows(key) or self.leaving.holds(key)
            if not known and not self._desk.busy(key):
                self._to_read.add(key)

    async def _look(self, connection: Connection) -> bool:
        """One look at everything. Returns whether there may be more at once."""
        await self.leaving.proceed(connection)
        await self._find_forgotten(connection)
        await self._attend(connection)
        await self._look_after(connection)
        more = await self._claim(connection)
        await self._read(connection)
        await self._give_up()
        if not more:
            self._next_due = await cases.next_due(connection, self._worker)
        return more

    async def _rest(self) -> None:
        """Wait until woken, or until the next look is due."""
        seconds = self._poll_seconds * self._rng.uniform(0.75, 1.25)
        if self._next_due is not None and not self._starved:
            due_in = (self._next_due - self._now()).total_seconds()
            # What is due and was not claimed (it is another worker's to take, or locked) waits for the next poll.
            seconds = min(seconds, due_in) if due_in > 0 else seconds
        trouble_in = self._troubles.next_in(asyncio.get_running_loop().time())
        if trouble_in is not None:
            seconds = min(seconds, trouble_in)
        try:
            async with asyncio.timeout(max(0.005, seconds)):
                await self._woken.wait()
        except TimeoutError:
            return

    async def _attend(self, connection: Connection) -> None:
        """Deliver the commands that came for cases of this worker."""
        attended = await cases.attend(connection, self._worker)
        # Until they are delivered they are not forgotten, whatever happens to the connection.
        self._to_look_after.update(attended)
        held = [key for key in self._to_look_after if key in self._desk]
        if not held:
            return
        pending = await cases.pending(connection, held)
        for key in held:
            if all(self._desk.deliver(key, command) for command in pending.get(key, ())):
                self._to_look_after.discard(key)

    async def _look_after(self, connection: Connection) -> None:
        """Somebody wants something of cases that are not in memory (any more).

        One that is this worker's all the same is read: the command comes with it. Any other was released at that very
        moment: it is made ready at once, so that nobody has to wait until its row of `ready` is due again.
        """
        left = [key for key in self._to_look_after if key not in self._desk and not self._desk.busy(key)]
        if not left:
            return
        owned = set(await ownership.owned(connection, self._worker))
        for key in left:
            if key in owned:
                self._to_read.add(key)
            elif key not in self._to_read:
                async with self._database.transaction(key.tenant) as transaction:
                    await commands.make_ready(transaction, key)
            self._to_look_after.discard(key)

    def _room(self) -> int:
        """How many cases may be claimed: as many as there are free slots for what cases have asked for of late."""
        slots = self._desk.slots
        # What was claimed and has not come to its first commit has asked for nothing yet, but will.
        opening = len(self._to_read) + self._desk.opening
        opened = self._claimed - opening
        if opened > self._opened:
            asked = min(1.0, (slots.submitted - self._submitted) / (opened - self._opened))
            self._appetite += 0.3 * (asked - self._appetite)
            self._opened, self._submitted = opened, slots.submitted
        if self._desk.flying > MOST_FLYING:
            return 0
        free = int(slots.free / max(self._appetite, LEAST_APPETITE)) - opening
        # Where several workers look at the same moment, each takes its part, and then looks again.
        bite = math.ceil(free / self._workers)
        return min(CLAIM_BATCH, bite, MOST_HELD - len(self._desk) - len(self._to_read))

    async def _claim(self, connection: Connection) -> bool:
        room = self._room()
        self._starved = room <= 0
        if self._starved or self.leaving.resting:
            return False
        wanted = self._wanted()
        if wanted is None:
            self._left = self._useless()
            claim = await cases.claim_fairly(connection, self._worker, room, self._next_tenant, self._left)
            self._next_tenant = claim.next_tenant
        else:
            # Named cases are claimed whether they are due or not: what waits would be claimed again at once.
            claim = cases.Claim(await cases.claim(connection, self._worker, room, wanted))
        if claim.keys:
            self._fault("after_claim")
            self._to_read.update(claim.keys)
        self._claimed += len(claim.keys)
        return claim.more

    def _useless(self) -> Useless:
        """Cases that would only wait here: what they would run is limited, or their provider has no capacity."""
        quota = self._desk.slots.quota
        return Useless(tuple(sorted(quota.tenants)), tuple(sorted(quota.providers.union(self._pressed()))))

    def _wanted(self) -> Sequence[CaseKey] | None:
        """The cases that this worker is restricted to, without those that it has just given up."""
        if self._only is None:
            return None
        now = asyncio.get_running_loop().time()
        self._resting = {key: until for key, until in self._resting.items() if until > now}
        return [key for key in (*self._only, *self._kin) if key not in self._resting]

    async def _read(self, connection: Connection) -> None:
        """Read cases of this worker and put them on its desk."""
        for key in self._troubles.due(asyncio.get_running_loop().time()):
            self._troubles.taken(key)
            self._to_read.add(key)
        # A case that is still on the desk was claimed while its release was not answered yet: it stays to be read.
        wanted = sorted(key for key in self._to_read if key not in self._desk and not self._desk.busy(key))
        if not wanted:
            return
        loaded = await cases.load_page(connection, wanted, self._worker)
        for key, error in loaded.unreadable.items():
            self._troubles.add(key, error, asyncio.get_running_loop().time())
            self._to_read.discard(key)
        for state in loaded.states:
            try:
                workflow = await self._workflow(state.key, state.row)
            except VersionUnusable as error:
                await self._leave_to_others(state, error)
            else:
                self._desk.hold(workflow, state)
                self.follow(children_of(state))
            self._to_read.discard(state.key)
        for key in self._to_read.intersection(wanted):
            logger.info("case %s does not belong to this worker (any more)", key)
            self._troubles.forget(key)
            self._to_read.discard(key)

    async def _workflow(self, case: CaseKey, row: CaseRow) -> Workflow:
        key = VersionKey(case.tenant, row.workflow_id, row.workflow_hash)
        if self._versions.known(key):
            return self._versions.get(key)
        async with self._database.transaction(key.tenant) as connection:
            found = await workflows.by_hash(connection, key.tenant, key.workflow_id, key.hash)
        return self._versions.add(key, None if found is None else found.document)

    async def _leave_to_others(self, state: CaseState, error: VersionUnusable) -> None:
        """Give up a case that this release cannot run; it shows `attention` until a release that can has it."""
        logger.error("case %s is left to another release: %s", state.key, error)
        self._troubles.forget(state.key)
        row = replace(state.row, status=CaseStatus.ATTENTION)
        due_at = self._now() + UNUSABLE_WAIT
        self._resting[state.key] = asyncio.get_running_loop().time() + REST_SECONDS
        try:
            await self._desk.write(CaseWrite(state.key, state.row.seq, row, release=True, due_at=due_at))
        except GuardLost as lost:
            logger.warning("case %s was somebody else's already: %s", state.key, lost)
        except Fenced:
            self._fenced()

    async def _give_up(self) -> None:
        """Release the cases that went wrong too many times, so that everybody sees that they wait for somebody."""
        for key, error in self._troubles.spent():
            if self._desk.busy(key):
                continue
            try:
                remains = await self._remains(key)
                if remains is None or remains.row.status.terminal:
                    self._troubles.forget(key)
                    continue
                now = self._now()
                self._resting[key] = asyncio.get_running_loop().time() + REST_SECONDS
                await self._desk.write(surrender(remains, error, now, now + GIVEN_UP_WAIT))
                self._troubles.forget(key)
            except GuardLost as lost:
                logger.warning("case %s was somebody else's already: %s", key, lost)
                self._troubles.forget(key)
            except Fenced:
                self._fenced()
                return
            except Exception as worse:
                if isinstance(worse, CircuitError) and worse.retryable:
                    raise
                self._troubles.leave(key)
                logger.error("case %s cannot even be given up; it is left alone", key, exc_info=worse)

    async def _remains(self, key: CaseKey) -> Remains | None:
        """What can be read of a case that is given up. What of it is unreadable is perhaps why it went wrong."""
        async with self._database.transaction(key.tenant) as connection:
            row = await listing.find_case(connection, key)
            if row is None:
                return None
            waiting = await _readable(listing.pending_commands(connection, key))
            incidents = await _readable(listing.incidents(connection, key))
            firings = await _readable(listing.firings(connection, key))
        live = [firing for firing in firings or () if firing.state.live]
        return Remains(key, row, live, incidents, waiting or (), await self._leaving(key, row))

    async def _leaving(self, key: CaseKey, row: CaseRow) -> Collection[str]:
        """The kinds of events that leave a case, as far as its workflow can be read."""
        try:
            return (await self._workflow(key, row)).outbox
        except VersionUnusable:
            return ()


async def _readable(found: Awaitable[list[Found]]) -> list[Found] | None:
    """The rows, or None if this release cannot read them."""
    try:
        return await found
    except (ValueError, TypeError, LookupError) as error:
        logger.warning("some rows of a case that is given up cannot be read: %s", error)
        return None
