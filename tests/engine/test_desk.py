"""The desk: what it does with writes whose senders are gone, and the connections of the loops around it."""

from __future__ import annotations

import asyncio
import gc
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import asyncpg
import pytest
from test_suspension import Waiting

from circuit.engine.connecting import connected
from circuit.engine.desk import Desk, Reports
from circuit.engine.execution import Screened
from circuit.engine.firings import Start
from circuit.engine.slots import Slots
from circuit.errors import DatabaseUnreachable, Fenced
from circuit.ids import CaseKey
from circuit.storage.database import Database
from circuit.storage.records import CaseWrite, LogWrite


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


async def test_a_finding_is_kept_when_its_step_is_committed() -> None:
    stage = Waiting()
    started: list[Start] = []
    writes: list[tuple[CaseWrite, asyncio.Future[None]]] = []

    def write(wanted: Any) -> asyncio.Future[None]:
        writes.append((wanted, asyncio.get_running_loop().create_future()))
        return writes[-1][1]

    desk = Desk(write, lambda: stage.now)
    desk.reports = Reports(*(lambda *_: None for _ in range(9)))
    desk.slots = cast(Slots, SimpleNamespace(crowded=None, submit=started.append, cancel=lambda *_: None))
    desk.hold(stage.workflow, stage.case.state())
    writes[0][1].set_result(None)
    await desk.settled()
    [begun] = started
    event = {"agent_id": "a", "action": "warn", "found": [{"kind": "x"}]}
    found = Screened(begun.call.key, begun.call.firing, begun.call.start, "screened:input", {"refused": None}, event)
    kept = desk.screened(found)
    assert kept is not None
    # Asked in the same turn, while the step is in flight.
    again = desk.screened(found)
    assert again is not None
    assert [one.kind for _, one in writes[1][0].events] == ["input_screened"]
    await asyncio.sleep(0)
    assert not kept.done() and not again.done()
    writes[1][1].set_result(None)
    await asyncio.wait_for(asyncio.gather(kept, again), 60)
    assert len(writes) == 2, "it is said once"
    desk.clear()
    assert desk.screened(found) is None


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
