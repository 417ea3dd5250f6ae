"""Everything that runs in the background is a service: `start()`, `started`, `stop()`, and stopping twice is fine.

A service is a loop that must outlive its faults: an error is logged and the loop goes on after a wait with full
jitter, so that a database that was restarted is found again and is not stormed when it is back.
"""

from __future__ import annotations

import asyncio
import logging
import random
from abc import ABC, abstractmethod

from circuit.errors import CircuitError

logger = logging.getLogger(__name__)

FIRST_BACKOFF_SECONDS = 0.05
LONGEST_BACKOFF_SECONDS = 5.0


class Backoff:
    """Waits that grow from `first` to `longest` seconds, each drawn from zero up ("full jitter")."""

    def __init__(
        self,
        first: float = FIRST_BACKOFF_SECONDS,
        longest: float = LONGEST_BACKOFF_SECONDS,
        rng: random.Random | None = None,
    ) -> None:
        self._first = first
        self._longest = longest
        self._rng = rng or random.Random()
        self._failures = 0

    @property
    def failures(self) -> int:
        """How many waits were asked for since the last `reset`."""
        return self._failures

    def reset(self) -> None:
        """Begin with the shortest wait again."""
        self._failures = 0

    def next(self) -> float:
        """How many seconds to wait now."""
        ceiling = min(self._longest, self._first * 2 ** min(self._failures, 30))
        self._failures += 1
        return self._rng.uniform(0, ceiling)


class Service(ABC):
    """A background loop. Subclasses write `_run`, which returns only when the service is to end by itself."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.started = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._backoff = Backoff()
        self._refused: Exception | None = None
        self._decided = asyncio.Event()

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    async def start(self) -> None:
        """Begin; returns at once. `started` is set when the service does its work. Starting twice is an error."""
        if self._task is not None:
            raise RuntimeError(f"the service {self.name} was started before")
        self._task = asyncio.create_task(self._supervise(), name=self.name)

    async def ready(self) -> None:
        """Wait until the service works. Raises the error that keeps it from that, unless it is one that passes."""
        await self._decided.wait()
        if self._refused is not None and not self.started.is_set():
            raise self._refused

    async def stop(self) -> None:
        """End, in bounded time, and wait for the end. Stopping twice, or before the start, does nothing."""
        self._stopping.set()
        task = self._task
        if task is None:
            return
        await self._interrupt(task)
        await asyncio.gather(task, return_exceptions=True)

    async def _interrupt(self, task: asyncio.Task[None]) -> None:
        """How `_run` is told to end: it is cancelled, unless a subclass ends in another way."""
        task.cancel()

    @abstractmethod
    async def _run(self) -> None:
        """Do the work: call `_working` when it goes well, and return when there is nothing more to do."""

    def _working(self) -> None:
        """Say that the loop does its work: the next error waits the shortest time again."""
        self._backoff.reset()
        self.started.set()
        self._decided.set()

    async def _supervise(self) -> None:
        while not self.stopping:
            try:
                await self._run()
                return
            except (KeyboardInterrupt, SystemExit, GeneratorExit):
                raise
            except asyncio.CancelledError as error:
                if self.stopping:
                    return
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    # Whoever cancels the task itself means it: the event loop is being closed.
                    raise
                # Something that the loop waited for was cancelled under it; nobody asked the loop to end.
                await self._after(error)
            except BaseException as error:
                await self._after(error)

    async def _after(self, error: BaseException) -> None:
        seconds = self._backoff.next()
        passing = isinstance(error, CircuitError) and error.retryable
        if not passing and not self.started.is_set():
            self._refused = error if isinstance(error, Exception) else RuntimeError(f"{self.name} failed: {error!r}")
            self._decided.set()
        if passing:
            logger.warning("%s: %s; trying again in %.2f s", self.name, error, seconds)
        else:
            logger.error("%s failed; trying again in %.2f s", self.name, seconds, exc_info=error)
        await self.pause(seconds)

    async def rest(self, woken: asyncio.Event, seconds: float, gather: float) -> None:
        """Wait `seconds`, or until `woken` is set and `gather` seconds more, for what is wanted at the same time."""
        try:
            async with asyncio.timeout(seconds):
                await woken.wait()
        except TimeoutError:
            return
        await self.pause(gather)

    async def pause(self, seconds: float) -> None:
        """Wait `seconds`, or until `stop` is called."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
