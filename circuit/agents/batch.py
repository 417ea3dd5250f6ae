"""The calls of one answer, made at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

MOST_AT_ONCE = 8
"""How many calls of one answer run at the same time."""

_Result = TypeVar("_Result")


async def together(calls: Sequence[Callable[[], Coroutine[Any, Any, _Result]]]) -> list[_Result]:
    """The results of all, in their order. Where one ends the run (an agent that it asks waits for a person, say), no
    other begins, those that have begun come to their end, so that what they do is done once and recorded, and then what
    the first one raised is raised. Only whoever cancels this breaks them off."""
    gate = asyncio.Semaphore(MOST_AT_ONCE)
    raised: list[BaseException] = []

    async def make(call: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result | None:
        async with gate:
            if raised:
                return None
            try:
                return await call()
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                raised.append(error)
                return None

    tasks = [asyncio.ensure_future(make(call)) for call in calls]
    try:
        results = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if raised:
        raise raised[0]
    return [result for result in results if result is not None]
