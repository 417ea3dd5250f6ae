"""Shares what providers allow in a minute with the other processes of the database.

Who sends asks its ration, in memory; here the rations that are in use are brought to what the claims of all processes
say, about once a second, and at once where something waits. Nothing is asked while no limit is in use. Where the
database does not answer, what a ration still has may be sent for some seconds; then requests wait until it does, for so
would all else of a case. When a process ends, it gives back what it did not send.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from uuid import UUID

from circuit.engine.connecting import connected
from circuit.engine.service import Service
from circuit.errors import StorageError
from circuit.ration import Decision, Ration
from circuit.storage import rations
from circuit.storage.database import Database
from circuit.storage.driver import Connection
from circuit.storage.rations import NOBODY, Claims

logger = logging.getLogger(__name__)

EVERY_SECONDS = 1.0
GATHER_SECONDS = 0.005
"""What is wanted in this time is asked for at once."""
WANTING = 4
"""Who wants more, or is asked for some, looks so many times as often."""
TRIES = 10
"""So often one looks again at once where others were faster."""
LAST_SECONDS = 2.0
"""How long it may take at the end to give back what is left."""


class Rations(Service):
    """The rations of one process. Its claims bear its id."""

    def __init__(
        self,
        database: Database,
        process: UUID,
        monotonic: Callable[[], float],
        *,
        every_seconds: float = EVERY_SECONDS,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__("circuit-rations")
        self._database = database
        self._process = str(process)
        self._monotonic = monotonic
        self._every_seconds = every_seconds
        self._rng = rng or random.Random()
        self._rations: dict[str, Ration] = {}
        self._used: set[str] = set()
        """The names of those of which the database may have a claim of this process."""
        self._woken = asyncio.Event()

    def ration(self, name: str, requests: int | None, tokens: int | None) -> Ration:
        """This process's ration of the limit of this name: of so many requests and tokens a minute."""
        found = self._rations.get(name)
        if found is None:
            found = self._rations[name] = Ration(self._monotonic, requests, tokens, shared=True)
            found.wanting = self._woken.set
        return found

    async def stop(self) -> None:
        await super().stop()
        if not self._used:
            return
        try:
            async with asyncio.timeout(LAST_SECONDS), connected(self._database) as connection:
                await self._balance(connection, sorted(self._used), over=True)
        except (StorageError, TimeoutError) as error:
            logger.warning("what is left of the limits of providers lapses in a minute, unreturned: %s", error)
        self._used.clear()

    async def _run(self) -> None:
        if not self._in_use():
            await self._woken.wait()
        async with connected(self._database) as connection:
            while not self.stopping:
                self._woken.clear()
                if names := self._in_use():
                    await self._balance(connection, names)
                self._working()
                await self._rest()

    def _in_use(self) -> list[str]:
        return sorted(name for name, ration in self._rations.items() if name in self._used or not ration.idle)

    async def _balance(self, connection: Connection, names: list[str], *, over: bool = False) -> None:
        """Bring these rations to what the claims of all say, and put what this process claims now."""
        for _ in range(TRIES):
            asked = self._monotonic()
            at, found = await rations.look(connection, names)
            decided: dict[str, Decision] = {}
            made: dict[str, Claims] = {}
            for name in names:
                version, claims = found.get(name, NOBODY)
                decision = decided[name] = self._rations[name].decide(claims, self._process, at, asked, over=over)
                if decision.claims is not None:
                    made[name] = Claims(version, decision.claims)
            self._used.update(made)
            put = await rations.put(connection, made) if made else set[str]()
            late = [name for name in made if name not in put]
            for name in names:
                if name not in late:
                    self._take(name, decided[name])
            if not late:
                return
            names = late

    def _take(self, name: str, decision: Decision) -> None:
        ration = self._rations[name]
        ration.take(decision)
        if decision.until == 0.0 and ration.idle:
            self._used.discard(name)

    async def _rest(self) -> None:
        """Wait until something is wanted, or the next look is due."""
        used = [self._rations[name] for name in self._used]
        if not used:
            await self._woken.wait()
            return
        seconds = self._every_seconds * self._rng.uniform(0.75, 1.25)
        if any(ration.lacking or ration.contended for ration in used):
            seconds /= WANTING
        await self.rest(self._woken, seconds, GATHER_SECONDS)
