"""Poison tokens: each is found out and goes where failures go; the work beside it is done as if it were not there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from circuit.app import Circuit
from circuit.definition import load_workflow
from tests import invariants
from tests.chaos import nets
from tests.chaos.fleet import Fleet
from tests.chaos.poison import KINDS
from tests.chat_server import ChatServer
from tests.eventually import eventually

WORKERS = 2
HEALTHY = 6
DEADLINE_SECONDS = 240.0


@pytest.fixture
async def fleet(database_url: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    fleet = Fleet(database_url, tmp_path)
    yield fleet
    await fleet.end()


async def supervised(fleet: Fleet) -> None:
    """What any supervisor does: a process that has ended is started again. One that is stuck for ever ends itself."""
    while True:
        fleet.forget()
        while len(fleet.living) < WORKERS:
            await fleet.add(poisonous=True)
        await asyncio.sleep(0.2)


async def test_poison_is_found_and_its_neighbours_are_not_punished(fleet: Fleet, database_url: str) -> None:
    plain: Any = await asyncpg.connect(database_url)
    async with ChatServer([{"text": "All is well."}]) as chat, Circuit.open(database_url, worker=False) as client:
        net = nets.poisoned(chat.url)
        await client.publish(load_workflow(nets.text(net), "poisoned.json"))
        healthy = [await client.start("poisoned", {"n": number}) for number in range(HEALTHY)]
        poisoned = {kind: await client.start("poisoned", {"poison": kind}) for kind in KINDS}
        watching = asyncio.create_task(supervised(fleet))
        try:

            async def all_over() -> bool:
                rows = await plain.fetch('SELECT status, count(*) AS count FROM circuit."case" GROUP BY status')
                return {row["status"]: row["count"] for row in rows} == {"completed": HEALTHY + len(KINDS)}

            await eventually(all_over, within=DEADLINE_SECONDS, what="the end of all cases")
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
        places = {
            row["id"]: row["place"] for row in await plain.fetch("SELECT case_id::text AS id, place FROM circuit.token")
        }
        errors = {
            row["id"]: row["code"]
            for row in await plain.fetch(
                "SELECT case_id::text AS id, error->>'code' AS code FROM circuit.firing WHERE state = 'failed'"
            )
        }
    await plain.close()
    assert [places[case] for case in healthy] == ["done"] * HEALTHY
    ends = {kind: (places[case], errors.get(case)) for kind, case in poisoned.items()}
    assert ends == {
        "raises": ("gone", "action_failed"),
        "raises_what_nobody_expects": ("gone", "action_failed"),
        "ends_the_process": ("gone", "crashed"),
        "never_lets_go": ("gone", "crashed"),
        "blocks_the_loop": ("gone", "crashed"),
        "never_ends": ("gone", "timeout"),
        # Late as it is, what it came to is there, and counts.
        "does_not_heed_a_cancel": ("done", None),
        "says_a_hundred_megabytes": ("gone", "invalid_output"),
        "says_nul": ("gone", "invalid_output"),
        "says_half_a_character": ("gone", "invalid_output"),
        "nests_deeply": ("gone", "invalid_output"),
        "returns_what_is_no_json": ("gone", "invalid_output"),
        "returns_nothing": ("gone", "invalid_output"),
    }
    await invariants.check(database_url)
