"""Calls made at the same time: none is broken off because another one ends the run."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from surroundings import Asked

from circuit.agents.batch import MOST_AT_ONCE, together


async def test_results_come_in_order_and_no_more_run_than_may() -> None:
    running: list[int] = []
    most: list[int] = []

    async def call(number: int) -> int:
        running.append(number)
        most.append(len(running))
        await asyncio.sleep(0)
        running.remove(number)
        return number

    assert await together([partial(call, number) for number in range(20)]) == list(range(20))
    assert max(most) == MOST_AT_ONCE


async def test_what_has_begun_comes_to_its_end_when_another_one_ends_the_run() -> None:
    asked, full, begun, done = asyncio.Event(), asyncio.Event(), list[str](), list[str]()

    async def ask() -> str:
        await full.wait()
        asked.set()
        raise Asked("somebody")

    async def pay() -> str:
        begun.append("pays")
        if len(begun) == MOST_AT_ONCE - 1:
            full.set()
        await asked.wait()
        for _ in range(3):
            await asyncio.sleep(0)
        done.append("paid")
        return "paid"

    async def late() -> str:
        done.append("begun when the run was over")
        return "late"

    with pytest.raises(Asked):
        await together([pay, ask, *([pay] * (MOST_AT_ONCE - 2)), late])
    assert done == ["paid"] * (MOST_AT_ONCE - 1)


async def test_whoever_cancels_it_breaks_them_off() -> None:
    begun, ended = asyncio.Event(), list[str]()

    async def hang() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("broken off")

    task = asyncio.ensure_future(together([hang]))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["broken off"]
