"""Cases that a worker gives up because somebody asked it to: for another one, in good order, at no loss.

What runs in them is cancelled here and goes on where they are claimed next, with its journal, as after a drain: it
counts neither as a failure nor as a crash. The worker then claims nothing for a while, so that others have their turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from uuid import UUID

from circuit.engine.desk import Desk
from circuit.ids import CaseKey
from circuit.storage import cases
from circuit.storage.driver import Connection

TURN_SECONDS = 3.0
"""How long others have before this worker claims again."""


@dataclass(slots=True, eq=False)
class Leave:
    """Cases that are being given up. `wanted` is None for all; `left` are those that are off the desk already."""

    wanted: Collection[CaseKey] | None
    done: asyncio.Future[list[CaseKey]]
    left: set[CaseKey] = field(default_factory=set[CaseKey])
    given: list[CaseKey] = field(default_factory=list[CaseKey])
    begun: bool = False


class HandOver:
    """The cases of one incarnation that are being given up. Lives on the worker's loop; `Claims` drives it."""

    def __init__(self, desk: Desk, worker: UUID) -> None:
        self._desk = desk
        self._worker = worker
        self._leaves: list[Leave] = []
        self._turn_of_others = float("-inf")

    def ask(self, wanted: Collection[CaseKey] | None) -> asyncio.Future[list[CaseKey]]:
        """Give up these cases (None: all that are on the desk); done when they are free, with those that were."""
        loop = asyncio.get_running_loop()
        leave = Leave(wanted, loop.create_future())
        self._leaves.append(leave)
        return leave.done

    def holds(self, key: CaseKey) -> bool:
        """Whether this case is on its way out: it is not to be read anew."""
        return any(key in leave.left for leave in self._leaves)

    @property
    def resting(self) -> bool:
        """Whether others have their turn to claim."""
        return bool(self._leaves) or asyncio.get_running_loop().time() < self._turn_of_others

    async def proceed(self, connection: Connection) -> None:
        """Take what is asked for off the desk, and free it as soon as nothing of it is in flight."""
        for leave in list(self._leaves):
            if not leave.begun:
                leave.begun = True
                held = set(self._desk.keys())
                for key in held if leave.wanted is None else held.intersection(leave.wanted):
                    self._desk.drop(key)
                    leave.left.add(key)
            still = [key for key in leave.left if not self._desk.busy(key)]
            if still:
                leave.given += await cases.drop(connection, self._worker, still)
                leave.left.difference_update(still)
            if not leave.left:
                self._leaves.remove(leave)
                self._turn_of_others = asyncio.get_running_loop().time() + TURN_SECONDS
                if not leave.done.done():
                    leave.done.set_result(leave.given)
