"""kill -9 while cases open cases that wait for messages: each is opened and told of once, each message taken once."""

from __future__ import annotations

import random
import signal
from typing import Any

import asyncpg
import invariants
from eventually import eventually
from processes import program

from circuit import Circuit
from circuit.engine.audit import deployment
from circuit.engine.connecting import connected
from circuit.security.principal import LOCAL

CASES = 8
PARENT = """
workflow: order
places: [open, done]
transitions:
  check:
    from_places: open
    to_place: done
    action:
      {type: subworkflow, workflow: credit, input_mapping: {id: data.id}, output_mapping: {data.score: score}}
"""
CHILD = """
workflow: credit
places: [asked, known]
transitions:
  know:
    from_places: asked
    to_place: known
    trigger: {type: message, message: scored, correlate: data.id}
    output_mapping: {data.score: message.score}
"""


async def send(circuit: Circuit, number: int) -> None:
    await circuit.messages.send(
        "scored", {"score": number}, principal=LOCAL, key=[number], delivery_id=str(number), wait_seconds=0
    )


async def test_kills_lose_no_child_and_no_message_and_double_none(database_url: str) -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    plain = await asyncpg.connect(database_url)

    async def completed() -> bool:
        found = await plain.fetch('SELECT status FROM circuit."case"')
        return [row["status"] for row in found] == ["completed"] * (2 * CASES)

    async with Circuit.open(database_url, worker=False) as circuit:
        await circuit.load(CHILD)
        await circuit.load(PARENT)
        # Half of the messages come before anyone waits for them, and all of them come twice.
        for number in range(0, CASES, 2):
            await send(circuit, number)
        cases = [await circuit.start("order", {"id": number}) for number in range(CASES)]
        for point in ("before_commit", "after_commit", None, None):
            arguments = ("--point", point) if point is not None else ()
            async with program("--url", database_url, *arguments, "work") as dying:
                assert await dying.says("working") is not None
                if point is not None:
                    assert await dying.ended() == -signal.SIGKILL
                    continue
                await send(circuit, rng.randrange(CASES))
                if await dying.ended(rng.uniform(0, 0.3)) is None:
                    await dying.kill()
        async with program("--url", database_url, "work"):
            for number in range(CASES):
                await send(circuit, number)
            await eventually(completed, within=120, what=f"seed {seed}: the end of all cases")
        scores = [(await circuit.case(case)).tokens[0].data["score"] for case in cases]
        assert scores == list(range(CASES)), f"seed {seed}"
        async with connected(circuit.database) as connection:
            faults, _ = await deployment.check(connection)
        assert [fault.message for fault in faults if fault.table in ("case", "firing")] == []
    counts: Any = await plain.fetchrow(
        'SELECT (SELECT count(DISTINCT parent_case) FROM circuit."case") AS parents,'
        " (SELECT count(*) FROM circuit.history WHERE kind = 'message_taken') AS taken,"
        " (SELECT count(*) FROM circuit.command WHERE kind = 'child_ended' AND state = 'applied') AS told,"
        " (SELECT count(*) FROM circuit.awaited_message) AS awaited"
    )
    assert tuple(counts) == (CASES, CASES, CASES, 0), f"seed {seed}"
    await plain.close()
    await invariants.check(database_url)
