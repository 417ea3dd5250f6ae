"""The half of the fault programme about the database, the way to it, and clients, as far as it fits into a minute.

A failure names its seed; `CIRCUIT_CHAOS_SEED` draws the same cases, readers and faults again.
"""

from __future__ import annotations

from tests.chaos.programme import all_rounds


async def test_every_promise_holds_whatever_happens_to_the_database() -> None:
    await all_rounds("database", "clients")
