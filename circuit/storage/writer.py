"""The one adaptive group commit of a process.

Firings hand their writes to `Writer.write` and wait for the future. Whenever one of the two connections is free, it
takes all that is pending (up to 500 writes) and sends it as one statement and one commit
(`circuit.storage.statements`): single writes when idle, large batches under load. At most one batch of a case is in
flight, so the steps of a case are committed in their order.

What can go wrong, and what it comes to:

    a guard does not hold   the batch rolls back and is halved by case until the guilty write is alone: `GuardLost`
    a lock is not given     the batch is halved likewise; the guilty case is set aside and tried alone after a while
    the worker is fenced    every write, these and all later ones: `Fenced`
    the database is away    writes wait; whether the worker may live so long is for its lease to decide
    the answer is lost      the case's event number is read back: committed, or sent again
    the server was set back what this worker knows never was: it is fenced, and begins anew
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol
from uuid import UUID

from circuit.errors import CircuitError, DatabaseUnreachable, Fenced, StorageError
from circuit.ids import CaseKey
from circuit.storage import readback, workers
from circuit.storage.batch import parameters
from circuit.storage.lane import Lane, Source
from circuit.storage.readback import Pending
from circuit.storage.records import CaseWrite, LogWrite
from circuit.storage.shelf import Shelf
from circuit.storage.verdict import Verdict, judge, refusal

LANES = 2
LARGEST_BATCH = 500
"""How many writes one statement takes at most; the gain of a batch ends at 50 to 200."""
TRIES_TOGETHER = 4
"""After so many tries a batch is halved: perhaps one of its writes is what takes the connection down."""
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0

logger = logging.getLogger(__name__)


def no_fault(point: str) -> None:
    """The hook for crash tests, as it is everywhere else: it does nothing."""


class Pause(Protocol):
    """How the writer waits before it tries again."""

    def __call__(self, seconds: float, /) -> Awaitable[None]: ...


class Writer:
    """Commits the writes of one incarnation. Lives on one event loop."""

    def __init__(
        self,
        database: Source,
        worker: UUID,
        *,
        fault: Callable[[str], None] = no_fault,
        pause: Pause = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._worker = worker
        self._fault = fault
        self._pause = pause
        self._rng = rng or random.Random()
        self._loop = asyncio.get_running_loop()
        self._lanes = [Lane(database, worker) for _ in range(LANES)]
        self._tasks: list[asyncio.Task[None]] = []
        # What may be sent now; what waits for a batch of its case; the cases of the batches that are in flight.
        self._pending: dict[CaseKey, list[Pending]] = {}
        self._behind: dict[CaseKey, list[Pending]] = {}
        self._flying: set[CaseKey] = set()
        # Cases set aside because somebody holds a lock that they need (they count as in flight), those whose pause is
        # over, and the one that is being tried: only one at a time, so that a lane is left for the others.
        self._aside: dict[CaseKey, list[Pending]] = {}
        self._rested: dict[CaseKey, None] = {}
        self._trying: list[Pending] | None = None
        self._resting: set[asyncio.Task[None]] = set()
        self._idle: list[asyncio.Future[None]] = []
        self._closing = False
        self._ended: CircuitError | None = None
        # Of each lane the last write that was committed and left a trace: if that is not there after a new connection,
        # the server was set back.
        self._traces: dict[Lane, CaseWrite | LogWrite] = {}
        self._shelf = Shelf(self._loop.time)
        self.statistics = Statistics()

    @classmethod
    async def open(
        cls,
        database: Source,
        worker: UUID,
        *,
        fault: Callable[[str], None] = no_fault,
        pause: Pause = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> Writer:
        """A writer for the incarnation `worker`, with its connections open. Raises `StorageError`."""
        writer = cls(database, worker, fault=fault, pause=pause, rng=rng)
        try:
            for lane in writer._lanes:
                await lane.connect()
        except BaseException:
            for lane in writer._lanes:
                await lane.close()
            raise
        writer._tasks = [
            asyncio.create_task(writer._serve(lane), name=f"circuit-writer-{number}")
            for number, lane in enumerate(writer._lanes)
        ]
        return writer

    def write(self, write: CaseWrite | LogWrite) -> asyncio.Future[None]:
        """Hand over a write. The future is done when it is committed; it raises `GuardLost`, `Fenced` or another
        `StorageError` when it is certain that it never will be."""
        future: asyncio.Future[None] = self._loop.create_future()
        if self._ended is not None:
            future.set_exception(self._ended)
            return future
        if self._closing:
            future.set_exception(StorageError("the writer is closed"))
            return future
        key = write.key
        queue = self._behind if key in self._flying else self._pending
        waiting = queue.get(key)
        if waiting is None:
            queue[key] = [Pending(write, future)]
        else:
            waiting.append(Pending(write, future))
        self._wake()
        return future

    async def close(self, within_seconds: float | None = None) -> None:
        """Commit all that was handed over, then close the connections. Twice is fine.

        After `within_seconds` (None: however long the database is away) what is left fails with
        `DatabaseUnreachable`, and whether it was committed is not known.
        """
        self._closing = True
        self._wake()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=within_seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        self._end(_given_up())
        for task in self._resting:
            task.cancel()
        for lane in self._lanes:
            await lane.close()

    # -- the queue --------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        """Wake one lane, or all of them if there is nothing more to come."""
        while self._idle:
            waiter = self._idle.pop()
            if not waiter.done():
                waiter.set_result(None)
                if not self._closing:
                    return

    def _take(self) -> list[Pending]:
        """All that may be sent now. Of a case: what was handed over up to, and without, its second step. A case that
        was set aside goes alone."""
        if self._rested and self._trying is None:
            key = next(iter(self._rested))
            del self._rested[key]
            self._trying = self._aside.pop(key)
            return self._trying
        batch: list[Pending] = []
        pending = self._pending
        # The oldest first: a dict gives its keys in the order in which they came.
        for key in list(itertools.islice(pending, LARGEST_BATCH)):
            if len(batch) >= LARGEST_BATCH:
                break
            waiting = pending.pop(key)
            self._flying.add(key)
            cut = _second_step(waiting) if len(waiting) > 1 else None
            if cut is not None:
                self._behind[key] = waiting[cut:]
                del waiting[cut:]
            batch.extend(waiting)
        batch.sort(key=_by_case)
        return batch

    def _land(self, batch: Sequence[Pending]) -> None:
        """The batch is settled: what waited behind its cases may go, but for those that were set aside."""
        if batch is self._trying:
            self._trying = None
        for item in batch:
            key = item.write.key
            if key in self._aside:
                continue
            self._flying.discard(key)
            if self._behind:
                behind = self._behind.pop(key, None)
                if behind is not None:
                    self._pending[key] = behind

    async def _serve(self, lane: Lane) -> None:
        while True:
            batch = self._take()
            if not batch:
                if self._closing and not self._aside:
                    return
                waiter: asyncio.Future[None] = self._loop.create_future()
                self._idle.append(waiter)
                await waiter
                continue
            try:
                await self._settle(lane, batch)
            except asyncio.CancelledError:
                _fail(batch, _given_up())
                raise
            except Exception as error:
                # Nothing here should raise: if it does, the batch fails and the writer lives on.
                logger.exception("a batch of %d writes failed within the writer", len(batch))
                _fail(batch, StorageError(f"the writer failed: {type(error).__name__}: {error}"))
            self._land(batch)
            if self._pending or self._rested or self._closing:
                self._wake()
            # The owners whose futures are done have their turn, so that their next steps are in the next batch.
            await asyncio.sleep(0)

    # -- one batch --------------------------------------------------------------------------------------------------

    async def _settle(self, lane: Lane, batch: Sequence[Pending]) -> None:
        """See to it that each write of `batch` is committed or failed."""
        tries = 0
        while batch and self._ended is None:
            try:
                await self._send(lane, batch)
            except Exception as error:
                verdict = judge(error)
                tries += 1
                if verdict is Verdict.FENCED:
                    self._end(Fenced("this worker was declared dead: nothing that it writes counts any more"))
                    break
                if verdict is Verdict.UNKNOWN:
                    logger.warning("the outcome of a batch is not known, it is read back: %s", _told(error))
                    batch = await self._resolve(lane, batch)
                elif verdict is Verdict.LOCKED:
                    logger.warning("a batch of %d writes waits for a lock: %s", len(batch), _told(error))
                    if len({item.write.key for item in batch}) > 1:
                        await self._split(lane, batch, error)
                    else:
                        self._set_aside(batch)
                    return
                elif verdict is Verdict.AGAIN:
                    logger.warning("a batch was rolled back and is sent again: %s", _told(error))
                if verdict is Verdict.REFUSED or (tries >= TRIES_TOGETHER and len(batch) > 1):
                    await self._split(lane, batch, error)
                    return
                await self._rest(tries)
            else:
                for item in batch:
                    if not item.future.done():
                        item.future.set_result(None)
                return
        if self._ended is not None:
            _fail(batch, self._ended)

    def _set_aside(self, batch: Sequence[Pending]) -> None:
        """Try these writes of one case again after a while; the lane goes on."""
        if self._ended is not None:
            _fail(batch, self._ended)
            return
        self._aside[batch[0].write.key] = list(batch)
        for item in batch:
            item.waits += 1
        task = asyncio.create_task(self._come_back(batch[0]), name="circuit-writer-aside")
        self._resting.add(task)
        task.add_done_callback(self._resting.discard)

    async def _come_back(self, item: Pending) -> None:
        await self._rest(item.waits)
        if item.write.key in self._aside:
            self._rested[item.write.key] = None
            self._wake()

    async def _send(self, lane: Lane, batch: Sequence[Pending]) -> None:
        writes = [item.write for item in batch]
        while True:
            aside = self._shelf.batch()
            names, given = parameters(writes, aside)
            if not aside.lacks:
                break
            await self._shelf.learn(lane.connection, aside)
        self._fault("before_commit")
        await lane.send(names, given)
        self._fault("after_commit")
        self._shelf.keep(aside)
        trace = readback.trace(batch)
        if trace is not None:
            self._traces[lane] = trace
        self.statistics.sent(len(batch))

    async def _split(self, lane: Lane, batch: Sequence[Pending], error: Exception) -> None:
        """Some write of `batch` is refused: find it, and commit the others."""
        if len(batch) == 1:
            await self._refuse(lane, batch[0], error)
            return
        keys = list(dict.fromkeys(item.write.key for item in batch))
        # A case whose step is refused takes the halves down with it; alone, each of its writes is tried in its turn.
        if len(keys) == 1:
            for place, item in enumerate(batch, 1):
                await self._settle(lane, [item])
                if keys[0] in self._aside:
                    self._aside[keys[0]].extend(batch[place:])
                    break
            return
        lower = set(keys[: len(keys) // 2])
        await self._settle(lane, [item for item in batch if item.write.key in lower])
        await self._settle(lane, [item for item in batch if item.write.key not in lower])

    async def _refuse(self, lane: Lane, item: Pending, error: Exception) -> None:
        """`item` was refused alone. If it was sent before and the answer was lost, it may be there already."""
        if item.uncertain and not await self._resolve(lane, [item]):
            return
        _fail([item], self._ended or refusal(error, f"a step of case {item.write.key}"))

    async def _resolve(self, lane: Lane, batch: Sequence[Pending]) -> list[Pending]:
        """Connect anew and read back what became of `batch`; returns what must be sent again."""
        for item in batch:
            item.uncertain = True
        for tries in itertools.count(1):
            if self._ended is not None:
                break
            try:
                await lane.connect()
                if await self._is_set_back(lane):
                    break
                found = await readback.committed(lane.connection, self._worker, [item.write for item in batch])
            except Exception as error:
                logger.warning("the database is away, %d writes wait: %s", len(batch), _told(error))
                await self._rest(tries)
                continue
            if found is None:
                self._end(Fenced("this worker was declared dead: nothing that it writes counts any more"))
                break
            left: list[Pending] = []
            for item, there in zip(batch, found, strict=True):
                if not there:
                    item.again()
                    left.append(item)
                elif not item.future.done():
                    item.future.set_result(None)
            return left
        return list(batch)

    async def _is_set_back(self, lane: Lane) -> bool:
        """Whether the server has forgotten what it had acknowledged. Then this incarnation ends: it knows of things
        that never were, and the guards of its writes could not tell."""
        if await readback.there(lane.connection, list(self._traces.values())):
            return False
        logger.error("the database was set back to an earlier state; this worker gives up its cases and begins anew")
        await workers.retire(lane.connection, self._worker)
        self._end(Fenced("the database was set back: what this worker remembers of its cases never was"))
        return True

    async def _rest(self, tries: int) -> None:
        """Wait before the next try; full jitter, so that the workers of a fleet do not come back as one."""
        longest = min(FIRST_PAUSE_SECONDS * 2 ** min(tries - 1, 16), LONGEST_PAUSE_SECONDS)
        await self._pause(self._rng.uniform(0, longest))

    def _end(self, error: CircuitError) -> None:
        """Nothing more can be written: fail all that waits, and all that comes."""
        if self._ended is None:
            self._ended = error
        self._rested.clear()
        for queue in (self._pending, self._behind, self._aside):
            for waiting in queue.values():
                _fail(waiting, self._ended)
            queue.clear()


class Statistics:
    """How much the writer has sent: batches, writes, and the largest batch."""

    __slots__ = ("batches", "largest", "writes")

    def __init__(self) -> None:
        self.batches = 0
        self.writes = 0
        self.largest = 0

    def sent(self, writes: int) -> None:
        self.batches += 1
        self.writes += writes
        self.largest = max(self.largest, writes)


def _by_case(item: Pending) -> tuple[int, int]:
    tenant, case = item.write.key
    return tenant, case.int


def _second_step(waiting: Sequence[Pending]) -> int | None:
    """Where in `waiting` the second step of the case stands, if there is one."""
    steps = 0
    for place, item in enumerate(waiting):
        if isinstance(item.write, CaseWrite):
            steps += 1
            if steps == 2:
                return place
    return None


def _given_up() -> DatabaseUnreachable:
    return DatabaseUnreachable("the writer was closed before it was known whether this is committed")


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _fail(batch: Sequence[Pending], error: CircuitError) -> None:
    for item in batch:
        if not item.future.done():
            item.future.set_exception(error)
