"""What a workflow's `limits` allow of a provider in a minute holds over all workers of a database."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from uuid import uuid4

import asyncpg
import orjson
import pytest
from eventually import eventually

from circuit import minute, ration
from circuit.app import Circuit
from circuit.engine import rations as rations_module
from circuit.engine.rations import Rations
from circuit.errors import DatabaseUnreachable
from circuit.minute import Minute, Sent
from circuit.providers.endpoint import Endpoint
from circuit.providers.limits import Allowance, Limits
from circuit.providers.registry import ProviderRegistry
from circuit.settings import Settings
from circuit.storage.database import Database, address
from circuit.storage.driver import Connection
from tests.chat_server import ChatServer

LIMITED = """
workflow: limited
places: {{asked: {{initial: true}}, told: {{terminal: true}}}}
agents:
  clerk: {{llm_provider: {{type: custom, base_url: "{url}", model: loopback, limits: {{requests_per_minute: 4}}}}}}
transitions:
  tell:
    from_places: [asked]
    to_place: told
    agent_execution: {{agent_id: clerk, output_mapping: {{data.text: text}}, required: true}}
"""


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the machine takes, whoever ends gives back what it did not send."""
    monkeypatch.setattr(rations_module, "LAST_SECONDS", 60.0)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When requests were sent, by any process of the test."""
    times: list[float] = []
    send = Minute.send

    def told(self: Minute, now: float, tokens: int) -> Sent:
        times.append(now)
        return send(self, now, tokens)

    monkeypatch.setattr(Minute, "send", told)
    return times


def within(sent: list[float], limit: int, seconds: float) -> bool:
    """Whether no more were sent in any so many seconds."""
    return all(later - one >= seconds for one, later in zip(sorted(sent), sorted(sent)[limit:], strict=False))


async def test_two_workers_send_no_more_in_a_minute_than_one_may(
    database_url: str, sent: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of eight requests four are sent, whoever has them; the others when a minute is over, which is short here."""
    for module in (minute, ration):
        monkeypatch.setattr(module, "MINUTE", 2.5)
    settings = replace(Settings.from_environment({}), worker_executions=4)
    plain = await asyncpg.connect(database_url)
    async with ChatServer([{"text": "done", "gate": 0}]) as server, AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(Circuit.open(database_url, settings=settings, stop_seconds=1.0))
            for _ in range(2)
        ]
        await workers[0].load(LIMITED.format(url=server.url))
        cases = [await workers[0].start("limited") for _ in range(8)]
        # A worker takes four cases and no more, and keeps them, for the answers are held back: so the other has some.
        owners = 'SELECT count(DISTINCT owner) FROM circuit."case"'

        async def both() -> bool:
            return await plain.fetchval(owners) == 2

        await eventually(both, what="both workers have cases")
        await server.at_gate(4)
        server.release()
        views = await asyncio.gather(*(workers[number % 2].wait(case) for number, case in enumerate(cases)))
        assert {view.status.value for view in views} == {"completed"}
        assert len(sent) == 8 and within(sent, 4, 2.5)
    # What was sent lately counts on when its workers have ended; the rest is given back.
    claims = orjson.loads(await plain.fetchval("SELECT claims::text FROM circuit.provider_ration"))
    assert sum(claim["requests"][0] for claim in claims.values()) <= 4
    assert all(not any(claim["requests"][1:]) for claim in claims.values())
    await plain.close()


class Distant(Database):
    """A database that cannot always be reached."""

    away = False

    async def raw(self) -> Connection:
        if self.away:
            raise DatabaseUnreachable("it is away")
        return await super().raw()


async def test_many_that_want_more_than_there_is_get_what_there_is(database: Database, sent: list[float]) -> None:
    """Three processes that all ask at once, of which one ends: what it did not send is there for the others."""
    async with AsyncExitStack() as stack:
        rations = [Rations(database, uuid4(), time.monotonic, every_seconds=0.1) for _ in range(3)]
        for one in rations:
            stack.push_async_callback(one.stop)
            await one.start()
        limits = Limits(requests_per_minute=30, tokens_per_minute=30_000)
        allowances = [Allowance(limits, one.ration("an endpoint", 30, 30_000)) for one in rations]
        tasks = [asyncio.create_task(one.admit(10)) for one in allowances for _ in range(5)]
        await asyncio.gather(*tasks)
        await rations[0].stop()
        tasks = [asyncio.create_task(one.admit(10)) for one in allowances[1:] for _ in range(20)]
        await eventually(lambda: sum(task.done() for task in tasks) >= 15, what="all that there is")

        async def settled() -> bool:
            held = (
                "SELECT sum((claim.value->'requests'->>0)::int) FROM circuit.provider_ration, jsonb_each(claims) claim"
            )
            connection = await database.raw()
            try:
                return await connection.fetchval(held) == 30
            finally:
                await connection.close()

        await eventually(settled, what="the claims hold the limit")
        assert within(sent, 30, 60.0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_model_of_any_name_is_counted_and_keeps_no_other_waiting(database: Database) -> None:
    """What a stranger names stands in a key of the database, together with what others name."""
    rations = Rations(database, uuid4(), time.monotonic, every_seconds=0.1)
    await rations.start()
    registry = ProviderRegistry({}, rations=rations)
    endpoint = Endpoint("http://localhost", {}, (), "")
    long = "".join(map(chr, random.Random(1).choices(range(0x4E00, 0x9FFF), k=2_000)))
    names = ["gpt-4.1", long, long[:-1], "a\0b", "a\ud800b"]
    allowances = [registry._allowance_of(name, {"limits": {"requests_per_minute": 9}})(endpoint) for name in names]
    await asyncio.wait_for(asyncio.gather(*(one.admit(1) for one in allowances)), 60)
    connection = await database.raw()
    assert await connection.fetchval("SELECT count(*) FROM circuit.provider_ration") == len(names)
    await connection.close()
    await rations.stop()


async def test_that_a_provider_takes_no_more_is_told_to_the_others(database: Database) -> None:
    async with AsyncExitStack() as stack:
        rations = [Rations(database, uuid4(), time.monotonic, every_seconds=0.1) for _ in range(2)]
        for one in rations:
            stack.push_async_callback(one.stop)
            await one.start()
        shares = [one.ration("an endpoint", 100, None) for one in rations]
        first, second = (Allowance(Limits(requests_per_minute=100), share) for share in shares)
        await asyncio.gather(first.admit(1), second.admit(1))
        first.learn({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "5m0s"})
        await eventually(lambda: second.closed, what="the other one waits too")
        assert 0 < shares[1].told_until - time.monotonic() <= 300
        first.learn({"x-ratelimit-remaining-requests": "50", "x-ratelimit-reset-requests": "9s"})
        await eventually(lambda: not second.closed, what="it need not any more")
        await second.admit(1)


async def test_while_the_database_is_away_requests_wait_and_it_is_said(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    database = Distant(address(database_url))
    rations = Rations(database, uuid4(), time.monotonic)
    await rations.start()
    allowance = Allowance(Limits(requests_per_minute=2), rations.ration("an endpoint", 2, None))
    database.away = True
    with caplog.at_level(logging.WARNING):
        waiting = asyncio.create_task(allowance.admit(10))
        await eventually(lambda: "circuit-rations: it is away" in caplog.text, what="it is said")
    assert not waiting.done()
    database.away = False
    await waiting
    # What is had is sent without asking anybody.
    database.away = True
    await asyncio.wait_for(allowance.admit(10), 60)
    await rations.stop()
    assert "lapses in a minute" in caplog.text
    await database.close()
