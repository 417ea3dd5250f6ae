"""A bounded number of executions at once. What has no slot yet waits here, in the order in which it came."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from circuit.engine.execution import Cutoff, Ended, Surroundings, execute
from circuit.engine.owner import Start
from circuit.ids import CaseKey

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Running:
    """An execution in its slot. After `dropped`, how it ends is told to nobody."""

    key: CaseKey
    firing: int
    task: asyncio.Task[Ended]
    cutoff: Cutoff
    dropped: bool = False

    def cancel(self) -> None:
        """End it. An action that is slow to heed the cancellation can say and record nothing more meanwhile."""
        self.dropped = True
        self.cutoff.end()
        self.task.cancel()


class Slots:
    """Runs `Start`s, at most `limit` at once, and tells how each ended. A cancelled one is not told of.

    What runs is found by looking at all of it: that happens only where something is cancelled, and keeps the way of
    an execution that simply ends as short as it can be.
    """

    def __init__(
        self,
        limit: int,
        around: Surroundings,
        *,
        ended: Callable[[Ended], None],
        broken: Callable[[CaseKey, BaseException], None],
        freed: Callable[[], None],
    ) -> None:
        self._limit = limit
        self._around = around
        self._ended = ended
        self._broken = broken
        self._freed = freed
        self._waiting: deque[Start] = deque()
        self._running: set[Running] = set()
        self._closed = False
        self.submitted = 0
        """How many executions were asked for in all."""

    @property
    def running(self) -> int:
        """How many executions run, those that are being cancelled included."""
        return len(self._running)

    @property
    def free(self) -> int:
        """How many executions could start now."""
        return max(0, self._limit - len(self._running) - len(self._waiting))

    def submit(self, start: Start) -> None:
        """Start it as soon as there is a slot. After `close` nothing starts any more."""
        if self._closed:
            return
        self.submitted += 1
        if len(self._running) < self._limit:
            self._begin(start)
        else:
            self._waiting.append(start)

    def cancel(self, key: CaseKey, firing: int | None = None) -> None:
        """End one execution of a case, or all of them; how they end is not told."""
        for running in self._running:
            if running.key == key and firing in (None, running.firing):
                running.cancel()
        if self._waiting:
            left = [
                start for start in self._waiting if start.call.key != key or firing not in (None, start.call.firing)
            ]
            self._waiting = deque(left)

    def close(self) -> None:
        """Start nothing more, and forget what waits."""
        self._closed = True
        self._waiting.clear()

    async def drain(self, seconds: float) -> None:
        """Close, and give what runs `seconds` to end."""
        self.close()
        if self._running:
            await asyncio.wait([running.task for running in self._running], timeout=seconds)

    async def abandon(self, seconds: float = 1.0) -> None:
        """Close and cancel everything; an action that does not heed it within `seconds` is left behind."""
        self.close()
        for running in self._running:
            running.cancel()
        if self._running:
            _, heedless = await asyncio.wait([running.task for running in self._running], timeout=seconds)
            for task in heedless:
                logger.error("execution %s did not end when it was cancelled; it is left behind", task.get_name())

    def _begin(self, start: Start) -> None:
        call = start.call
        cutoff = Cutoff()
        task = asyncio.create_task(execute(start, self._around, cutoff), name=call.execution_id)
        running = Running(call.key, call.firing, task, cutoff)
        self._running.add(running)
        task.add_done_callback(partial(self._done, running))

    def _done(self, running: Running, task: asyncio.Task[Ended]) -> None:
        self._running.discard(running)
        if self._waiting:
            if not self._closed and len(self._running) < self._limit:
                self._begin(self._waiting.popleft())
        else:
            self._freed()
        if task.cancelled():
            return
        error = task.exception()
        if running.dropped:
            return
        if error is not None:
            self._broken(running.key, error)
        else:
            self._ended(task.result())
