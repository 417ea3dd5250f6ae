"""Starts of agents are limited over all processes of a database."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from circuit.engine.rates import DRAWN_SECONDS, StartRates
from circuit.errors import TooManyRequests
from circuit.security.principal import Principal
from circuit.security.rates import Rate
from circuit.storage.database import POOL_OVERFLOW, POOL_SIZE, Database

ADA, EVE = Principal("ada"), Principal("eve")


async def granted(rates: StartRates, principal: Principal, times: int) -> int:
    outcomes = await asyncio.gather(*(rates.check(principal) for _ in range(times)), return_exceptions=True)
    refused = [one for one in outcomes if one is not None]
    assert all(isinstance(one, TooManyRequests) and 0 < (one.retry_after or 0) <= 61 for one in refused), refused
    return times - len(refused)


async def test_two_processes_start_no_more_than_one_may(database: Database) -> None:
    now = 0.0
    # One a minute: nothing comes while the test runs.
    first, second = (StartRates(database, Rate(1, 8), lambda: now) for _ in range(2))
    assert await granted(first, ADA, 5) + await granted(second, ADA, 5) == 8
    # Another principal, and one of the same name in another tenant, have buckets of their own.
    assert await granted(second, EVE, 1) == 1
    assert await granted(first, Principal("ada", 2), 10) == 8
    with pytest.raises(TooManyRequests, match="RATE_LIMIT_PER_MINUTE"):
        await first.check(ADA)


async def test_what_one_process_has_drawn_is_not_missing_at_another(database: Database) -> None:
    # A second's worth is three, of four in the bucket: whoever asks each of four processes once gets it.
    servers = [StartRates(database, Rate(180, 16), lambda: 0.0) for _ in range(16)]
    assert [await granted(server, ADA, 1) for server in servers] == [1] * 16
    # A busy one draws ahead, and at most half of what it has let through lies unused there.
    busy, other = (StartRates(database, Rate(1, 300), lambda: 0.0) for _ in range(2))
    assert await granted(busy, EVE, 100) == 100
    assert 150 <= await granted(other, EVE, 300) <= 200


async def test_a_busy_principal_is_asked_for_in_the_database_once_a_second(database: Database) -> None:
    now, drawn = 0.0, 0
    rates = StartRates(database, Rate(6_000, 800), lambda: now)
    draw = rates._draw

    async def counted(*arguments: object) -> tuple[int, float]:
        nonlocal drawn
        drawn += 1
        return await draw(*arguments)  # type: ignore[arg-type]

    rates._draw = counted  # type: ignore[method-assign]
    assert await granted(rates, ADA, 250) == 250
    begun, drawn = drawn, 0
    assert begun < 20
    assert await granted(rates, ADA, 300) == 300
    assert drawn == 3
    # What was not used in time lapses: it is less that is started, and never more.
    now, drawn = DRAWN_SECONDS + 1, 0
    await rates.check(ADA)
    assert drawn == 1
    # Within a transaction that comes to nothing, nothing was drawn.
    now += DRAWN_SECONDS + 1
    with pytest.raises(ZeroDivisionError):
        async with database.transaction(1) as connection:
            await rates.check(EVE, connection)
            raise ZeroDivisionError
    async with database.transaction(1) as connection:
        await rates.check(EVE, connection)
    assert drawn == 3


async def test_who_has_a_connection_does_not_wait_for_who_wants_one(database: Database) -> None:
    rates = StartRates(database, Rate(1, 8), lambda: 0.0)
    async with AsyncExitStack() as ends:
        held = [await ends.enter_async_context(database.transaction(1)) for _ in range(POOL_SIZE + POOL_OVERFLOW)]
        beside = asyncio.create_task(rates.check(ADA))
        await asyncio.sleep(0)  # it fills from now on, as soon as there is a connection
        async with asyncio.timeout(20):
            await rates.check(ADA, held[0])
    await beside
