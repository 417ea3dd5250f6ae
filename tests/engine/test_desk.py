"""The desk: what it does with writes whose senders are gone, and the connections of the loops around it."""

from __future__ import annotations

import asyncio
import gc
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from circuit.engine.connecting import connected
from circuit.engine.desk import Desk, Reports
from circuit.errors import DatabaseUnreachable, Fenced
from circuit.ids import CaseKey
from circuit.storage.database import Database
from circuit.storage.records import LogWrite


async def test_a_write_that_fails_after_its_sender_was_cancelled_is_no_unheard_error() -> None:
    loop = asyncio.get_running_loop()
    unheard: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unheard.append(context))
    writes: list[asyncio.Future[None]] = []

    def write(_: object) -> asyncio.Future[None]:
        writes.append(loop.create_future())
        return writes[-1]

    desk = Desk(write, lambda: datetime.now(UTC))
    desk.reports = Reports(*(lambda *_: None for _ in range(5)))
    sender = asyncio.create_task(desk.log(LogWrite(CaseKey(1, uuid4()))))
    await asyncio.sleep(0)
    sender.cancel()
    await asyncio.gather(sender, return_exceptions=True)
    writes[0].set_exception(Fenced("this worker was declared dead"))
    await desk.settled()
    del sender
    writes.clear()
    gc.collect()
    await asyncio.sleep(0)
    assert not unheard


async def test_a_connection_that_breaks_under_a_loop_is_an_error_that_passes(
    database: Database, database_url: str
) -> None:
    with pytest.raises(DatabaseUnreachable) as raised:
        async with connected(database) as connection:
            plain = await asyncpg.connect(database_url)
            await plain.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
            await plain.close()
            while True:
                await connection.execute("SELECT 1")
    assert raised.value.retryable
