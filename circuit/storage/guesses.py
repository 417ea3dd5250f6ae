"""The wrong credentials of each address, over all processes.

What is noted is noted in a transaction of the deployment (`Database.transaction(DEPLOYMENT)`), for nobody who guesses
belongs to a tenant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.storage.driver import Connection
from circuit.storage.tables import wrong_credential

_SWEEP = "DELETE FROM circuit.wrong_credential WHERE forgotten_at < clock_timestamp()"


@dataclass(frozen=True, slots=True)
class Wrongs:
    """How many credentials of an address were wrong, for how many seconds it waits, and in how many it begins anew."""

    wrong: int
    wait: float
    forgotten: float


async def look(conn: AsyncConnection, address: str, free: int, claim: float) -> Wrongs | None:
    """What is known of an address. Beyond `free` wrong ones, of those that look when the wait is over one finds that it
    is; the others are to wait `claim` seconds more, for what that one shows may be wrong too."""
    table = wrong_credential.c
    now = func.clock_timestamp()
    found = (
        await conn.execute(
            select(table.wrong, table.until, table.forgotten_at, now.label("now"))
            .where(table.address == address, table.forgotten_at > now)
            .with_for_update()
        )
    ).one_or_none()
    if found is None:
        return None
    wait = max(0.0, (found.until - found.now).total_seconds())
    if not wait and found.wrong >= free:
        until = found.now + timedelta(seconds=claim)
        await conn.execute(update(wrong_credential).where(table.address == address).values(until=until))
    return Wrongs(found.wrong, wait, (found.forgotten_at - found.now).total_seconds())


async def add(conn: AsyncConnection, address: str, wait: Callable[[int], float], forget: float) -> Wrongs:
    """One more wrong credential of an address, which now waits as long as `wait` says of so many, and is forgotten
    `forget` seconds later."""
    table = wrong_credential.c
    now = func.clock_timestamp()
    fresh = insert(wrong_credential).values(address=address, wrong=0, until=now, forgotten_at=now)
    held = fresh.on_conflict_do_update(index_elements=["address"], set_={"wrong": table.wrong})
    found = (await conn.execute(held.returning(table.wrong, table.forgotten_at, now.label("now")))).one()
    wrong = 1 + (found.wrong if found.forgotten_at > found.now else 0)
    until = found.now + timedelta(seconds=wait(wrong))
    changed = update(wrong_credential).where(table.address == address)
    await conn.execute(changed.values(wrong=wrong, until=until, forgotten_at=until + timedelta(seconds=forget)))
    return Wrongs(wrong, wait(wrong), wait(wrong) + forget)


async def sweep(connection: Connection) -> None:
    """Forget the addresses that begin anew; under the engine's role."""
    await connection.execute(_SWEEP)
