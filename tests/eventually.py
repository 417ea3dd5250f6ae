"""Waiting for a condition of something that runs elsewhere: looked at again and again, with a deadline.

For what happens in the test's own process, wait for the signal itself.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

LOOK_SECONDS = 0.02
SECONDS = 180.0
"""For what comes for certain: however long a busy machine takes for it."""


async def eventually(
    look: Callable[[], T | Awaitable[T]], *, within: float = SECONDS, what: str = "the condition"
) -> T:
    """The first value of `look` that is true, looked at until `within` seconds are over."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while True:
        value = look()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if loop.time() > deadline:
            raise AssertionError(f"{what} did not come true within {within} s; the last value was {value!r}")
        await asyncio.sleep(LOOK_SECONDS)
