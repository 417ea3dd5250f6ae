"""Takes all who wait to the database at once: what is asked while a crossing is under way goes with the next one.

So one who comes alone waits for nothing, and a thousand who come together need some tens of transactions, and not a
connection each.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from functools import partial
from typing import Generic, TypeVar

from circuit.errors import CircuitError
from circuit.storage.verdict import GAVE_WAY

Item = TypeVar("Item")
Answer = TypeVar("Answer")

MOST_AT_ONCE = 100
MOST_BYTES = 8 * 1024 * 1024
"""Who comes to so much has no more taken along."""
LANES = 2
"""How many crossings of one tenant are under way at once."""


class Ferry(Generic[Item, Answer]):
    """`cross` takes items of one tenant, in one transaction, and returns an answer to each, in their order. Where it
    raises for several, each is tried alone, unless what it raises may pass: then it is told to all. A crossing that
    gave way to others (a deadlock, a lock) is made once more before. Up to `most` go at once, and none after those that
    come to `MOST_BYTES`, as `weigh` says."""

    def __init__(
        self,
        cross: Callable[[int, Sequence[Item]], Awaitable[Sequence[Answer]]],
        most: int = MOST_AT_ONCE,
        weigh: Callable[[Item], int] = lambda _: 0,
    ) -> None:
        self._cross = cross
        self._most = most
        self._weigh = weigh
        self._waiting: dict[int, deque[tuple[Item, asyncio.Future[Answer]]]] = {}
        self._under_way: dict[int, set[asyncio.Task[None]]] = {}

    async def take(self, tenant: int, item: Item) -> Answer:
        """The answer to `item`, whose crossing begins after this. Raises what `cross` does."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append((item, future))
        under_way = self._under_way.setdefault(tenant, set())
        if len(under_way) < LANES:
            # Of nobody's context: it is many whom it takes.
            task = asyncio.create_task(self._serve(tenant), name="circuit-ferry", context=Context())
            under_way.add(task)
            task.add_done_callback(partial(self._landed, tenant))
        return await future

    def _landed(self, tenant: int, task: asyncio.Task[None]) -> None:
        self._under_way[tenant].discard(task)
        if not self._under_way[tenant] and not self._waiting[tenant]:
            del self._under_way[tenant], self._waiting[tenant]

    async def _serve(self, tenant: int) -> None:
        while aboard := self._aboard(tenant):
            try:
                await self._settle(tenant, aboard)
            finally:
                for _, future in aboard:
                    if not future.done():
                        future.cancel()

    def _aboard(self, tenant: int) -> list[tuple[Item, asyncio.Future[Answer]]]:
        """Who goes next, without those that do not want it any more."""
        waiting = self._waiting[tenant]
        aboard: list[tuple[Item, asyncio.Future[Answer]]] = []
        size = 0
        while waiting and len(aboard) < self._most and size < MOST_BYTES:
            one = waiting.popleft()
            if not one[1].done():
                aboard.append(one)
                size += self._weigh(one[0])
        return aboard

    async def _settle(
        self, tenant: int, aboard: Sequence[tuple[Item, asyncio.Future[Answer]]], *, again: bool = True
    ) -> None:
        try:
            answers = await self._cross(tenant, [item for item, _ in aboard])
        except Exception as error:
            if again and _gave_way(error):
                await self._settle(tenant, aboard, again=False)
                return
            if len(aboard) > 1 and not (isinstance(error, CircuitError) and error.retryable):
                for one in aboard:
                    await self._settle(tenant, [one])
                return
            for _, future in aboard:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, future), answer in zip(aboard, answers, strict=True):
                if not future.done():
                    future.set_result(answer)


def _gave_way(error: Exception) -> bool:
    return isinstance(error, CircuitError) and error.details.get("sqlstate") in GAVE_WAY
