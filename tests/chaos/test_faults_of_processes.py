"""The half of the fault programme that is about processes, as far as it fits into a minute.

A failure names its seed; `CIRCUIT_CHAOS_SEED` draws the same cases, readers and faults again.
"""

from __future__ import annotations

from tests.chaos.programme import all_rounds


async def test_every_promise_holds_whatever_happens_to_processes() -> None:
    await all_rounds("processes")
