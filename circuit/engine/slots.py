"""A bounded number of executions at once. What has no slot yet waits here for its turn (`circuit.engine.turns`).

A part of the slots is kept for others than the cases that have many already: a case with a thousand firings takes most
of the slots while it is alone, and never all of them. What runs in quarantine (`circuit.engine.quarantine`) waits until
nothing else runs, and nothing else begins until it has ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from circuit.engine.action import Abandonable, ActionCall
from circuit.engine.execution import Cutoff, Ended, Surroundings, execute
from circuit.engine.firings import Start
from circuit.engine.quarantine import Blame, Quarantine, nobody
from circuit.engine.quota import Quota
from circuit.engine.turns import Turns
from circuit.ids import CaseKey
from circuit.storage.shares import Pool

logger = logging.getLogger(__name__)


KEPT_PART = 4
"""One slot in so many is kept for cases that have less than this part of the slots."""


@dataclass(slots=True, eq=False)
class Running:
    """An execution in its slot. After `dropped`, how it ends is told to nobody."""

    call: ActionCall
    pools: tuple[Pool, ...]
    task: asyncio.Task[Ended]
    cutoff: Cutoff
    dropped: bool = False

    @property
    def key(self) -> CaseKey:
        return self.call.key

    def cancel(self) -> None:
        """End it. An action that is slow to heed the cancellation can say and record nothing more meanwhile."""
        self.dropped = True
        self.cutoff.end()
        self.task.cancel()


class Slots:
    """Runs `Start`s, at most `limit` at once, and tells how each ended. A cancelled one is not told of. `alone` says
    that there are no other cases than those that are here: then none are kept in mind.

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
        alone: bool = False,
        blame: Blame = nobody,
    ) -> None:
        self.own_limit = limit
        self.quota = Quota()
        """What of it is limited over all workers."""
        self.wanting: Callable[[], None] = lambda: None
        """Called when something must wait for its turn."""
        self.giving: Callable[[], None] = lambda: None
        """Called when something has ended that counts in a limited pool."""
        self._alone = alone
        self.allowed = limit
        self._bound(limit)
        self._of_case: Counter[CaseKey] = Counter()
        self._around = around
        self._ended = ended
        self._broken = broken
        self._freed = freed
        self._waiting = Turns()
        self._quarantine = Quarantine(blame)
        self._running: set[Running] = set()
        self._elsewhere: set[asyncio.Task[None]] = set()
        self._closed = False
        self.submitted = 0
        """How many executions were asked for in all."""
        self.outcomes: Counter[str] = Counter()
        """How many have ended, by how."""

    def _bound(self, limit: int) -> None:
        self._limit = min(limit, self.own_limit)
        # From which number of running executions on a case must have less than its share to begin another.
        self._common = self._limit if self._alone else self._limit - self._limit // KEPT_PART
        self._share = max(1, self._limit // KEPT_PART)

    def resize(self, allowed: int) -> None:
        """Run so many at once from now on, and no more than the worker's own limit; what runs beyond it ends by
        itself."""
        self.allowed = allowed
        self._bound(allowed)
        self._more()

    def limit(self, pools: Collection[Pool]) -> None:
        """From now on these pools are limited over all workers, and no others; what one of them may run here is said
        with `allow`."""
        self.quota.limit(pools)
        self.quota.recount((one.call for one in self._running), (start.call for start in self._waiting))
        for one in self._running:
            one.pools = self.quota.of(one.call)
        self._more()

    def allow(self, pool: Pool, ceiling: int) -> None:
        """So many executions of a limited pool may run here."""
        self.quota.allow(pool, ceiling)
        self._more()

    def _more(self) -> None:
        """There may be room for more than before."""
        if self._waiting or self._quarantine:
            self._go_on()
        if self.free:
            self._freed()

    def crowded(self, tenant: int, config: Mapping[str, Any]) -> str | None:
        """The place at which a firing that is about to begin waits for its turn (`Quota.crowded`), if it is to. One of
        a worker that has only its own cases waits here."""
        return None if self._alone else self.quota.crowded(tenant, config)

    @property
    def demand(self) -> int:
        """How many executions run or wait."""
        return self.running + self.waiting

    @property
    def waiting(self) -> int:
        """How many executions wait for their turn."""
        return len(self._waiting) + len(self._quarantine)

    @property
    def running(self) -> int:
        """How many executions run, those that are being cancelled included."""
        return len(self._running)

    @property
    def free(self) -> int:
        """How many executions of cases that have few could start now."""
        if self._quarantine or self._quarantine.occupied:
            return 0
        # What waits for something else than a slot takes none.
        waiting = min(len(self._waiting) - self.quota.held_up, max(0, self._common - len(self._running)))
        return max(0, self._limit - len(self._running) - waiting)

    def submit(self, start: Start) -> None:
        """Start it as soon as there is a slot. After `close` nothing starts any more."""
        if self._closed:
            return
        self.submitted += 1
        if start.alone:
            self._quarantine.add(start)
            self._begin_alone()
        elif self._may_begin(start) and not self._quarantine:
            self._begin(start)
        else:
            self._waiting.add(start)
            self.quota.waits(self.quota.of(start.call))
            self.wanting()

    def cancel(self, key: CaseKey, firing: int | None = None) -> None:
        """End one execution of a case, or all of them; how they end is not told."""
        for running in self._running:
            if running.key == key and firing in (None, running.call.firing):
                running.cancel()
        if self._waiting:
            for start in self._waiting.remove(key, firing):
                self.quota.waits_no_more(self.quota.of(start.call))
        if self._quarantine:
            self._quarantine.remove(key, firing)
            self._go_on()

    def culprit(self, task: asyncio.Task[Any]) -> tuple[CaseKey, int] | None:
        """The firing whose execution `task` is. May be asked from another thread while this one is stuck."""
        for running in list(self._running):
            if running.task is task:
                return running.key, running.call.firing
        return None

    def end_elsewhere(self, call: ActionCall) -> None:
        """The firing of `call` ended without its action: let the action end what goes on of it elsewhere."""
        action = self._around.actions.get(call.kind)
        if isinstance(action, Abandonable):
            task = asyncio.create_task(_abandon(action, call), name=f"{call.execution_id} elsewhere")
            self._elsewhere.add(task)
            task.add_done_callback(self._elsewhere.discard)

    def close(self) -> None:
        """Start nothing more, and forget what waits."""
        self._closed = True
        self._waiting.clear()
        self.quota.waiting.clear()
        self._quarantine.clear()

    async def drain(self, seconds: float) -> None:
        """Close, and give what runs `seconds` to end."""
        self.close()
        going = [*(running.task for running in self._running), *self._elsewhere]
        if going:
            await asyncio.wait(going, timeout=seconds)

    async def abandon(self, seconds: float = 1.0) -> None:
        """Close and cancel everything; an action that does not heed it within `seconds` is left behind."""
        self.close()
        for running in self._running:
            running.cancel()
        if self._running:
            _, heedless = await asyncio.wait([running.task for running in self._running], timeout=seconds)
            for task in heedless:
                logger.error("execution %s did not end when it was cancelled; it is left behind", task.get_name())

    def _may_begin(self, start: Start) -> bool:
        running = len(self._running)
        if not self.quota.allows(self.quota.of(start.call)):
            return False
        if running < self._common:
            return not self._quarantine.occupied
        return running < self._limit and self._of_case[start.call.key] < self._share and not self._quarantine.occupied

    def _go_on(self, *, after_quarantine: bool = False) -> None:
        """Begin what may begin now. After one ran alone, what had to wait for it goes before the next one."""
        if self._closed:
            return
        if after_quarantine or not self._quarantine:
            while self._waiting and (waiting := self._waiting.take(self._may_begin)) is not None:
                self.quota.waits_no_more(self.quota.of(waiting.call))
                self._begin(waiting)
        self._begin_alone()

    def _begin_alone(self) -> None:
        if self._quarantine and not self._running:
            self._begin(self._quarantine.take())

    def _begin(self, start: Start) -> None:
        call = start.call
        self._of_case[call.key] += 1
        cutoff = Cutoff()
        perform = self._quarantine.perform if start.alone else execute
        task = asyncio.create_task(perform(start, self._around, cutoff), name=call.execution_id)
        running = Running(call, self.quota.of(call), task, cutoff)
        self._running.add(running)
        self.quota.begins(running.pools)
        task.add_done_callback(partial(self._done, running))

    def _done(self, running: Running, task: asyncio.Task[Ended]) -> None:
        self._running.discard(running)
        self.quota.ends(running.pools)
        self._of_case[running.key] -= 1
        if not self._of_case[running.key]:
            del self._of_case[running.key]
        after_quarantine, self._quarantine.occupied = self._quarantine.occupied, False
        if self._waiting or self._quarantine:
            self._go_on(after_quarantine=after_quarantine)
        if self.free:
            self._freed()
        self.giving()
        if task.cancelled():
            self.outcomes["cancelled"] += 1
            return
        error = task.exception()
        if running.dropped:
            self.outcomes["cancelled"] += 1
            return
        if error is not None:
            self.outcomes["interrupted"] += 1
            self._broken(running.key, error)
        else:
            ended = task.result()
            self.outcomes[ended.outcome] += 1
            self._ended(ended)


async def _abandon(action: Abandonable, call: ActionCall) -> None:
    try:
        await action.abandon(call)
    except Exception:
        logger.exception("what execution %s has elsewhere could not be ended", call.execution_id)
