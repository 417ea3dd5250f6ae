"""A database that is restored to an earlier state under workers that remember a later one: they forget it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import invariants
import pytest
from eventually import eventually
from parts import Doing
from postgres import execute
from running import LIMITS, REVIEW, engine, publish, start, until

from circuit.engine.action import ActionCall, ActionContext, ActionOutput
from circuit.events import StreamDelta, StreamType
from circuit.storage import schema
from circuit.storage.database import Database
from tests.chaos.database import FaultyServer

LEASE_SECONDS = 30.0
"""Longer than everything here takes: no lease expires."""


@pytest.fixture
async def server() -> AsyncIterator[FaultyServer]:
    server = FaultyServer()
    server.create()
    server.start()
    await execute(server.url(), "CREATE DATABASE circuit")
    await schema.upgrade(server.url("circuit"))
    yield server
    server.remove()


async def test_what_a_worker_remembers_of_a_time_that_never_was_is_forgotten(server: FaultyServer) -> None:
    """Its incarnation, its case and its firing are all in the backup; only some of what it has said since is not."""
    url = server.url("circuit")
    told: asyncio.Queue[str | None] = asyncio.Queue()

    async def speak(call: ActionCall, context: ActionContext) -> ActionOutput:
        while (text := await told.get()) is not None:
            await context.emit(StreamDelta(StreamType.CONTENT_CHUNK, {"content": text}))
        return ActionOutput({"answer": "yes"}, text="yes")

    async def stored(text: str) -> bool:
        rows = await database.raw()
        try:
            return await rows.fetchval("SELECT count(*) FROM circuit.stream_event WHERE frame LIKE $1", f"%{text}%") > 0
        finally:
            await rows.close()

    database = await Database.open(url)
    limits = replace(LIMITS, lease_seconds=LEASE_SECONDS, stop_seconds=0.1)
    async with engine(database, {"agent": Doing(speak)}, limits=limits) as running:
        await publish(running, REVIEW)
        key = await start(running, "review")
        told.put_nowait("before")
        await eventually(lambda: stored("before"))
        await asyncio.to_thread(server.back_up)
        told.put_nowait("between")
        await eventually(lambda: stored("between"))
        await asyncio.to_thread(server.set_back)
        told.put_nowait("after")
        told.put_nowait(None)
        told.put_nowait(None)
        await until(running, key, "completed")
    await database.close()
    await invariants.check(url)
