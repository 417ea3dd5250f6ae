"""How often a principal may start agents, whichever process it asks.

The bucket of a principal is a row. A process draws from it what may be started in a second, and starts as many without
asking again: so the row is written about once a second at most however often somebody starts, and never in the
transaction of a start. What is drawn and not used within a few seconds lapses: it may be less than the rate that is
started, and never more.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from circuit.errors import TooManyRequests
from circuit.security.principal import Principal
from circuit.security.rates import MOST_REMEMBERED, Rate
from circuit.storage import rates
from circuit.storage.database import Database, TenantConnection

DRAWN_SECONDS = 5.0
"""So long what was drawn may be used."""


@dataclass(slots=True)
class _Drawn:
    left: int = 0
    until: float = 0.0
    again_at: float = 0.0
    drawing: asyncio.Lock = field(default_factory=asyncio.Lock)


class StartRates:
    """One rate for each principal, over all processes of the database."""

    def __init__(self, database: Database, rate: Rate, monotonic: Callable[[], float]) -> None:
        self._database = database
        self._every = 60.0 / rate.per_minute
        self._burst = rate.burst
        self._at_once = max(1, min(rate.per_minute // 60, rate.burst // 4))
        self._monotonic = monotonic
        self._drawn: OrderedDict[tuple[int, str], _Drawn] = OrderedDict()

    async def check(self, principal: Principal, connection: TenantConnection | None = None) -> None:
        """Raise `TooManyRequests` where the principal starts agents more often than it may. Within a transaction, of
        this `connection`, what is drawn is for its start alone, and comes back with it."""
        wait = await self._take(principal, connection)
        if wait:
            raise TooManyRequests(
                f"{principal.subject} starts agents more often than RATE_LIMIT_PER_MINUTE says: try again in"
                f" {wait:.1f} s",
                retry_after=wait,
            )

    async def _take(self, principal: Principal, within: TenantConnection | None) -> float:
        key = (principal.tenant, principal.subject)
        drawn = self._drawn.setdefault(key, _Drawn())
        self._drawn.move_to_end(key)
        if len(self._drawn) > MOST_REMEMBERED:
            self._drawn.popitem(last=False)
        async with drawn.drawing:
            now = self._monotonic()
            if now < drawn.again_at:
                return drawn.again_at - now
            if drawn.left <= 0 or now >= drawn.until:
                if within is not None:
                    drawn.left, wait = await self._draw(within, key, 1)
                else:
                    async with self._database.transaction(principal.tenant) as connection:
                        drawn.left, wait = await self._draw(connection, key, self._at_once)
                if wait:
                    drawn.again_at = now + wait
                    return wait
                drawn.until = now + DRAWN_SECONDS
            drawn.left -= 1
            return 0.0

    async def _draw(self, connection: TenantConnection, key: tuple[int, str], wanted: int) -> tuple[int, float]:
        return await rates.draw(connection, *key, every=self._every, burst=self._burst, wanted=wanted)
