"""Who guesses at credentials, whichever process he asks, and whenever it was started.

Each wrong credential is a row's change. A process looks there before it looks at a credential that it does not know to
hold, and not while it knows that the address waits: so who is in costs nothing, and who guesses little more than what
he is let guess.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from circuit.engine.reach import Reach
from circuit.errors import StorageError, TooManyRequests
from circuit.ids import DEPLOYMENT
from circuit.security.guesses import FIRST_WAIT_SECONDS, FORGET_SECONDS, FREE_GUESSES, Guesses, block, wait_after
from circuit.storage import guesses

LONGEST_ADDRESS = 100


class SharedGuesses:
    """The wrong credentials of each address, over all processes; without a `reach`, of this one."""

    def __init__(self, monotonic: Callable[[], float], reach: Reach | None = None) -> None:
        self._known = Guesses(monotonic)
        self._reach = reach
        self._looking: dict[str, tuple[asyncio.Semaphore, int]] = {}

    @asynccontextmanager
    async def turn(self, address: str, credential: str) -> AsyncGenerator[None]:
        """Look at a credential from `address` within this. Raises `TooManyRequests` where too many from there did not
        hold, unless this one is known to."""
        if self._known.held(credential):
            yield
            return
        async with self._one_of_few(address):
            wait = self._known.wait(address, credential)
            # Whoever came with the same one may be in meanwhile.
            if not wait and not self._known.held(credential):
                wait = await self._look(address)
            if wait:
                raise TooManyRequests(
                    f"too many credentials from {address} did not hold: try again in {wait:.1f} s", retry_after=wait
                )
            yield

    def right(self, credential: str) -> None:
        """A credential held."""
        self._known.right(credential)

    async def wrong(self, address: str) -> None:
        """A credential from `address` did not hold."""
        if self._reach is not None and not self._reach.lost:
            try:
                async with self._reach.transaction(DEPLOYMENT) as connection:
                    found = await guesses.add(connection, _name(address), wait_after, FORGET_SECONDS)
            except (StorageError, TimeoutError):
                pass  # said where it is found
            else:
                self._known.learn(address, found.wrong, found.wait, found.forgotten)
                return
        self._known.wrong(address)

    async def _look(self, address: str) -> float:
        if self._reach is None or self._reach.lost:
            return 0.0
        try:
            async with self._reach.transaction(DEPLOYMENT) as connection:
                found = await guesses.look(connection, _name(address), FREE_GUESSES, FIRST_WAIT_SECONDS)
        except (StorageError, TimeoutError):
            return 0.0
        if found is None:
            return 0.0
        self._known.learn(address, found.wrong, found.wait, found.forgotten)
        return found.wait

    @asynccontextmanager
    async def _one_of_few(self, address: str) -> AsyncGenerator[None]:
        """As many credentials of one address are looked at together as may be wrong for nothing: else all that are
        shown in one instant would be."""
        key = block(address)
        semaphore, using = self._looking.get(key, (None, 0))
        semaphore = semaphore or asyncio.Semaphore(FREE_GUESSES)
        self._looking[key] = (semaphore, using + 1)
        try:
            async with semaphore:
                yield
        finally:
            using = self._looking[key][1] - 1
            if using:
                self._looking[key] = (semaphore, using)
            else:
                del self._looking[key]


def _name(address: str) -> str:
    return block(address)[:LONGEST_ADDRESS]
