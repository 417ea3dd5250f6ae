"""What this worker may run at once of what is limited over all workers: its shares, and what runs and waits in them.

All of it is counting in memory. Who asks for shares is `circuit.engine.shares`; here nothing waits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from circuit.engine.action import ActionCall
from circuit.storage.shares import Pool

KEPT = 50
"""So many executions wait here for the limit of an agent, so that one begins as soon as another ends; beyond that,
firings wait for their turn in the database, and their cases hold nobody up."""


class Quota:
    """The pools that are limited, each with how much of it this worker may run. What is not limited is not counted."""

    def __init__(self) -> None:
        self._ceilings: dict[Pool, int] = {}
        self.queued: set[Pool] = set()
        """The pools in which firings wait for their turn in the database: who comes later waits behind them."""
        self.running: Counter[Pool] = Counter()
        self.waiting: Counter[Pool] = Counter()

    @property
    def pools(self) -> Collection[Pool]:
        """The pools that are limited."""
        return self._ceilings.keys()

    def limit(self, pools: Collection[Pool]) -> None:
        """From now on these pools are limited, and no others. One that is new begins with nothing."""
        self._ceilings = {pool: self._ceilings.get(pool, 0) for pool in pools}

    def allow(self, pool: Pool, ceiling: int) -> None:
        """So many executions of a pool may run here."""
        if pool in self._ceilings:
            self._ceilings[pool] = ceiling

    def ceiling(self, pool: Pool) -> int:
        """How many executions of a pool may run here."""
        return self._ceilings.get(pool, 0)

    def of(self, call: ActionCall) -> tuple[Pool, ...]:
        """The limited pools that an execution counts in."""
        return self._pools(call.key.tenant, call.config) if self._ceilings else ()

    def crowded(self, tenant: int, config: Mapping[str, Any]) -> str | None:
        """The place at which a firing that is about to begin with this configuration waits for its turn: in the pool
        of its agent, or of a provider of its tenant, enough wait already. None where it may begin, or wait here."""
        if not self._ceilings:
            return None
        for pool in self._pools(tenant, config):
            if pool.tenant == 0 or pool.kind == "tenant":
                continue
            if pool in self.queued or (self.full(pool) and self.waiting[pool] >= KEPT):
                self.queued.add(pool)
                return pool.turn
        return None

    @property
    def thirsty(self) -> bool:
        """Whether others should be called in: of a pool that runs here and has a queue, few are left to begin."""
        return any(self.running[pool] and self.waiting[pool] < KEPT // 2 for pool in self.queued)

    def _pools(self, tenant: int, config: Mapping[str, Any]) -> tuple[Pool, ...]:
        pools = [Pool(tenant, "tenant", "")]
        agent: Mapping[str, Any] | None = config.get("agent")
        if agent is not None:
            provider: Mapping[str, str] = config.get("provider") or agent["provider"]
            kind, model = provider.get("type", ""), provider.get("model", "")
            pools.append(Pool(tenant, "agent", str(agent["id"])))
            pools += [Pool(of, "provider", name) for of in (0, tenant) for name in (kind, f"{kind}:{model}")]
        return tuple(pool for pool in pools if pool in self._ceilings)

    def allows(self, pools: Collection[Pool]) -> bool:
        """Whether one more execution that counts in these pools may begin."""
        return all(self.running[pool] < self._ceilings.get(pool, 0) for pool in pools)

    def full(self, pool: Pool) -> bool:
        """Whether a limited pool has no room here."""
        return pool in self._ceilings and self.running[pool] >= self._ceilings[pool]

    def demand(self, pool: Pool) -> int:
        """How many executions of a pool run here or wait."""
        return self.running[pool] + self.waiting[pool]

    @property
    def held_up(self) -> int:
        """How many executions wait for a limit and not for a slot, at least."""
        return max((self.waiting[pool] for pool in self._ceilings if self.full(pool)), default=0)

    @property
    def tenants(self) -> set[int]:
        """The tenants of which it is no use to claim more cases: as much waits here as may run."""
        return {pool.tenant for pool in self._ceilings if pool.kind == "tenant" and self._enough(pool)}

    @property
    def providers(self) -> set[str]:
        """The types of providers of which it is no use to claim more cases."""
        return {
            pool.name.partition(":")[0]
            for pool in self._ceilings
            if pool.kind == "provider" and pool.tenant == 0 and self._enough(pool)
        }

    def _enough(self, pool: Pool) -> bool:
        return self.full(pool) and self.waiting[pool] >= max(1, self._ceilings[pool])

    def recount(self, running: Iterable[ActionCall], waiting: Iterable[ActionCall]) -> None:
        """Count anew what runs and what waits, for other pools are limited now."""
        self.running = Counter(pool for call in running for pool in self.of(call))
        self.waiting = Counter(pool for call in waiting for pool in self.of(call))

    def begins(self, pools: Collection[Pool]) -> None:
        """An execution begins."""
        for pool in pools:
            self.running[pool] += 1

    def ends(self, pools: Collection[Pool]) -> None:
        """An execution has ended."""
        _less(self.running, pools)

    def waits(self, pools: Collection[Pool]) -> None:
        """An execution waits for its turn."""
        for pool in pools:
            self.waiting[pool] += 1

    def waits_no_more(self, pools: Collection[Pool]) -> None:
        """It begins, or is not wanted any more."""
        _less(self.waiting, pools)


def _less(counter: Counter[Pool], pools: Collection[Pool]) -> None:
    for pool in pools:
        counter[pool] -= 1
        if counter[pool] <= 0:
            del counter[pool]
