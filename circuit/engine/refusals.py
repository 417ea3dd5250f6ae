"""What was asked of the server and refused, in the audit log: who was not let in, who may not, and who asks too often.

What is refused can be asked again and again, and the log only grows. So the first refusal of a kind is written at once;
the same again within a minute is counted, and the minute ends with one entry that says how many more there were. Beyond
so many kinds in a minute, all others are counted together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from circuit.errors import AgentNotAllowed, CircuitError, Forbidden, StorageError, TooManyRequests, Unauthenticated
from circuit.security.origin import coming_from
from circuit.security.principal import NOBODY, Principal
from circuit.storage import ledger
from circuit.storage.database import Database

WINDOW_SECONDS = 60.0
MOST_KINDS = 500
LONGEST_TARGET = 100
EVERYTHING_ELSE = "(more than is listed)"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refused:
    """A kind of refusal."""

    principal: Principal
    action: str
    target: str
    address: str
    code: str
    key: str | None = None


@dataclass(slots=True)
class _Counted:
    until: float
    more: int = 0


class Refusals:
    """Writes refusals down. An entry that cannot be written is logged: the answer is a refusal all the same."""

    def __init__(self, database: Database, monotonic: Callable[[], float]) -> None:
        self._database = database
        self._monotonic = monotonic
        self._counted: dict[Refused, _Counted] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._writing: set[asyncio.Task[None]] = set()

    async def note(self, error: CircuitError, principal: Principal | None, target: str, address: str) -> None:
        """Write down that `target` was refused with `error`, if it is an error of who may do what."""
        if not isinstance(error, AgentNotAllowed | Forbidden | TooManyRequests | Unauthenticated):
            return
        await self.settle()
        login = principal is None and not isinstance(error, Forbidden)
        action = "login.refuse" if login else "request.refuse"
        key = error.key if isinstance(error, Unauthenticated) else None
        kind = Refused(_bare(principal or NOBODY), action, _shown(target), address, error.code, key)
        if kind not in self._counted and len(self._counted) >= MOST_KINDS:
            kind = Refused(NOBODY, "request.refuse", EVERYTHING_ELSE, "", error.code)
        counted = self._counted.get(kind)
        if counted is not None:
            counted.more += 1
            return
        self._counted[kind] = _Counted(self._monotonic() + WINDOW_SECONDS)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WINDOW_SECONDS, self._due)
        await self._write(kind)

    async def settle(self, *, ended: bool = False) -> None:
        """Write down what was counted in minutes that are over; with `ended`, in all."""
        now = self._monotonic()
        over = [kind for kind, counted in self._counted.items() if ended or counted.until <= now]
        for kind, more in [(kind, self._counted.pop(kind).more) for kind in over]:
            if more:
                await self._write(kind, times=more)

    async def stop(self) -> None:
        """Write down what was counted. Twice is fine."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await asyncio.gather(*self._writing)
        await self.settle(ended=True)

    def _due(self) -> None:
        self._timer = None
        task = asyncio.get_running_loop().create_task(self._settled())
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _settled(self) -> None:
        await self.settle()
        if self._counted and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WINDOW_SECONDS, self._due)

    async def _write(self, kind: Refused, **details: Any) -> None:
        try:
            async with self._database.transaction(kind.principal.tenant) as connection:
                with coming_from(kind.address):
                    await ledger.note(
                        connection, kind.principal, kind.action, kind.target, code=kind.code, key=kind.key, **details
                    )
        except StorageError as error:
            logger.error("a refusal could not be written to the audit log: %s", error)


def _shown(target: str) -> str:
    """A path as somebody spelt it, without what no column and no log takes: else a NUL would leave no entry."""
    return "".join(sign if sign.isprintable() else "?" for sign in target[:LONGEST_TARGET])


def _bare(principal: Principal) -> Principal:
    """Who it is, whatever it may do: requests with other roles are of one kind."""
    return Principal(principal.subject, principal.tenant)
