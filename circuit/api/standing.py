"""Connections that last, and whether the credential that opened each of them still holds.

A request is over soon; a WebSocket or a stream may be open for days. So those that are open are looked at every few
seconds: whose key was revoked, or whose token has expired, is disconnected. Each credential is asked about once,
however many connections it has. Who does not read hears nothing of it: after a moment he is cut off.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager

from starlette.types import Message, Receive

from circuit.errors import CircuitError, Unauthenticated

LOOK_SECONDS = 10.0
STUCK_SECONDS = 2.0
"""How long a connection that has to end may take to, before it is cut."""

logger = logging.getLogger(__name__)


class Standing:
    """One connection. `credential` is what opened it, once that is known, and `fault` why it has to end. `cut` ends it
    without a word, where the server can."""

    def __init__(self, receive: Receive, kind: str, cut: Callable[[], None] | None = None) -> None:
        self.credential: str | None = None
        self.fault: Unauthenticated | None = None
        self.told = False
        """Whether whoever serves the connection takes it for ended."""
        self._receive = receive
        self._gone: Message = {"type": f"{kind}.disconnect", "code": 1006, "reason": ""}
        self._hearing: asyncio.Future[Message] | None = None
        self._cut = cut
        self._cutting: asyncio.TimerHandle | None = None

    async def receive(self) -> Message:
        """What the client says next, or that it is gone where the connection has to end."""
        if self.fault is None:
            self._hearing = asyncio.ensure_future(self._receive())
            try:
                return await self._hearing
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if self.fault is None or (task is not None and task.cancelling()):
                    raise
            finally:
                self._hearing = None
        self.told = True
        return self._gone

    def end(self, fault: Unauthenticated) -> None:
        """Have the connection end."""
        if self.fault is not None:
            return
        self.fault = fault
        if self._hearing is not None:
            self._hearing.cancel()
        if self._cut is not None:
            self._cutting = asyncio.get_running_loop().call_later(STUCK_SECONDS, self._cut)

    def over(self) -> None:
        """The connection has ended."""
        if self._cutting is not None:
            self._cutting.cancel()


class Lasting:
    """The connections that are open. `holds` raises `Unauthenticated` for a credential that holds no longer."""

    def __init__(self, holds: Callable[[str], Awaitable[object]]) -> None:
        self._holds = holds
        self._open: set[Standing] = set()
        self._watching: asyncio.Task[None] | None = None

    @contextmanager
    def watched(self, standing: Standing) -> Generator[None]:
        """While the block runs the connection is looked at."""
        self._open.add(standing)
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name="circuit-standing")
        try:
            yield
        finally:
            self._open.discard(standing)
            if not self._open:
                self._watching.cancel()
                self._watching = None

    async def look(self) -> None:
        """End those connections whose credential holds no longer. Where nobody can say it, they stay."""
        for credential in {one.credential for one in self._open} - {None}:
            assert credential is not None
            try:
                await self._holds(credential)
            except Unauthenticated as fault:
                for one in [one for one in self._open if one.credential == credential]:
                    one.end(fault)
            except CircuitError as error:
                logger.debug("whether a credential still holds cannot be said: %s", error)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except Exception:
                logger.exception("whether those who are connected may still be cannot be said")
