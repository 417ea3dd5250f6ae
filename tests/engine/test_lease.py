"""The lease of a worker: registered, renewed from its own thread, lost when it must be, and never for nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import psutil
import pytest
from eventually import eventually
from parts import SystemIds

from circuit.engine.lease import EXIT_STUCK, Lease, Loss
from circuit.engine.process import alive, process_of, this_process
from circuit.ids import CaseKey
from circuit.storage import workers
from circuit.storage.database import Database
from circuit.storage.workers import Incarnation
from tests.chaos.database import set_clock_ahead

LEASE_SECONDS = 1.0
"""Of a lease that is to be lost."""
KEPT_SECONDS = 3.0
"""Of one that is not, also where the machine does something else for two seconds."""


def incarnation() -> Incarnation:
    here = this_process()
    return Incarnation(SystemIds().uuid(), here.host, here.boot_id, here.pid, here.pid_started)


@pytest.fixture
async def plain(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def lease(database: Database) -> AsyncIterator[Lease]:
    lease = Lease(database, incarnation(), KEPT_SECONDS)
    await lease.start()
    yield lease
    await lease.stop()


async def expires_at(plain: Any, lease: Lease) -> Any:
    return await plain.fetchval(
        "SELECT expires_at FROM circuit.worker_lease WHERE worker_id = $1", lease.incarnation.id
    )


async def renewed(plain: Any, lease: Lease, before: Any) -> bool:
    return await expires_at(plain, lease) > before


async def test_it_is_registered_with_where_its_process_is(lease: Lease, plain: Any) -> None:
    row = await plain.fetchrow("SELECT * FROM circuit.worker WHERE id = $1", lease.incarnation.id)
    assert row["pid"] == os.getpid()
    assert not row["fenced"]
    assert alive(row["pid"], row["pid_started"])
    assert not alive(row["pid"], row["pid_started"] - 3600), "a pid that began at another time is another process"
    assert row["boot_id"] and row["host"]
    assert lease.held


async def test_it_tells_the_time_of_the_database(lease: Lease, plain: Any) -> None:
    for _ in range(20):
        told = lease.now()
        after = await plain.fetchval("SELECT clock_timestamp()")
        assert told <= after, "ahead of the database, something could be done before it is due"
        assert after - told < timedelta(seconds=30)
        assert lease.now() >= told


async def test_it_is_renewed_again_and_again(lease: Lease, plain: Any) -> None:
    seen = {await expires_at(plain, lease)}

    async def renewed() -> bool:
        seen.add(await expires_at(plain, lease))
        return len(seen) >= 3

    await eventually(renewed)
    assert lease.held and not lease.lost.is_set()


async def test_a_fenced_worker_hears_of_it(lease: Lease, database: Database) -> None:
    connection = await database.raw()
    await workers.take_over(connection, lease.incarnation.id)
    await connection.close()
    await asyncio.wait_for(lease.lost.wait(), 60)
    assert lease.loss is Loss.FENCED
    assert not lease.held


async def test_a_loop_that_is_stuck_loses_its_lease(database: Database, plain: Any) -> None:
    lease = Lease(database, incarnation(), LEASE_SECONDS / 2)
    await lease.start()
    time.sleep(LEASE_SECONDS * 2)  # noqa: ASYNC251 - this is the fault: nothing else of the loop runs meanwhile
    assert (await expires_at(plain, lease)) < await plain.fetchval("SELECT clock_timestamp()")
    await asyncio.wait_for(lease.lost.wait(), 60)
    assert lease.loss in (Loss.STUCK, Loss.EXPIRED)
    await lease.stop()


async def test_what_a_loop_is_stuck_in_is_said_and_a_loop_that_stays_so_takes_its_process_down(
    database: Database, plain: Any, caplog: pytest.LogCaptureFixture
) -> None:
    left: list[int] = []
    key = CaseKey(1, uuid4())
    lease = Lease(database, incarnation(), LEASE_SECONDS, exit_when_stuck=True, leave=left.append)
    here = asyncio.current_task()
    lease.culprit = lambda task: (key, 3) if task is here else None
    await lease.start()
    # What it says goes over the connection that it has from its first renewal on.
    await eventually(partial(renewed, plain, lease, await expires_at(plain, lease)))
    while not left:
        time.sleep(LEASE_SECONDS / 10)  # noqa: ASYNC251 - this is the fault
    assert left == [EXIT_STUCK]
    assert "is stuck in" in caplog.text and "test_what_a_loop_is_stuck_in" in caplog.text
    row = await plain.fetchrow(
        "SELECT suspect_tenant, suspect_case, suspect_firing FROM circuit.worker_lease WHERE worker_id = $1",
        lease.incarnation.id,
    )
    assert tuple(row) == (1, key.case, 3)
    await asyncio.wait_for(lease.lost.wait(), 60)
    await lease.stop()


async def test_a_database_that_is_away_for_longer_than_the_lease_ends_it(database: Database) -> None:
    lease = Lease(database, incarnation(), LEASE_SECONDS)
    await lease.start()

    async def gone() -> Any:
        raise ConnectionRefusedError("the database is away")

    database.raw = gone  # type: ignore[method-assign]
    await asyncio.wait_for(lease.lost.wait(), 60)
    assert lease.loss is Loss.EXPIRED
    await lease.stop()


async def test_a_connection_that_breaks_is_replaced(lease: Lease, plain: Any) -> None:
    # It has a connection from its first renewal on.
    await eventually(partial(renewed, plain, lease, await expires_at(plain, lease)))
    ended = await plain.fetch(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert ended and all(one[0] for one in ended)
    await eventually(partial(renewed, plain, lease, await expires_at(plain, lease)))
    assert lease.held


async def test_stopping_ends_the_thread_and_keeps_the_row(lease: Lease, plain: Any) -> None:
    await lease.stop()
    await lease.stop()
    assert lease._thread is not None and not lease._thread.is_alive()
    assert not lease.lost.is_set()
    assert not await plain.fetchval("SELECT fenced FROM circuit.worker WHERE id = $1", lease.incarnation.id)


def test_this_process_lives_and_a_dead_one_does_not() -> None:
    here = this_process()
    assert alive(here.pid, here.pid_started)
    child = subprocess.Popen(["sleep", "60"])
    started = process_of(child.pid).pid_started
    assert alive(child.pid, started)
    assert not alive(child.pid, started - 1), "a pid that began at another time is another process"
    child.kill()
    # Nobody has waited for it yet.
    deadline = time.monotonic() + 60
    while alive(child.pid, started) and time.monotonic() < deadline:
        os.sched_yield()
    assert Path(f"/proc/{child.pid}/stat").exists() or sys.platform != "linux"
    assert not alive(child.pid, started), "a zombie does not live"
    child.wait()
    assert not alive(child.pid, started)


def test_a_clock_that_is_set_does_not_make_a_living_process_look_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    here = this_process()
    created = psutil.Process.create_time
    boot = psutil.boot_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: created(self) + 3600)
    monkeypatch.setattr(psutil, "boot_time", lambda: boot() + 3600)
    assert alive(here.pid, here.pid_started)
    assert this_process() == here


@pytest.mark.skipif(sys.platform != "linux", reason="names of programs are read from /proc, which only Linux has")
def test_a_program_may_have_any_name(tmp_path: Path) -> None:
    odd = tmp_path / "a) Z 1 ("
    odd.symlink_to(shutil.which("sleep") or "/bin/sleep")
    child = subprocess.Popen([odd, "60"])
    try:
        assert alive(child.pid, process_of(child.pid).pid_started)
    finally:
        child.kill()
        child.wait()


async def test_stopping_does_not_wait_for_a_database_that_does_not_answer(database: Database) -> None:
    lease = Lease(database, incarnation(), 3.0)
    await lease.start()
    asked = threading.Event()

    async def hangs() -> Any:
        asked.set()
        await asyncio.Event().wait()

    database.raw = hangs  # type: ignore[method-assign]
    # The next renewal finds its connection broken and hangs in making another.
    connection = await asyncpg.connect(database.address.url)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await connection.close()
    assert await asyncio.to_thread(asked.wait, 60)
    await lease.stop()
    assert lease._thread is not None and not lease._thread.is_alive()


async def test_a_database_whose_clock_goes_back_is_followed_by_beginning_anew(database_url: str) -> None:
    """The worker's own clock never goes back: what it plans would be due when the other has caught up."""
    await set_clock_ahead(database_url, 0)
    database = await Database.open(database_url)
    lease = Lease(database, incarnation(), KEPT_SECONDS)
    await lease.start()
    try:
        before = lease.now()
        await set_clock_ahead(database_url, 3600)
        ahead = await eventually(lambda: lease.now() - before > timedelta(minutes=59))
        assert ahead and lease.loss is None, "a clock that jumps ahead is followed at once"
        await set_clock_ahead(database_url, 0)
        await asyncio.wait_for(lease.lost.wait(), 60)
        assert lease.loss is Loss.EXPIRED
    finally:
        await lease.stop()
        await database.close()
