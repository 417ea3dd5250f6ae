"""The engine of one process: a worker if it is to have one, the streams, and the doors for commands and queries.

It is put together here from parts that are handed in; `circuit.app` supplies them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime

from circuit import collector
from circuit.clock import Clock
from circuit.engine.action import Action
from circuit.engine.archive.compaction import Compaction
from circuit.engine.archive.keeper import Keeper
from circuit.engine.archive.policy import Policy
from circuit.engine.archive.round import Archive
from circuit.engine.attendance import Errand
from circuit.engine.budgets import Budgets
from circuit.engine.commands import Commands
from circuit.engine.consultations import Consultations
from circuit.engine.conversations import Conversations
from circuit.engine.costs import Costs
from circuit.engine.execution import FaultHook, no_fault
from circuit.engine.feedback import FeedbackLog
from circuit.engine.figures import figures, worker_figures
from circuit.engine.fleet import Fleet
from circuit.engine.grants import Grants
from circuit.engine.hints import Hints
from circuit.engine.inbox import Inbox
from circuit.engine.keys import Keys
from circuit.engine.ledger import Ledger
from circuit.engine.limits import ExecutionLimits
from circuit.engine.messages import Messages
from circuit.engine.migrator import Migrator
from circuit.engine.overview import Overview
from circuit.engine.pages import Pages
from circuit.engine.publishing import Publishing
from circuit.engine.queries import Queries
from circuit.engine.rates import StartRates
from circuit.engine.requirement import Capabilities
from circuit.engine.schedules import Schedules
from circuit.engine.travel import Travel
from circuit.engine.versions import Versions
from circuit.engine.worker import Worker, WorkerLimits
from circuit.ids import CaseKey, IdSource
from circuit.observability.metrics import Figure
from circuit.security.rates import Rate
from circuit.security.redactor import Redactor
from circuit.storage.database import Database
from circuit.storage.notifications import Listener, Notifier
from circuit.streams.broker import RING_FRAMES, Broker
from circuit.streams.relay import Relay
from circuit.streams.subscription import Streams
from circuit.tracing import Tracer

WORK = "work"
"""The hint that some case has work. All other hints are ids of cases and executions."""


class Engine:
    """Everything of Circuit that runs in one process over one database. `worker=False` asks and reads only.

    With `only` the worker claims no other cases; it looks at the sequence at each claim, so a list may grow. `errands`
    are what operators may ask of this process beside, if it has a worker. `tracer`, where there is one, is told what is
    done for each case; `redactor` has the rules by which what is told of cases is redacted.
    """

    def __init__(
        self,
        database: Database,
        *,
        actions: Mapping[str, Action],
        clock: Clock,
        ids: IdSource,
        worker: bool = True,
        only: Sequence[CaseKey] | None = None,
        capabilities: Capabilities | None = None,
        errands: Mapping[str, Errand] | None = None,
        limits: WorkerLimits | None = None,
        versions: Versions | None = None,
        policy: Policy | None = None,
        archive: Archive | None = None,
        ring_frames: int = RING_FRAMES,
        pressed: Callable[[], Collection[str]] = tuple,
        starts: Rate | None = None,
        tracer: Tracer | None = None,
        redactor: Redactor | None = None,
        fault: FaultHook = no_fault,
    ) -> None:
        self._clock = clock
        self._database = database
        self._notifier = Notifier(database)
        self._listener = Listener(database, self._heard, own=self._notifier)
        self._broker = Broker(ring_frames)
        self._relay = Relay(self._broker, listening=lambda: self._listener.listening)
        self.versions = versions or Versions()
        self.streams = Streams(database, self._broker, self._relay, clock, self.holds)
        hints = Hints(self._broker, self._relay, self._work, _untraced if tracer is None else tracer.caller)
        limited = None if starts is None else StartRates(database, starts, clock.monotonic)
        self.commands = Commands(database, self.versions, ids, self.now, hints, limited)
        self.consultations = Consultations(database, self.commands, self.versions)
        self.messages = Messages(database, self.versions, ids, self.now, hints, limited)
        self.queries = Queries(database, self.versions, self.now)
        self.travel = Travel(database, self.queries, ids, self.now, hints, limited)
        self.migrator = Migrator(database, self.queries, self.commands)
        self.pages = Pages(database)
        self.inbox = Inbox(database, self.commands)
        self.publishing = Publishing(database)
        self.schedules = Schedules(database, self.queries, self.now)
        self.keys = Keys(database, self.now, clock.monotonic)
        self.ledger = Ledger(database)
        self.fleet = Fleet(database, ids)
        self.overview = Overview(database, self.fleet, self.now, clock.monotonic)
        self.conversations = Conversations(database, ids)
        self.budgets = Budgets(database)
        self.costs = Costs(database, self.now)
        self.feedback = FeedbackLog(database)
        self.limits = ExecutionLimits(database)
        self.grants = Grants(database)
        self.compaction = Compaction(database)
        # Who stays looks after the database too; a command that works on its own cases does not.
        self.keeper = None if only is not None else Keeper(database, self.now, policy or Policy(), archive)
        self.worker: Worker | None = None
        if worker:
            self.worker = Worker(
                database,
                actions=actions,
                broker=self._broker,
                clock=clock,
                ids=ids,
                notify=self._notifier.notify,
                work=self._work,
                versions=self.versions,
                limits=limits,
                only=only,
                capabilities=capabilities,
                pressed=pressed,
                errands=errands,
                tracer=tracer,
                redactor=redactor,
                fault=fault,
            )

    async def figures(self) -> Sequence[Figure]:
        """What waits in the database, in figures. Raises `StorageError`."""
        return await figures(self._database)

    def process_figures(self) -> Sequence[Figure]:
        """What this process does, in figures."""
        return () if self.worker is None else worker_figures(self.worker)

    def holds(self, key: CaseKey) -> bool:
        """Whether the worker of this process has the case in memory: nobody else adds to its history then."""
        tenure = None if self.worker is None else self.worker.tenure
        return tenure is not None and key in tenure.desk

    def now(self) -> datetime:
        """The database's time where this process has a worker, else this machine's."""
        told = self.worker.now() if self.worker is not None else None
        return told if told is not None else self._clock.now()

    async def start(self) -> None:
        """Begin to listen and, if there is a worker, to work; returns when the worker can claim.

        Raises what keeps the worker from that, unless it is an error that passes; call `stop` all the same.
        """
        self._notifier.start()
        self._listener.start()
        if self.worker is not None:
            collector.relax()
            await self.worker.start()
            await self.worker.ready()
            if self.keeper is not None:
                await self.keeper.start()

    async def stop(self) -> None:
        """End in bounded time: the worker drains and hands its cases back. Stopping twice is fine."""
        if self.keeper is not None:
            await self.keeper.stop()
        if self.worker is not None:
            await self.worker.stop()
        await self._listener.stop()
        await self._notifier.stop()

    def _work(self) -> None:
        """Some case has work: tell the worker here at once, and those elsewhere."""
        if self.worker is not None:
            self.worker.wake()
        self._notifier.notify(WORK)

    def _heard(self, names: Sequence[str]) -> None:
        """Hints of other processes came, or (an empty list) may have been missed."""
        if not names:
            self._relay.reconnected()
        for name in names:
            if name != WORK:
                self._relay.hear(name)
        if self.worker is not None and (not names or WORK in names):
            self.worker.wake()


def _untraced() -> None:
    """Whoever asks is in no trace that is known here."""
