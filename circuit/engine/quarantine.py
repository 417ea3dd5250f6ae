"""Firings that run alone, because processes were lost with them before: while one runs, nothing else in its worker
does.

So a crash has one possible cause. The worker says before it begins which firing that is (`workers.suspect`); if it
dies, that firing is to blame and no other, and one that merely ran beside a bad one is done after one quiet run.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from circuit.engine.execution import Cutoff, Ended, Surroundings, execute
from circuit.engine.firings import Start
from circuit.engine.service import Backoff
from circuit.ids import CaseKey

logger = logging.getLogger(__name__)

Blame = Callable[[CaseKey | None, int | None], Awaitable[None]]
"""Says which firing is to blame if this worker dies from now on; without one, all that run are."""


async def nobody(key: CaseKey | None, firing: int | None) -> None:
    """The `Blame` of slots that have no database behind them."""


class Quarantine:
    """The starts that wait to run alone, and the one that does."""

    def __init__(self, blame: Blame) -> None:
        self._blame = blame
        self._waiting: deque[Start] = deque()
        self.occupied = False
        """Whether a firing runs alone now."""

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, start: Start) -> None:
        """Wait until nothing else runs."""
        self._waiting.append(start)

    def take(self) -> Start:
        """The next one; from now on it runs alone."""
        self.occupied = True
        return self._waiting.popleft()

    def remove(self, key: CaseKey, firing: int | None) -> None:
        """Forget what waits of a case, or of one firing of it."""
        kept = [start for start in self._waiting if start.call.key != key or firing not in (None, start.call.firing)]
        self._waiting = deque(kept)

    def clear(self) -> None:
        """Forget all that waits."""
        self._waiting.clear()

    async def perform(self, start: Start, around: Surroundings, cutoff: Cutoff) -> Ended:
        """Perform a start alone. Raises what keeps it from being said beforehand that it runs."""
        call = start.call
        logger.warning("execution %s runs alone: its process was lost before", call.execution_id)
        await self._blame(call.key, call.firing)
        try:
            return await execute(start, around, cutoff)
        finally:
            await self._clear()

    async def _clear(self) -> None:
        """Nobody is to be blamed for what another does: nothing begins before that is known."""
        backoff = Backoff(first=0.05, longest=1.0)
        while True:
            try:
                await self._blame(None, None)
                return
            except Exception as error:
                logger.warning("the quarantine cannot be ended yet: %s: %s", type(error).__name__, error)
                await asyncio.sleep(backoff.next())
