"""The half of the fault programme about the database, the way to it, and clients, as far as it fits into a minute."""

from __future__ import annotations

import random

from tests.chaos.faults import rounds
from tests.chaos.programme import one_round
from tests.chaos.stage import Stage


async def test_every_promise_holds_whatever_happens_to_the_database() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    async with Stage.open(seed) as stage:
        for faults in rounds("database", "clients"):
            await one_round(stage, faults)
