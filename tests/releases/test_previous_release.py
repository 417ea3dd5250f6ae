"""The previous release's worker works on while the database is upgraded under it, and beside the present one."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import asyncpg
import invariants
import pytest
from eventually import eventually

from circuit.app import Circuit
from circuit.engine.audit.inspection import inspect_at
from circuit.settings import Settings
from circuit.storage import schema
from tests.chaos.processes import WORKFLOW
from tests.chat_server import ChatServer
from tests.cli.commanding import scripted_workflow
from tests.releases.previous import Release, in_history, lay_out, newest

TAG, COMMIT = newest()
LARGE = "a document of some length " * 500


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Release:
    if not in_history(COMMIT):
        pytest.skip(f"needs the commit of {TAG} ({COMMIT[:7]}): git fetch --unshallow")
    return Release(lay_out(COMMIT, tmp_path_factory.mktemp("previous")))


async def owners(url: str) -> set[int]:
    """The processes of the workers that own cases now."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            'SELECT DISTINCT w.pid FROM circuit."case" c JOIN circuit.worker w ON w.id = c.owner'
        )
    finally:
        await connection.close()
    return {row["pid"] for row in rows}


async def count(url: str, table: str) -> int:
    """How many rows a table has."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(f"SELECT count(*) FROM circuit.{table}")
    finally:
        await connection.close()


async def test_both_releases_work_on_one_database(previous: Release, empty_database_url: str, tmp_path: Path) -> None:
    url = empty_database_url
    code, said = await previous.circuit("db", "upgrade", url=url)
    assert code == 0, said
    settings = Settings.from_environment({"CIRCUIT_LEASE_SECONDS": "1"})
    file = scripted_workflow(tmp_path, delay=0.1)
    async with previous.worker(url) as old:
        # The upgrade comes while the old worker has cases.
        code, said = await previous.circuit("load", str(file), url=url)
        assert code == 0, said
        assert (await schema.upgrade(url)).state == "current"
        async with Circuit.open(url, settings=settings, worker=False) as starter:
            # It takes every case, and would take a reference to a large value for data: so there are none.
            alone = [await starter.start("story", {"content": LARGE * number}) for number in range(5)]
            ended = [await starter.wait(case) for case in alone]
            assert {case.status for case in ended} == {"completed"}
            assert [case.tokens[0].data["content"] for case in ended] == [LARGE * number for number in range(5)]
        assert await count(url, "artefact") == 0
        few = replace(settings, max_concurrent_executions=4)
        # No model answers before both have cases: whoever has one keeps it until then.
        async with ChatServer([{"text": "All is well.", "gate": 0}]) as chat, Circuit.open(url, settings=few) as new:
            await new.load(WORKFLOW.format(url=chat.url))
            both: list[str] = []

            async def both_have_some() -> bool:
                both.append(await new.start("two-steps"))
                return {old.pid, os.getpid()} <= await owners(url)

            await eventually(both_have_some, what="both releases at work")
            # What the old one has when it is killed is the new one's to end.
            old.kill()
            chat.release()
            assert {(await new.wait(case)).status for case in both} == {"completed"}
    await invariants.check(url)
    report = await inspect_at(url)
    assert report.clean and report.cases == 5 + len(both), report.as_dict()


async def test_what_the_present_release_was_doing_the_previous_one_can_go_on_with(
    previous: Release, empty_database_url: str, tmp_path: Path
) -> None:
    """A release that is rolled back: cases begun by the newer one are ended by the older one."""
    url = empty_database_url
    await previous.circuit("db", "upgrade", url=url)
    settings = Settings.from_environment({"CIRCUIT_LEASE_SECONDS": "1"})
    async with previous.worker(url):
        await schema.upgrade(url)
        async with Circuit.open(url, settings=settings) as new:
            await new.load(scripted_workflow(tmp_path, delay=0.2))
            cases = [await new.start("story", {"content": str(number)}) for number in range(10)]
        async with Circuit.open(url, settings=settings, worker=False) as reader:
            await asyncio.gather(*(reader.wait(case) for case in cases))
            assert {(await reader.case(case)).status for case in cases} == {"completed"}
    await invariants.check(url)


# -- which releases a database lets in --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("current", "floor", "state"),
    [
        ([], None, "empty"),
        (["0001"], "0001", "behind"),
        (["0002"], "0001", "current"),
        (["0007"], "0001", "compatible"),
        (["0007"], "0002", "compatible"),
        (["0007"], "0005", "ahead"),
        (["0007"], None, "ahead"),
    ],
)
def test_a_database_of_a_newer_release_says_who_may_work_on_it(
    current: list[str], floor: str | None, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "known", lambda: (frozenset({"0001", "0002"}), ("0002",)))
    assert schema.judge(current, floor).state == state
