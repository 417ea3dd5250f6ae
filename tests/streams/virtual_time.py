"""An event loop whose clock jumps: where it would sleep until a timer, the time is set to that timer at once.

So tests of timers run in no time, and exactly. It is for code without IO: nothing from outside is ever waited for.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")
EPOCH = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


class JumpingSelector(selectors.SelectSelector):
    """Passes waiting time on to the loop's clock instead of waiting."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everything waits and no timer is set: this would hang")
        self.loop.seconds += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.seconds = 0.0
        selector = JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.seconds


class LoopClock:
    """Circuit's clock, driven by the running loop's."""

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


def run(main: Coroutine[Any, Any, T], seconds: float = 3600.0) -> T:
    """What `main` returns, run on a virtual loop. Fails when it takes longer than `seconds` of virtual time."""

    async def limited() -> T:
        async with asyncio.timeout(seconds):
            return await main

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(limited())


async def pass_time(seconds: float) -> None:
    """Let the virtual clock run on, and all timers up to then do their work."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    done = loop.create_future()
    loop.call_later(seconds, done.set_result, None)
    await done
