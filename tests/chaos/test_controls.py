"""The negative controls: what the suite checks holds for the real build, and each build that is broken on purpose is
caught by it, in the very same scene."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from circuit.app import Circuit
from circuit.storage import lane, statements
from circuit.storage.database import Database
from circuit.storage.notifications import CHANNEL
from circuit.storage.writer import Writer
from tests import invariants
from tests.chaos.controls import unordered_locks
from tests.chaos.fleet import Fleet
from tests.chaos.processes import WORKFLOW
from tests.chat_server import ChatServer
from tests.eventually import eventually
from tests.postgres import execute
from tests.storage.cases_in_store import owned_cases, start_worker, step

LEASE_SECONDS = 5.0
LONG_LEASE_SECONDS = 30.0
PROMISED_SECONDS = LONG_LEASE_SECONDS + 5.0
"""Within a lease and five seconds goes on whatever can (I4); a build that never looks is found out sooner."""
FOUND_OUT_SECONDS = 6.0
LOOK_SECONDS = 0.2


class Caught(Exception):
    """A check of the suite has found something."""


@pytest.fixture
async def fleet(database_url: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    fleet = Fleet(database_url, tmp_path)
    yield fleet
    await fleet.end()


@pytest.fixture
async def plain(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def client(database_url: str) -> AsyncIterator[Circuit]:
    async with Circuit.open(database_url, worker=False) as circuit:
        yield circuit


async def completed(plain: Any, cases: int) -> bool:
    return await plain.fetchval("SELECT count(*) FROM circuit.\"case\" WHERE status = 'completed'") == cases


async def owner_pid(plain: Any) -> int | None:
    return await plain.fetchval('SELECT w.pid FROM circuit."case" t JOIN circuit.worker w ON w.id = t.owner')


async def judged(url: str) -> None:
    try:
        await invariants.check(url)
    except AssertionError as error:
        raise Caught(str(error)) from error


async def sleeper_comes_back(control: str | None, fleet: Fleet, client: Circuit, plain: Any, url: str) -> None:
    """A worker is stopped in the middle of an answer, another one does its work, and then it goes on."""
    async with ChatServer([{"text": "from the sleeper", "gate": 300, "pieces": 4}, {"text": "the other"}]) as chat:
        workflow = await client.load(WORKFLOW.format(url=chat.url))
        sleeper = await fleet.add(control=control, stop_seconds=20.0)
        await client.start(workflow.id, {"text": "a document"})
        await chat.at_gate()
        sleeper.signal(signal.SIGSTOP)
        await fleet.add()
        await eventually(lambda: completed(plain, 1))
        sleeper.signal(signal.SIGCONT)
        chat.release()
        await chat.wait_for(lambda server: server.requests[0].answered or server.requests[0].disconnected)
        # It has ended when it has said and written all that it wants to.
        sleeper.signal(signal.SIGTERM)
        await sleeper.ended()
    await judged(url)


async def hint_is_lost(control: str | None, fleet: Fleet, client: Circuit, plain: Any, url: str) -> None:
    """The notification that a case was started is lost, with the connection that would have brought it."""
    server, _, name = url.rpartition("/")
    sent = asyncio.Event()
    listeners = "FROM pg_stat_activity WHERE datname = $1 AND query LIKE 'LISTEN%' AND pid <> pg_backend_pid()"
    in_use = """FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()
        AND state_change > clock_timestamp() - interval '0.4 seconds'"""

    async def nobody(connections: str) -> bool:
        return await plain.fetchval(f"SELECT count(*) {connections}", name) == 0

    async with ChatServer([{"text": "All is well."}]) as chat:
        workflow = await client.load(WORKFLOW.format(url=chat.url))
        await fleet.add(control=control, lease_seconds=LONG_LEASE_SECONDS)
        await client.start(workflow.id, {})
        await eventually(lambda: completed(plain, 1))
        await eventually(lambda: nobody(in_use), what="that everybody rests")
        await execute(server + "/postgres", f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await plain.fetch(f"SELECT pg_terminate_backend(pid) {listeners}", name)
        await eventually(lambda: nobody(listeners), what="that nobody listens")
        await plain.add_listener(CHANNEL, lambda *_: sent.set())
        await client.start(workflow.id, {})
        await sent.wait()
        await execute(server + "/postgres", f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        patience = PROMISED_SECONDS if control is None else FOUND_OUT_SECONDS
        ended = asyncio.ensure_future(eventually(lambda: completed(plain, 2), within=2 * PROMISED_SECONDS))
        try:
            while not ended.done():
                if faults := await invariants.waiting_since(url, patience):
                    raise Caught("\n".join(faults))
                await asyncio.wait([ended], timeout=LOOK_SECONDS)
            await ended
        finally:
            ended.cancel()


async def model_is_silent(control: str | None, fleet: Fleet, client: Circuit, plain: Any, url: str) -> None:
    """A model says nothing for longer than a lease, while its worker is as well as can be: nobody takes it over."""
    async with ChatServer([{"text": "Well.", "gate": 0}, {"text": "All is well."}]) as chat:
        workflow = await client.load(WORKFLOW.format(url=chat.url))
        await fleet.add(control=control, lease_seconds=LEASE_SECONDS)
        await client.start(workflow.id, {})
        await chat.at_gate()
        silent = await plain.fetchrow('SELECT owner, clock_timestamp() AS since FROM circuit."case"')
        await fleet.add(lease_seconds=LEASE_SECONDS)
        # It has outlived the lease that it had when the silence began, if it renews it later than that.
        outlived = "SELECT count(*) FROM circuit.worker_lease WHERE worker_id = $1 AND expires_at > $2"
        until = silent["since"] + timedelta(seconds=2 * LEASE_SECONDS)
        crashed = "SELECT count(*) FROM circuit.firing WHERE crashes > 0"
        while not await plain.fetchval(outlived, silent["owner"], until):
            if await plain.fetchval(crashed):
                raise Caught("a worker that lives was taken over")
            await asyncio.sleep(LOOK_SECONDS)
        chat.release()
        await eventually(lambda: completed(plain, 1))
        if len(chat.requests) != 2:
            raise Caught("a model was asked twice, and nobody had died")
    await judged(url)


SCENES = {
    "no fence": (sleeper_comes_back, "I2: start 1 of execution"),
    "NOTIFY as the carrier": (hint_is_lost, "I4: case"),
    "a lease renewed by the stream": (model_is_silent, "taken over"),
}


@pytest.mark.parametrize("name", SCENES)
async def test_the_real_build_holds(name: str, fleet: Fleet, client: Circuit, plain: Any, database_url: str) -> None:
    await SCENES[name][0](None, fleet, client, plain, database_url)


@pytest.mark.parametrize("name", SCENES)
async def test_a_broken_build_is_caught(
    name: str, fleet: Fleet, client: Circuit, plain: Any, database_url: str
) -> None:
    scene, message = SCENES[name]
    with pytest.raises(Caught, match=message):
        await scene(name, fleet, client, plain, database_url)


@pytest.fixture
def disordered(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call it for a build with unordered locks, in this process."""
    monkeypatch.setattr(statements, "BY_NAME", dict(statements.BY_NAME))
    yield unordered_locks
    statements.compose.cache_clear()


@pytest.fixture
async def patient(plain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody who waits for a lock gives up, and no circle of waiting is broken, before the test has seen it."""
    monkeypatch.setattr(lane, "PLANNER", lane.PLANNER.replace("lock_timeout = '1s'", "lock_timeout = 0"))
    name = await plain.fetchval("SELECT current_database()")
    await plain.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '1h'")


@pytest.mark.parametrize("ordered", [True, False], ids=["the real build", "unordered locks"])
async def test_two_that_make_the_same_cases_ready_never_wait_for_each_other(
    ordered: bool, patient: None, database: Database, plain: Any, disordered: Any
) -> None:
    """One makes two cases ready in the order of their keys, and so does a batch; `pg_locks` says whether a circle of
    waiting comes of it."""
    if not ordered:
        disordered()
    engine = await database.raw()
    other = await database.raw()
    worker = await start_worker(engine)
    low, high = sorted(await owned_cases(database, engine, worker, 2))
    writer = await Writer.open(database, worker)
    ready = "INSERT INTO circuit.ready (tenant_id, case_id, due_at) VALUES ($1, $2, now())"
    try:
        async with other.transaction():
            await other.execute(ready, *low)
            due_at = step(low).events[0][0]
            writes = [writer.write(step(key, release=True, due_at=due_at)) for key in (low, high)]
            pid = other.get_server_pid()
            waits = "SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid))"
            await eventually(lambda: plain.fetchval(waits, pid), what="that the batch waits for the other")
            mine = asyncio.ensure_future(other.execute(ready, *high))
            blocked = "SELECT cardinality(pg_blocking_pids($1)) > 0"
            circle = False
            while not mine.done() and not circle:
                circle = await plain.fetchval(blocked, pid)
            if circle:
                await plain.execute("SELECT pg_cancel_backend($1)", pid)
            await asyncio.gather(mine, return_exceptions=True)
            if mine.exception() is not None:
                raise mine.exception()  # type: ignore[misc]
        await asyncio.gather(*writes)
    except asyncpg.PostgresError:
        circle = True
    finally:
        await writer.close(within_seconds=5)
        await engine.close()
        await other.close()
    assert circle != ordered
