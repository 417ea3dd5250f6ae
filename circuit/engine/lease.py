"""The lease of one start of a worker, renewed from a thread with an event loop and a connection of its own.

So neither a slow model nor a busy loop lets it expire; but a loop that is *stuck* must, or its cases would hang with
it: the worker's loop beats, and the thread renews only what beats. The lease is also the worker's clock: now is the
database's time at the last renewal plus the monotonic time since.

A lease ends in one of three ways, and then nothing that the worker writes may count any more:
`fenced`   another worker declared this one dead; the database refuses its writes.
`expired`  it could not be renewed in time; nobody else may have noticed.
`stuck`    the worker's loop did not beat for longer than the lease.

What blocks a loop is found: the thread asks which task the loop is in. If that is an execution, its firing is to blame
when the worker is taken over, and no other. A loop that comes back begins anew; one that never does takes its process
down with it, where that is the process's own wish (`exit_when_stuck`), so that whoever supervises it starts another.

It also ends where the database's clock has gone back by more than the lease: the worker's own never does, so that
what it plans would be due when the other has caught up. It begins anew, by the clock that there is now.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from circuit.engine.connecting import close, connected
from circuit.engine.service import Backoff
from circuit.ids import CaseKey
from circuit.storage import workers
from circuit.storage.database import Database
from circuit.storage.driver import Connection
from circuit.storage.workers import Incarnation

logger = logging.getLogger(__name__)

DEFAULT_LEASE_SECONDS = 15.0
EXIT_STUCK = 70
"""The exit code of a process whose loop is stuck for ever (EX_SOFTWARE)."""
STOP_SECONDS = 2.0
"""How long `stop` waits for the thread; it is a daemon, so the process ends without it."""


class Loss(StrEnum):
    """Why a lease ended without being given back."""

    FENCED = "fenced"
    EXPIRED = "expired"
    STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class Renewal:
    """The database's time at a renewal, and the monotonic time of this process when it was asked and answered.

    The lease counts from the question, and the time from the answer: so this worker neither believes in its lease
    for longer than others do, nor does anything before the database's clock says that it is due.
    """

    database_time: datetime
    asked: float
    answered: float


class Lease:
    """One incarnation's lease. Made and used on the worker's loop; `lost` is set there when it ends."""

    def __init__(
        self,
        database: Database,
        incarnation: Incarnation,
        lease_seconds: float = DEFAULT_LEASE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        exit_when_stuck: bool = False,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        self.incarnation = incarnation
        self.lease_seconds = lease_seconds
        self.lost = asyncio.Event()
        self.loss: Loss | None = None
        self.culprit: Callable[[asyncio.Task[Any]], tuple[CaseKey, int] | None] = lambda _: None
        self._exit_when_stuck = exit_when_stuck
        self._leave = leave
        self._database = database
        self._monotonic = monotonic
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._renewal: Renewal | None = None
        self._told: datetime | None = None
        self._beat = monotonic()
        self._beating: asyncio.TimerHandle | None = None
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._thread_loop: asyncio.AbstractEventLoop | None = None
        self._renewing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Register the incarnation and begin to renew. Raises `StorageError` where it cannot be registered."""
        async with connected(self._database) as connection:
            asked = self._monotonic()
            now = await workers.register(connection, self.incarnation, self.lease_seconds)
            self._renewal = Renewal(now, asked, self._monotonic())
        self._pulse()
        self._thread = threading.Thread(target=self._renew_in_thread, name="circuit-lease", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Stop renewing; the incarnation stays as it is (`workers.retire` gives it back). Stopping twice is fine."""
        self._ending.set()
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None
        thread, loop, renewing = self._thread, self._thread_loop, self._renewing
        if thread is None:
            return
        if loop is not None and renewing is not None:
            # It may wait for a database that is away; a loop that is closed already has nothing left to cancel.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(renewing.cancel)
        await asyncio.to_thread(thread.join, STOP_SECONDS)
        if thread.is_alive():
            logger.warning("the lease's thread did not end in time and is left behind")

    @property
    def held(self) -> bool:
        """Whether the lease is certain to be this worker's still."""
        renewal = self._renewal
        return self.loss is None and renewal is not None and self._monotonic() - renewal.asked < self.lease_seconds

    def now(self) -> datetime:
        """The database's time, without asking it: never ahead of it, and it never goes back."""
        renewal = self._renewal
        if renewal is None:
            raise RuntimeError("the lease was not started: the database's time is not known")
        now = renewal.database_time + timedelta(seconds=self._monotonic() - renewal.answered)
        if self._told is None or now > self._told:
            self._told = now
        return self._told

    def fenced(self) -> None:
        """The database refused a write because this incarnation is fenced."""
        self._lose(Loss.FENCED)

    # -- on the worker's loop ---------------------------------------------------------------------------------------

    def _pulse(self) -> None:
        """Show the thread that this loop turns, and see whether the lease is over while the thread is cut off."""
        self._beat = self._monotonic()
        if self.loss is None and not self.held:
            self._lose(Loss.EXPIRED)
        if not self._ending.is_set() and self.loss is None:
            self._beating = self._loop.call_later(self.lease_seconds / 10, self._pulse)

    def _lose(self, loss: Loss) -> None:
        if self.loss is None and not self._ending.is_set():
            self.loss = loss
            self._ending.set()
            logger.error("the lease of worker %s is lost: %s", self.incarnation.id, loss.value)
            self.lost.set()

    # -- in the thread ----------------------------------------------------------------------------------------------

    def _renew_in_thread(self) -> None:
        try:
            asyncio.run(self._renew())
        except asyncio.CancelledError:
            return
        except Exception:
            logger.exception("the lease's thread ended")

    def _report(self, loss: Loss) -> None:
        try:
            self._loop.call_soon_threadsafe(self._lose, loss)
        except RuntimeError:
            logger.debug("the worker's loop is closed; nobody is left to hear that the lease is %s", loss.value)

    async def _accuse(self, connection: Connection | None) -> None:
        """Find out what the loop is stuck in, and say so before others take over."""
        task = asyncio.current_task(self._loop)
        stack = sys._current_frames().get(self._loop_thread)  # pyright: ignore[reportPrivateUsage]
        shown = "".join(traceback.format_stack(stack)) if stack is not None else "no stack"
        name = task.get_name() if task is not None else "no task"
        logger.error("the worker's loop is stuck in %s:\n%s", name, shown)
        found = self.culprit(task) if task is not None else None
        if found is None or connection is None or connection.is_closed():
            return
        try:
            async with asyncio.timeout(self.lease_seconds / 2):
                await workers.suspect(connection, self.incarnation.id, *found)
        except Exception as error:
            logger.warning("it could not be said what the worker is stuck in: %s: %s", type(error).__name__, error)

    async def _give_up_on_the_loop(self) -> None:
        """End the process if its loop does not come back within another lease."""
        if not self._exit_when_stuck:
            return
        await asyncio.sleep(self.lease_seconds)
        if self._monotonic() - self._beat > 2 * self.lease_seconds:
            logger.critical("the worker's loop does not come back: the process ends")
            faulthandler.dump_traceback()
            self._leave(EXIT_STUCK)

    async def _renew(self) -> None:
        """Renew every third of the lease until it is lost or `stop` is called."""
        self._thread_loop = asyncio.get_running_loop()
        self._renewing = asyncio.current_task()
        connection: Connection | None = None
        backoff = Backoff(first=self.lease_seconds / 30, longest=self.lease_seconds / 6)
        wait = self.lease_seconds / 3
        try:
            while not self._ending.is_set():
                await asyncio.sleep(wait)
                if self._ending.is_set():
                    return
                if self._monotonic() - self._beat > self.lease_seconds:
                    await self._accuse(connection)
                    self._report(Loss.STUCK)
                    await self._give_up_on_the_loop()
                    return
                asked = self._monotonic()
                try:
                    async with asyncio.timeout(self.lease_seconds / 2):
                        if connection is None or connection.is_closed():
                            connection = await self._database.raw()
                        now = await self._renewed(connection)
                except Exception as error:
                    logger.warning("the lease could not be renewed: %s: %s", type(error).__name__, error)
                    await close(connection)
                    connection = None
                    wait = backoff.next()
                    continue
                if now is None:
                    self._report(Loss.FENCED)
                    return
                if self.now() - now > timedelta(seconds=self.lease_seconds):
                    logger.error("the database's clock went back by %s", self.now() - now)
                    self._report(Loss.EXPIRED)
                    return
                self._renewal = Renewal(now, asked, self._monotonic())
                backoff.reset()
                wait = self.lease_seconds / 3
        finally:
            await close(connection)

    async def _renewed(self, connection: Connection) -> datetime | None:
        """The database's time at a renewal that it took, or None."""
        before = self._renewal
        until = None if before is None else before.database_time + timedelta(seconds=self.lease_seconds)
        return await workers.renew(connection, self.incarnation.id, self.lease_seconds, until)
