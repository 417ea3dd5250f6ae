"""Takes all who wait to the database at once: what is asked while a crossing is under way goes with the next one.

So one who comes alone waits for nothing, and a thousand who come together need some tens of transactions, and not a
connection each. Those who ask for the same go as one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import Context
from typing import Any, Generic, NamedTuple, TypeVar

from circuit.errors import CircuitError
from circuit.storage.verdict import GAVE_WAY

Item = TypeVar("Item")
Answer = TypeVar("Answer")

MOST_AT_ONCE = 100
MOST_BYTES = 8 * 1024 * 1024
"""Who comes to so much has no more taken along."""
LANES = 2
"""How many crossings of one tenant are under way at once."""


class _Seat(NamedTuple, Generic[Item, Answer]):
    """An item, and who waits for its answer."""

    item: Item
    waiting: list[asyncio.Future[Answer]]

    @property
    def wanted(self) -> bool:
        return not all(future.done() for future in self.waiting)


class Ferry(Generic[Item, Answer]):
    """`cross` takes items of one tenant, in one transaction, and returns an answer to each, in their order. Where it
    raises for several, each is tried alone, unless what it raises may pass: then it is told to all. A crossing that
    gave way to others (a deadlock, a lock) is made once more before. Up to `most` go at once, and none after those that
    come to `MOST_BYTES`, as `weigh` says. Where answers may be `shared`, items that are equal are one."""

    def __init__(
        self,
        cross: Callable[[int, Sequence[Item]], Awaitable[Sequence[Answer]]],
        most: int = MOST_AT_ONCE,
        weigh: Callable[[Item], int] = lambda _: 0,
        *,
        shared: bool = False,
    ) -> None:
        self._cross = cross
        self._most = most
        self._weigh = weigh
        self._shared = shared
        self._waiting: dict[int, OrderedDict[Hashable, _Seat[Item, Answer]]] = {}
        self._under_way: dict[int, set[asyncio.Task[None]]] = {}

    async def take(self, tenant: int, item: Item) -> Answer:
        """The answer to `item`, whose crossing begins after this. Raises what `cross` does."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        seats = self._waiting.setdefault(tenant, OrderedDict())
        seats.setdefault(item if self._shared else future, _Seat(item, [])).waiting.append(future)
        under_way = self._under_way.setdefault(tenant, set())
        if len(under_way) < LANES:
            # Of nobody's context: it is many whom it takes.
            task = asyncio.create_task(self._serve(tenant), name="circuit-ferry", context=Context())
            under_way.add(task)
        return await future

    async def _serve(self, tenant: int) -> None:
        try:
            while aboard := self._aboard(tenant):
                try:
                    await self._settle(tenant, aboard)
                finally:
                    for future in _open(aboard):
                        future.cancel()
        finally:
            # In the very step that found nobody: whoever comes after it counts on no lane that is over.
            under_way, task = self._under_way[tenant], asyncio.current_task()
            assert task is not None
            under_way.discard(task)
            if not under_way and not self._waiting[tenant]:
                del self._under_way[tenant], self._waiting[tenant]

    def _aboard(self, tenant: int) -> list[_Seat[Item, Answer]]:
        """What goes next, without what nobody wants any more."""
        waiting = self._waiting[tenant]
        aboard: list[_Seat[Item, Answer]] = []
        size = 0
        while waiting and len(aboard) < self._most and size < MOST_BYTES:
            _, seat = waiting.popitem(last=False)
            if seat.wanted:
                aboard.append(seat)
                size += self._weigh(seat.item)
        return aboard

    async def _settle(self, tenant: int, aboard: Sequence[_Seat[Item, Answer]], *, again: bool = True) -> None:
        try:
            answers = await self._cross(tenant, [seat.item for seat in aboard])
        except Exception as error:
            if again and _gave_way(error):
                await self._settle(tenant, aboard, again=False)
                return
            if len(aboard) > 1 and not (isinstance(error, CircuitError) and error.retryable):
                for one in aboard:
                    await self._settle(tenant, [one])
                return
            for future in _open(aboard):
                future.set_exception(error)
        else:
            for seat, answer in zip(aboard, answers, strict=True):
                for future in _open([seat]):
                    future.set_result(answer)


def _open(aboard: Sequence[_Seat[Any, Answer]]) -> list[asyncio.Future[Answer]]:
    """Whoever of them still waits."""
    return [future for seat in aboard for future in seat.waiting if not future.done()]


def _gave_way(error: Exception) -> bool:
    return isinstance(error, CircuitError) and error.details.get("sqlstate") in GAVE_WAY
