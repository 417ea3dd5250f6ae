"""A worker: owns cases and runs them, from its registration to its end, and again if it is declared dead.

One *tenure* is one incarnation: a lease, a writer, a desk of cases in memory, the slots for their executions, and the
loops that feed them. When its lease is lost, everything of the tenure is thrown away (what was not committed has not
happened) and the worker begins a new one. When it is stopped, it claims nothing more, gives what runs a bounded time,
hands the rest back and retires.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from uuid import UUID

from circuit.clock import Clock
from circuit.engine.action import Action
from circuit.engine.attendance import Attendance, Errand
from circuit.engine.claims import Claims
from circuit.engine.connecting import connected
from circuit.engine.desk import Desk, Reports
from circuit.engine.execution import FaultHook, Surroundings, no_fault
from circuit.engine.lease import DEFAULT_LEASE_SECONDS, Lease, Loss
from circuit.engine.postman import Postman
from circuit.engine.process import this_process
from circuit.engine.requirement import Capabilities
from circuit.engine.service import Service
from circuit.engine.shares import Shares
from circuit.engine.slots import Slots
from circuit.engine.sweep import Sweep
from circuit.engine.trace import CaseTrace
from circuit.engine.treasury import Treasury
from circuit.engine.turnstile import Turnstile
from circuit.engine.versions import Versions
from circuit.errors import CircuitError
from circuit.ids import CaseKey, IdSource
from circuit.security.redactor import Redactor
from circuit.storage import workers
from circuit.storage.database import Database
from circuit.storage.workers import Incarnation
from circuit.storage.writer import Writer
from circuit.streams.broker import Broker
from circuit.streams.publisher import Publisher
from circuit.tracing import Tracer

logger = logging.getLogger(__name__)

DEFAULT_EXECUTIONS = 50
DEFAULT_STOP_SECONDS = 5.0
_CLOSE_SECONDS = 2.0
_CUT_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """How long and how much. `stop_seconds` is what running executions get to end when the worker is stopped.
    `executions` is how many run at once here, `deployment` how many in all workers together (None: any number).
    `exit_when_stuck`: the process ends if something blocks its event loop for ever."""

    lease_seconds: float = DEFAULT_LEASE_SECONDS
    executions: int = DEFAULT_EXECUTIONS
    deployment: int | None = None
    poll_seconds: float = 1.0
    stop_seconds: float = DEFAULT_STOP_SECONDS
    exit_when_stuck: bool = False


class Worker(Service):
    """Claims cases and runs them: those that need no more than its `capabilities` (None: any); with `only`, these
    cases and no others, whatever they need. `started` is set once it can claim.

    `errands` are what operators may ask of the process beside its cases.

    `notify` sends the id of something new to readers in other processes, `work` tells other workers that there may be
    something to claim. `pressed` names the types of providers that can take no more now: it claims no cases then that
    need them.
    """

    def __init__(
        self,
        database: Database,
        *,
        actions: Mapping[str, Action],
        broker: Broker,
        clock: Clock,
        ids: IdSource,
        notify: Callable[[str], None],
        work: Callable[[], None] = lambda: None,
        versions: Versions | None = None,
        limits: WorkerLimits | None = None,
        only: Sequence[CaseKey] | None = None,
        capabilities: Capabilities | None = None,
        pressed: Callable[[], Collection[str]] = tuple,
        errands: Mapping[str, Errand] | None = None,
        tracer: Tracer | None = None,
        redactor: Redactor | None = None,
        fault: FaultHook = no_fault,
        open_writer: Callable[[Database, UUID], Awaitable[Writer]] = Writer.open,
    ) -> None:
        super().__init__("circuit-worker")
        self._database = database
        self._actions = actions
        self._clock = clock
        self._ids = ids
        self._broker = broker
        self._notify = notify
        self._work = work
        self._versions = versions or Versions()
        self._limits = limits or WorkerLimits()
        self._only = only
        self._capabilities = capabilities
        self.pressed = pressed
        self._errands = errands
        self._tracer = tracer
        self._redactor = redactor or Redactor()
        self._fault = fault
        self._open_writer = open_writer
        self._tenure: Tenure | None = None
        self.ended = asyncio.Event()
        """Set when the worker is over, however that came: it was stopped, or drained on request."""
        self._left: list[tuple[UUID, Loss]] = []
        self.lease_losses = 0
        """How often a lease of this worker ended without being given back."""

    @property
    def tenure(self) -> Tenure | None:
        """What the worker does now, or None between two incarnations."""
        return self._tenure

    def now(self) -> datetime | None:
        """The database's time, or None while the worker holds no lease."""
        return self._tenure.lease.now() if self._tenure is not None else None

    def wake(self) -> None:
        """A hint that a case may have work, or that a message was sent."""
        if self._tenure is not None:
            self._tenure.claims.wake()
            self._tenure.postman.wake()

    def drain(self, within_seconds: float) -> None:
        """End as `stop` has it end, in the worker's own time: what runs gets `within_seconds`. Returns at once."""
        self._limits = replace(self._limits, stop_seconds=within_seconds)
        self._stopping.set()

    async def _supervise(self) -> None:
        try:
            await super()._supervise()
        finally:
            self.ended.set()

    async def _run(self) -> None:
        while not self.stopping:
            tenure = await self._begin()
            self._tenure = tenure
            self._working()
            try:
                await self._until_over(tenure)
            finally:
                self._tenure = tenure if self.stopping else None
                try:
                    await self._end(tenure)
                finally:
                    self._tenure = None

    async def _interrupt(self, task: asyncio.Task[None]) -> None:
        """The tenure sees `stopping` and ends in bounded time; between two tenures there is nothing to wait for."""
        if self._tenure is None:
            task.cancel()
            return
        await asyncio.wait([task], timeout=2 * self._limits.stop_seconds + 4 * _CLOSE_SECONDS)
        if not task.done():
            logger.error("the worker did not end in time and is cut off; its cases are taken over by another")
            task.cancel()

    async def _begin(self) -> Tenure:
        process = this_process()
        has = self._capabilities
        if self._only is not None:
            # Who works on named cases serves no pool: nobody is to count on it.
            has = replace(has or Capabilities(), pools=())
        incarnation = Incarnation(
            self._ids.uuid(),
            process.host,
            process.boot_id,
            process.pid,
            process.pid_started,
            tuple(has.pools) if has is not None else (),
            has.as_dict() if has is not None else {},
        )
        lease = Lease(
            self._database,
            incarnation,
            self._limits.lease_seconds,
            self._clock.monotonic,
            exit_when_stuck=self._limits.exit_when_stuck,
        )
        await lease.start()
        try:
            await self._settle_what_was_left()
            writer = await self._open_writer(self._database, incarnation.id)
        except BaseException:
            await lease.stop()
            await self._retire(incarnation.id)
            raise
        desk = Desk(writer.write, lease.now, redactor=self._redactor, fault=self._fault)
        claims = Claims(
            self._database,
            incarnation.id,
            desk,
            self._versions,
            now=lease.now,
            fenced=lease.fenced,
            only=self._only,
            fault=self._fault,
            pressed=self.pressed,
            poll_seconds=self._limits.poll_seconds,
            check_seconds=self._limits.lease_seconds,
        )
        # A publisher of the tenure's own: what an execution says goes into the log under the incarnation that began
        # it, or nowhere.
        publisher = Publisher(desk.log, self._broker, lease.now, self._notify)
        turnstile = Turnstile(self._database, self._limits.lease_seconds, now=lease.now, granted=self._granted(claims))
        postman = Postman(
            self._database, self._limits.lease_seconds, brought=self._granted(claims), settled=publisher.heard
        )
        trace = None if self._tracer is None else CaseTrace(self._tracer, incarnation.id)
        desk.reports = Reports(
            claims.lost,
            claims.released,
            claims.landed,
            publisher.announce,
            publisher.changed,
            turnstile.touch,
            postman.wake,
            claims.freed,
            self._kin(claims),
            None if trace is None else trace.written,
        )
        treasury = Treasury(self._database, incarnation.id, self._limits.lease_seconds)
        around = Surroundings(
            self._actions, publisher, desk.log, lease.now, self._fault, treasury, trace, self._redactor, desk.screened
        )
        desk.slots = Slots(
            self._limits.executions,
            around,
            ended=desk.ended,
            broken=desk.broken,
            freed=claims.freed,
            alone=self._only is not None,
            blame=partial(self._blame, incarnation.id),
        )
        shares = Shares(
            self._database,
            incarnation.id,
            desk.slots,
            self._limits.deployment,
            every_seconds=self._limits.poll_seconds,
            hungry=lambda: claims.starved,
            called=self._granted(claims),
        )
        desk.slots.wanting, desk.slots.giving = shares.wake, shares.ended
        lease.culprit = desk.slots.culprit
        sweep = Sweep(
            self._database, incarnation, self._limits.lease_seconds, taken_over=claims.wake, fault=self._fault
        )
        attendance = Attendance(
            self._database,
            incarnation.id,
            release=claims.hand_over,
            drain=self.drain,
            every_seconds=self._limits.poll_seconds,
            errands=self._errands,
        )
        logger.info("worker %s begins", incarnation.id)
        return Tenure(incarnation, lease, writer, desk, claims, sweep, turnstile, postman, attendance, treasury, shares)

    async def _until_over(self, tenure: Tenure) -> None:
        """Serve until the lease is lost or the worker is stopped."""
        limits, *others = tenure.services
        await tenure.treasury.start()
        await limits.start()
        ends = [asyncio.ensure_future(event.wait()) for event in (tenure.lease.lost, self._stopping)]
        known = asyncio.ensure_future(limits.started.wait())
        try:
            # What is limited over all workers is known before anything is claimed: else too much might begin.
            await asyncio.wait([*ends, known], return_when=asyncio.FIRST_COMPLETED)
            if known.done():
                for service in others:
                    await service.start()
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiting in (*ends, known):
                waiting.cancel()

    async def _end(self, tenure: Tenure) -> None:
        lease, worker = tenure.lease, tenure.incarnation.id
        try:
            await self._wind_up(tenure)
        except BaseException:
            # It was cut off, or failed: whoever begins anew in this process gives the cases back first.
            self._left.append((worker, lease.loss or Loss.EXPIRED))
            await self._cut_off(tenure)
            raise
        finally:
            # Whatever happened, the thread must not go on renewing the lease of a worker that does nothing.
            await lease.stop()
        self.lease_losses += lease.loss is not None
        if lease.loss is None:
            await self._retire(worker)
        elif lease.loss is not Loss.FENCED:
            self._left.append((worker, lease.loss))

    async def _wind_up(self, tenure: Tenure) -> None:
        """Begin nothing more, give what runs its time, and commit what it came to."""
        lease, desk = tenure.lease, tenure.desk
        await asyncio.gather(*(service.stop() for service in tenure.services))
        if lease.loss is None:
            self._fault("in_drain")
            await desk.slots.drain(self._limits.stop_seconds)
            await self._settled(desk)
        desk.clear()
        await desk.slots.abandon()
        # What still ran may have called models until now.
        await tenure.treasury.stop()
        await tenure.writer.close(within_seconds=_CLOSE_SECONDS if lease.loss is None else 0)

    async def _cut_off(self, tenure: Tenure) -> None:
        """End at once what `_wind_up` did not come to."""
        tenure.desk.clear()
        await asyncio.gather(*(service.stop() for service in tenure.services), return_exceptions=True)
        await tenure.desk.slots.abandon(_CUT_SECONDS)
        await asyncio.gather(tenure.treasury.stop(), return_exceptions=True)
        await tenure.writer.close(within_seconds=0)

    async def _settled(self, desk: Desk) -> None:
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await desk.settled()
        except TimeoutError:
            logger.warning("some writes were still in flight when the worker ended; what was not committed is redone")

    async def _retire(self, worker: UUID) -> None:
        """Give the cases back, without counting a crash: they are free for others at once."""
        try:
            async with asyncio.timeout(_CLOSE_SECONDS), connected(self._database) as connection:
                await workers.retire(connection, worker)
            logger.info("worker %s retired", worker)
            self._work()
        except (CircuitError, TimeoutError, OSError) as error:
            logger.warning("worker %s could not retire (%s); its lease will expire", worker, error)

    def _granted(self, claims: Claims) -> Callable[[], None]:
        """Cases have become due, here or elsewhere."""

        def tell() -> None:
            claims.wake()
            self._work()

        return tell

    def _kin(self, claims: Claims) -> Callable[[Collection[CaseKey], Collection[CaseKey]], None]:
        """Cases of this worker have opened other cases, or asked something of some."""

        def tell(opened: Collection[CaseKey], asked: Collection[CaseKey]) -> None:
            claims.follow(opened)
            claims.wake()
            self._work()

        return tell

    async def _blame(self, worker: UUID, key: CaseKey | None, firing: int | None) -> None:
        """Say which firing runs alone, or that none does any more. Raises `StorageError`."""
        async with connected(self._database) as connection:
            await workers.suspect(connection, worker, key, firing)

    async def _settle_what_was_left(self) -> None:
        """Free the cases of this process's own lost incarnations, now that the database is there again.

        A lease that expired because the database was away is nobody's crash. A loop that was stuck is: the case that
        blocked it must not do so for ever.
        """
        while self._left:
            worker, loss = self._left[-1]
            async with connected(self._database) as connection:
                if loss is Loss.STUCK:
                    await workers.take_over(connection, worker)
                else:
                    await workers.retire(connection, worker)
            self._left.pop()


@dataclass(frozen=True, slots=True)
class Tenure:
    """Everything that belongs to one incarnation of a worker."""

    incarnation: Incarnation
    lease: Lease
    writer: Writer
    desk: Desk
    claims: Claims
    sweep: Sweep
    turnstile: Turnstile
    postman: Postman
    attendance: Attendance
    treasury: Treasury
    shares: Shares

    @property
    def services(self) -> tuple[Service, ...]:
        """The loops that feed it; the one that knows the limits comes first."""
        return self.shares, self.claims, self.sweep, self.turnstile, self.postman, self.attendance
