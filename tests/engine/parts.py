"""Parts that the engine's tests build on: a system clock, an id source, actions that do what a test says."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from uuid import UUID, uuid4

from circuit.engine.action import ActionCall, ActionContext, ActionOutput
from circuit.ids import CaseKey, uuid7
from circuit.storage.records import LogWrite


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class SystemIds:
    def uuid(self) -> UUID:
        return uuid7(time.time_ns() // 1_000_000, secrets.randbits(74))


class Doing:
    """An action that does what its function says, and remembers its calls."""

    def __init__(self, function: Callable[[ActionCall, ActionContext], Awaitable[ActionOutput]]) -> None:
        self.function = function
        self.calls: list[ActionCall] = []

    async def perform(self, call: ActionCall, context: ActionContext) -> ActionOutput:
        self.calls.append(call)
        return await self.function(call, context)


async def at_once(call: ActionCall, context: ActionContext) -> ActionOutput:
    """An instant action."""
    return ActionOutput({"answer": "yes"}, text="yes")


async def for_ever(call: ActionCall, context: ActionContext) -> ActionOutput:
    """An action that ends only when it is cancelled."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


def call(**changes: object) -> ActionCall:
    """A call as the owner would make it."""
    key = CaseKey(1, uuid4())
    values: dict[str, object] = {
        "key": key,
        "firing": 1,
        "attempt": 1,
        "start": 1,
        "execution_id": f"{key.case}.1",
        "workflow_id": "test",
        "transition": "act",
        "kind": "test",
        "config": {},
        "inputs": {},
        "tokens": (),
        "history_count": 0,
        "timeout_seconds": 10.0,
        "recorded": {},
    }
    return ActionCall(**(values | changes))  # type: ignore[arg-type]


class MemoryLog:
    """Takes log writes in the place of the writer; `refuse` makes each of them fail."""

    def __init__(self) -> None:
        self.writes: list[LogWrite] = []
        self.refuse: Exception | None = None

    async def __call__(self, write: LogWrite) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.writes.append(write)

    @property
    def frames(self) -> list[dict[str, object]]:
        import orjson

        return [orjson.loads(row.frame.body) for write in self.writes for row in write.frames]

    @property
    def journal(self) -> dict[str, object]:
        return {row.step: row.value for write in self.writes for row in write.journal}
