"""Rates of requests, and who guesses at credentials, over all processes of a database, and without it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from circuit.engine import guesses as engine_guesses
from circuit.engine import reach as reach_module
from circuit.engine.archive.keeper import Keeper
from circuit.engine.archive.policy import Policy
from circuit.engine.guesses import SharedGuesses
from circuit.engine.rates import RequestRate
from circuit.engine.reach import PAUSE_SECONDS, Reach
from circuit.errors import DatabaseUnreachable, TooManyRequests
from circuit.security import guesses as security_guesses
from circuit.security.guesses import FREE_GUESSES
from circuit.security.principal import Principal
from circuit.security.rates import Rate
from circuit.storage.database import Database

ADDRESS = "192.0.2.7"
ADA = Principal("ada")


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the machine takes, a database that answers is waited for, and no wait is over meanwhile."""
    monkeypatch.setattr(reach_module, "PATIENCE_SECONDS", 60.0)
    for module in (security_guesses, engine_guesses):
        monkeypatch.setattr(module, "FIRST_WAIT_SECONDS", 60.0)


async def guess(guesses: SharedGuesses, credential: str, address: str = ADDRESS) -> float:
    """Show a credential that does not hold; after how many seconds it may be shown, or 0 where it was looked at."""
    try:
        async with guesses.turn(address, credential):
            await guesses.wrong(address)
    except TooManyRequests as error:
        assert error.retry_after
        return error.retry_after
    return 0.0


@pytest.mark.usefixtures("unhurried")
async def test_wrong_credentials_count_at_every_process_and_beyond_its_end(
    database: Database, database_url: str
) -> None:
    first, second = (SharedGuesses(lambda: 0.0, Reach(database, lambda: 0.0)) for _ in range(2))
    first.right("known")
    for number in range(FREE_GUESSES):
        assert not await guess((first, second)[number % 2], f"wrong {number}")
    # The one who let the last wrong one pass, the other, and one that began later; others of the network wait too.
    later = SharedGuesses(lambda: 0.0, Reach(database, lambda: 0.0))
    for process in (second, first, later):
        assert 0 < await guess(process, "another") <= 60
    async with first.turn(ADDRESS, "known"):
        pass
    assert not await guess(later, "another", "192.0.2.8")
    # When the wait is over, of all that look in that instant one may.
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE circuit.wrong_credential SET until = now() - interval '1 s'")
    processes = [SharedGuesses(lambda: 0.0, Reach(database, lambda: 0.0)) for _ in range(5)]
    waits = await asyncio.gather(*(guess(process, f"{n}") for process in processes for n in range(4)))
    assert waits.count(0.0) == 1
    assert await connection.fetchval("SELECT wrong FROM circuit.wrong_credential WHERE address = $1", ADDRESS) == 11
    # Who was quiet for long begins anew, and is forgotten in the background, as buckets that are full are.
    past = "UPDATE circuit.wrong_credential SET forgotten_at = now() - interval '1 s' WHERE address = $1"
    await connection.execute(past, ADDRESS)
    assert not await guess(SharedGuesses(lambda: 0.0, Reach(database, lambda: 0.0)), "anew")
    assert await connection.fetchval("SELECT wrong FROM circuit.wrong_credential WHERE address = $1", ADDRESS) == 1
    await connection.execute(past, ADDRESS)
    await RequestRate(Reach(database, lambda: 0.0), Rate(60, 60), lambda: 0.0, "v1").take(ADA)
    await connection.execute("UPDATE circuit.request_rate SET full_at = now() - interval '2 hours'")
    keeper = Keeper(database, lambda: datetime.now(UTC), Policy())
    await keeper.start()
    await asyncio.wait_for(keeper.started.wait(), 60)
    await keeper.stop()
    rows = await connection.fetch("SELECT address FROM circuit.wrong_credential")
    assert [row["address"] for row in rows] == ["192.0.2.8"]
    assert await connection.fetchval("SELECT count(*) FROM circuit.request_rate") == 0
    await connection.close()


@pytest.mark.usefixtures("unhurried")
async def test_of_one_address_few_are_looked_at_in_one_instant(database: Database) -> None:
    guesses = SharedGuesses(lambda: 0.0, Reach(database, lambda: 0.0))
    waits = await asyncio.gather(*(guess(guesses, f"wrong {number}") for number in range(100)))
    assert FREE_GUESSES <= waits.count(0.0) < 2 * FREE_GUESSES
    assert not guesses._looking


@pytest.mark.usefixtures("unhurried")
async def test_what_no_column_takes_is_counted_here_and_ends_nothing(database: Database) -> None:
    reach = Reach(database, lambda: 0.0)
    rate = RequestRate(reach, Rate(1, 2), lambda: 0.0, "v1")
    assert [await rate.take(Principal("a\x00b")) > 0 for _ in range(3)] == [False, False, True]
    assert not reach.lost, "all others are counted together as before"
    assert [await rate.take(ADA) > 0 for _ in range(3)] == [False, False, True]


class Away(Database):
    """A database that does not answer."""

    asked = 0
    hangs = False

    def __init__(self) -> None:
        pass

    @asynccontextmanager
    async def transaction(self, tenant: int) -> AsyncGenerator[Any]:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        raise DatabaseUnreachable("it is away")
        yield


async def test_without_the_database_each_process_counts_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach_module, "PATIENCE_SECONDS", 0.01)
    now, away = 0.0, Away()
    reach = Reach(away, lambda: now)
    rate = RequestRate(reach, Rate(1, 3), lambda: now, "v1")
    assert [await rate.take(ADA) > 0 for _ in range(4)] == [False, False, False, True]
    guesses = SharedGuesses(lambda: now, reach)
    for number in range(FREE_GUESSES):
        assert not await guess(guesses, f"{number}")
    assert await guess(guesses, "one more") == 1
    assert away.asked == 1, "nobody waits for it again and again"
    now, away.hangs = PAUSE_SECONDS, True
    assert await rate.take(ADA) > 0
    assert away.asked == 2
    # Neither does who waits behind others for what they ask.
    now += 2 * PAUSE_SECONDS
    waits = await asyncio.gather(*(rate.take(ADA) for _ in range(5)))
    assert all(waits)
    assert away.asked == 3


async def test_that_the_database_does_not_answer_is_said_once_and_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reach_module, "PATIENCE_SECONDS", 0.01)
    away = Away()
    away.hangs = True
    reach = Reach(away, lambda: 0.0)

    async def ask() -> None:
        async with reach.transaction(1):
            raise AssertionError("it does not answer")

    told = await asyncio.gather(*(ask() for _ in range(5)), return_exceptions=True)
    assert [type(one) for one in told] == [TimeoutError] * 5
    [record] = caplog.records
    assert record.getMessage().endswith("is not asked for a while: not in time")
