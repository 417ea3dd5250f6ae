"""Holds this worker's shares in what is limited over all workers, and lets its slots run no more than that.

A share shrinks here before it shrinks in the database, and grows here after it has grown there; so what runs is never
more than what the rows say, and what the rows say is never more than the limit (but where a limit was lowered: what
runs then ends by itself). Nothing of it is on the way of an execution: that only counts.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from uuid import UUID

from circuit.engine.apportionment import Need, apportion
from circuit.engine.connecting import connected
from circuit.engine.quota import KEPT
from circuit.engine.service import Service
from circuit.engine.slots import Slots
from circuit.storage import shares
from circuit.storage.database import Database
from circuit.storage.driver import Connection
from circuit.storage.shares import ALL, Pool, Share, Standing

GATHER_SECONDS = 0.005
"""What is wanted in this time is asked for at once."""
WANTING = 4
"""Who wants more looks so many times as often."""


class Shares(Service):
    """The shares of one incarnation. `deployment` is how many executions all workers may run together (None: any
    number), `hungry` whether cases are due that this worker has no room for. `called` hears that firings were called in
    whose turn has come."""

    def __init__(
        self,
        database: Database,
        worker: UUID,
        slots: Slots,
        deployment: int | None,
        *,
        every_seconds: float,
        hungry: Callable[[], bool],
        called: Callable[[], None] = lambda: None,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__("circuit-shares")
        self._database = database
        self._worker = worker
        self._slots = slots
        self._deployment = deployment
        self._every_seconds = every_seconds
        self._hungry = hungry
        self._called = called
        self._rng = rng or random.Random()
        self._limits: dict[Pool, int] = {}
        self._mine: dict[Pool, Share] = {}
        self._contended = False
        self._woken = asyncio.Event()
        if deployment is not None:
            slots.resize(0)

    @property
    def lacking(self) -> int:
        """How many executions wait for a share that others hold."""
        return sum(share.wanted for share in self._mine.values())

    def wake(self) -> None:
        """An execution waits: there may be a share for it."""
        if self._limits:
            self._woken.set()

    def ended(self) -> None:
        """An execution has ended: others may want its share."""
        if self._contended or self._slots.quota.thirsty:
            self._woken.set()

    async def _run(self) -> None:
        async with connected(self._database) as connection:
            await shares.forget(connection)
            while not self.stopping:
                self._woken.clear()
                await self._balance(connection)
                self._working()
                await self._rest()

    async def _balance(self, connection: Connection) -> None:
        """Give back what is more than this worker's part, and ask for what it lacks."""
        limits = await shares.limits(connection)
        if self._deployment is not None:
            limits[ALL] = self._deployment
        if limits.keys() != self._limits.keys():
            self._slots.limit([pool for pool in limits if pool != ALL])
        self._limits = limits
        await self._call_in(connection)
        if not limits:
            return
        standing = await shares.standing(connection, self._worker)
        self._contended = any(share.wanted for pool in limits if pool in standing for share in standing[pool].others)
        growing: list[Pool] = []
        less: dict[Pool, Share] = {}
        nothing = Standing(Share(0, 0))
        for pool, limit in limits.items():
            there = standing.get(pool, nothing)
            ceiling, share = apportion(limit, self._need(pool), there.others)
            if ceiling > self._ceiling(pool):
                growing.append(pool)
                continue
            # First here: from now on no more begin, and what runs can only become less.
            self._allow(pool, ceiling)
            if share != there.mine:
                less[pool] = share
        if less:
            await shares.put(connection, self._worker, less)
        self._mine = {pool: less.get(pool, standing.get(pool, nothing).mine) for pool in limits}
        if growing:
            await self._grow(connection, growing)

    async def _call_in(self, connection: Connection) -> None:
        """Let firings begin that wait for their turn, so many that there is always one for who can run more."""
        queued = await shares.queued(connection)
        self._slots.quota.queued = set(queued)
        called = 0
        for pool in queued:
            limit = self._limits.get(pool)
            if limit is not None and self._slots.quota.waiting[pool] >= KEPT // 2:
                continue
            called += await shares.call_in(connection, pool, None if limit is None else limit + KEPT)
        if called:
            self._called()

    async def _grow(self, connection: Connection, pools: list[Pool]) -> None:
        allowed: dict[Pool, int] = {}

        def decide(standing: Mapping[Pool, Standing]) -> dict[Pool, Share]:
            granted: dict[Pool, Share] = {}
            for pool in pools:
                there = standing.get(pool, Standing(Share(0, 0)))
                ceiling, share = apportion(self._limits[pool], self._need(pool), there.others)
                # Where another was faster, it may be less than before: then it stays as it is until the next look.
                allowed[pool] = max(ceiling, self._ceiling(pool))
                granted[pool] = Share(max(share.amount, allowed[pool]), share.wanted)
            return granted

        self._mine |= await shares.grow(connection, self._worker, pools, decide)
        for pool, ceiling in allowed.items():
            self._allow(pool, ceiling)

    def _need(self, pool: Pool) -> Need:
        slots = self._slots
        if pool != ALL:
            return Need(slots.quota.running[pool], slots.quota.demand(pool), slots.quota.ceiling(pool))
        # A worker that may run nothing claims nothing, and would never want anything.
        demand = max(1, min(slots.own_limit, slots.demand + (slots.own_limit if self._hungry() else 0)))
        return Need(slots.running, demand, slots.allowed, slots.own_limit)

    def _ceiling(self, pool: Pool) -> int:
        return self._slots.allowed if pool == ALL else self._slots.quota.ceiling(pool)

    def _allow(self, pool: Pool, ceiling: int) -> None:
        if ceiling == self._ceiling(pool):
            return
        if pool == ALL:
            self._slots.resize(ceiling)
        else:
            self._slots.allow(pool, ceiling)

    async def _rest(self) -> None:
        """Wait until something is wanted, or the next look is due."""
        seconds = self._every_seconds * self._rng.uniform(0.75, 1.25)
        if self.lacking or self._contended:
            seconds /= WANTING
        await self.rest(self._woken, seconds, GATHER_SECONDS)
