"""Holds what calls of models may cost, before they are made, and settles what they did cost.

All that is asked meanwhile goes as one transaction, so that a budget which every case of a tenant draws on is locked
once for all of them. A call to which no budget applies costs one look. What an execution leaves open is settled here,
and what workers that are over left open, at each sweep.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol
from uuid import UUID

from circuit.engine.connecting import connected
from circuit.engine.service import Service
from circuit.engine.solvency import Verdict, judge
from circuit.errors import Cancelled, FiringError
from circuit.spend import NOTHING
from circuit.storage import budgets
from circuit.storage.budgets import MOST_FOLDED
from circuit.storage.charges import Asked, Budget, BudgetKey, Charge, Settled
from circuit.storage.database import Database
from circuit.storage.driver import Connection

MOST_AT_ONCE = 500
"""How many calls are asked for, or settled, in one statement."""
FOLD_AFTER = 200
"""So many charges settled by this worker are folded before the next sweep."""
LOOK_SECONDS = 0.5
"""How often those that wait are looked at again: what others settle is not told here."""
FLUSH_SECONDS = 2.0


class Charging(Protocol):
    """Whom an execution asks before it calls a model."""

    def hold(self, asked: Asked) -> asyncio.Future[bool]:
        """Done when the call may be made: whether something is held for it. Raises `BudgetExhausted` or
        `BudgetUnbounded`; who does not want it any more cancels."""
        ...

    def settle(self, settled: Settled) -> None:
        """What a call did cost is to be settled, soon and once."""
        ...

    def settled(self, number: int) -> None:
        """So many charges were settled by another way."""
        ...


class Unlimited:
    """Where there are no budgets."""

    def hold(self, asked: Asked) -> asyncio.Future[bool]:
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        future.set_result(False)
        return future

    def settle(self, settled: Settled) -> None:
        return None

    def settled(self, number: int) -> None:
        return None


class Treasury(Service):
    """The charges of one incarnation of a worker."""

    def __init__(
        self, database: Database, worker: UUID, sweep_seconds: float, *, rng: random.Random | None = None
    ) -> None:
        super().__init__("circuit-treasury")
        self._database = database
        self._worker = worker
        self._sweep_seconds = sweep_seconds
        self._rng = rng or random.Random()
        self._asked: dict[Charge, tuple[Asked, asyncio.Future[bool]]] = {}
        self._settled: list[Settled] = []
        self._to_fold = 0
        self._woken = asyncio.Event()

    def hold(self, asked: Asked) -> asyncio.Future[bool]:
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._asked[asked.charge] = asked, future
        self._woken.set()
        return future

    def settle(self, settled: Settled) -> None:
        self._settled.append(settled)
        self._woken.set()

    def settled(self, number: int) -> None:
        self._to_fold += number
        # What was settled is there again for those that wait.
        if self._asked or self._to_fold >= FOLD_AFTER:
            self._woken.set()

    async def _interrupt(self, task: asyncio.Task[None]) -> None:
        """What is to be settled is settled before the end, if the database lets it."""
        self._woken.set()
        await asyncio.wait([task], timeout=FLUSH_SECONDS)
        task.cancel()

    async def _run(self) -> None:
        async with connected(self._database) as connection:
            loop = asyncio.get_running_loop()
            sweep_at = loop.time()
            while not self.stopping:
                self._woken.clear()
                await self._settle(connection)
                await self._hold(connection)
                if loop.time() >= sweep_at:
                    sweep_at = loop.time() + self._sweep_seconds * self._rng.uniform(0.75, 1.0)
                    await budgets.settle_lost(connection)
                    self._to_fold = FOLD_AFTER
                if self._to_fold >= FOLD_AFTER:
                    self._to_fold = 0
                    while await budgets.fold(connection) == MOST_FOLDED:
                        pass
                self._working()
                await self._rest(sweep_at - loop.time())
            await self._settle(connection)
            await budgets.fold(connection)

    async def _settle(self, connection: Connection) -> None:
        while page := self._settled[:MOST_AT_ONCE]:
            await budgets.settle(connection, self._worker, page)
            # Only now: what is interrupted is settled again, which changes nothing.
            del self._settled[: len(page)]
            self._to_fold += len(page)

    async def _hold(self, connection: Connection) -> None:
        self._forget_unwanted()
        page = [asked for asked, _ in self._asked.values()][:MOST_AT_ONCE]
        if not page:
            return
        page = await budgets.with_payers(connection, page)
        verdict = Verdict()

        def decide(
            standing: Mapping[BudgetKey, Budget], asked: Sequence[Asked], held: Collection[Charge]
        ) -> Collection[Asked]:
            nonlocal verdict
            verdict = judge(standing, asked, held)
            return verdict.granted

        if not await budgets.hold(connection, self._worker, page, decide):
            for one in page:
                self._answer(one, Cancelled("this worker is over: the firing goes on with another one"))
            return
        for one in verdict.free:
            self._answer(one, False)
        for one in verdict.granted:
            self._answer(one, True)
        for one, error in verdict.refused:
            self._answer(one, error)
        if len(self._asked) > len(page) or (verdict.granted and self._asked):
            self._woken.set()

    def _answer(self, asked: Asked, answer: bool | FiringError) -> None:
        _, future = self._asked.pop(asked.charge)
        if isinstance(answer, FiringError):
            if not future.done():
                future.set_exception(answer)
        elif not future.done():
            future.set_result(answer)
        elif answer:
            # Nobody wanted it any more at the very moment at which it was granted: the call was not made.
            self.settle(Settled(asked.charge, NOTHING))

    def _forget_unwanted(self) -> None:
        for charge in [charge for charge, (_, future) in self._asked.items() if future.done()]:
            del self._asked[charge]

    async def _rest(self, seconds: float) -> None:
        """Wait until something is asked or to be settled, or the next look or sweep is due."""
        if self._asked:
            seconds = min(seconds, LOOK_SECONDS * self._rng.uniform(0.75, 1.25))
        try:
            async with asyncio.timeout(max(0.005, seconds)):
                await self._woken.wait()
        except TimeoutError:
            return
