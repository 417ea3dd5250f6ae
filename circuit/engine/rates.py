"""How often a principal may ask, whichever process it asks.

The bucket of a principal is a row. A process draws from it what is likely to be asked in the next second, and lets as
many through without asking again: so the row is written about once a second at most by each process, however often
somebody asks, and never in the transaction of what is asked. A process draws one at first, and then half of what it has
let through, so that little lies unused at one process while another has none. What is drawn and not used within a few
seconds lapses: it may be less than the rate that is let through, and never more.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from circuit.engine.reach import Reach
from circuit.errors import StorageError, TooManyRequests
from circuit.security.principal import Principal
from circuit.security.rates import MOST_REMEMBERED, Rate, Rates
from circuit.storage import rates
from circuit.storage.database import Database, TenantConnection

DRAWN_SECONDS = 5.0
"""So long what was drawn may be used."""


@dataclass(slots=True)
class _Drawn:
    left: int = 0
    until: float = 0.0
    again_at: float = 0.0
    used: int = 0
    """Without a lapse."""
    drawing: asyncio.Lock = field(default_factory=asyncio.Lock)


class SharedRate:
    """One rate for each principal, over all processes of the database: for requests to a `part` of the server, or for
    starts of agents."""

    def __init__(
        self, database: Database | Reach, rate: Rate, monotonic: Callable[[], float], part: str | None = None
    ) -> None:
        self._database = database
        self._part = part
        self._every = 60.0 / rate.per_minute
        self._burst = rate.burst
        self._at_once = max(1, min(rate.per_minute // 60, rate.burst // 4))
        self._monotonic = monotonic
        self._drawn: OrderedDict[tuple[int, str], _Drawn] = OrderedDict()

    async def take(self, principal: Principal, within: TenantConnection | None = None) -> float:
        """Let the principal ask once. Returns 0, or after how many seconds it may. Within a transaction, of this
        connection, what is drawn is for this once alone, and comes back with it. Raises `StorageError`."""
        key = (principal.tenant, principal.subject)
        drawn = self._drawn.get(key)
        if drawn is None:
            drawn = self._drawn[key] = _Drawn()
            if len(self._drawn) > MOST_REMEMBERED:
                self._drawn.popitem(last=False)
        self._drawn.move_to_end(key)
        if drawn.left <= 0 or self._monotonic() >= drawn.until:
            if within is not None:
                return await self._draw_one(drawn, key, within)
            async with drawn.drawing:
                wait = await self._fill(drawn, key)
                if wait:
                    return wait
        drawn.left -= 1
        drawn.used += 1
        return 0.0

    async def _draw_one(self, drawn: _Drawn, key: tuple[int, str], within: TenantConnection) -> float:
        """Not behind whoever fills: he may wait for a connection, and this one is not free before its end."""
        now = self._monotonic()
        if now < drawn.again_at:
            return drawn.again_at - now
        _, wait = await self._draw(within, key, 1)
        if wait:
            drawn.again_at = now + wait
        return wait

    async def _fill(self, drawn: _Drawn, key: tuple[int, str]) -> float:
        now = self._monotonic()
        if now < drawn.again_at:
            return drawn.again_at - now
        if drawn.left > 0 and now < drawn.until:
            return 0.0
        if now >= drawn.until:
            drawn.used = 0
        async with self._database.transaction(key[0]) as connection:
            drawn.left, wait = await self._draw(connection, key, min(self._at_once, 1 + drawn.used // 2))
        if wait:
            drawn.again_at = now + wait
        else:
            drawn.until = now + DRAWN_SECONDS
        return wait

    async def _draw(self, connection: TenantConnection, key: tuple[int, str], wanted: int) -> tuple[int, float]:
        return await rates.draw(connection, *key, part=self._part, every=self._every, burst=self._burst, wanted=wanted)


class StartRates(SharedRate):
    """How often a principal may start agents. Where the database cannot be asked, nothing can be started either."""

    def __init__(self, database: Database, rate: Rate, monotonic: Callable[[], float]) -> None:
        super().__init__(database, rate, monotonic)

    async def check(self, principal: Principal, connection: TenantConnection | None = None) -> None:
        """Raise `TooManyRequests` where the principal starts agents more often than it may. Within a transaction, of
        this `connection`, what is drawn is for its start alone, and comes back with it."""
        wait = await self.take(principal, connection)
        if wait:
            raise TooManyRequests(
                f"{principal.subject} starts agents more often than RATE_LIMIT_PER_MINUTE says: try again in"
                f" {wait:.1f} s",
                retry_after=wait,
            )


class RequestRate(SharedRate):
    """How often a principal may ask for a part of the server. Where the database cannot be asked, each process counts
    for itself."""

    def __init__(self, reach: Reach, rate: Rate, monotonic: Callable[[], float], part: str) -> None:
        super().__init__(reach, rate, monotonic, part)
        self._reach = reach
        self._alone = Rates(rate, monotonic)

    async def take(self, principal: Principal, within: TenantConnection | None = None) -> float:
        if not self._reach.lost:
            try:
                return await super().take(principal, within)
            except (StorageError, TimeoutError):
                pass  # said where it is found
        return self._alone.take(f"{principal.tenant}/{principal.subject}")
