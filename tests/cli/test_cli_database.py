"""Databases that are not there, too old, too new, or cannot be written; and the embedded one, which always is."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from postgres import execute, make_folder

from circuit.storage import embedded, schema
from tests.cli.commanding import WORKFLOWS, Command, Spawn, scripted_workflow


@pytest.fixture(scope="module")
def made_home() -> Iterator[Path]:
    """A directory with a migrated embedded database, for tests that leave it as it was."""
    folder = make_folder("circuit-home-")
    embedded.start(folder).stop()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_a_database_that_cannot_be_reached(bare: Command) -> None:
    for command in (["cases"], ["db", "status"], ["db", "upgrade"], ["worker"], ["serve"]):
        outcome = bare(*command)
        assert outcome.code == 1, (command, outcome)
        assert "cannot be reached" in outcome.err
        assert "Traceback" not in outcome.err


def test_an_empty_database_is_brought_up_to_date_by_a_command_and_not_by_itself(
    bare: Command, empty_database_url: str
) -> None:
    for command in (["cases"], ["run", str(WORKFLOWS / "hello.yaml")], ["worker"]):
        outcome = bare(*command, CIRCUIT_DATABASE_URL=empty_database_url)
        assert outcome.code == 1, (command, outcome)
        assert "circuit db upgrade" in outcome.err
    status = bare("db", "status", "--json")
    assert status.code == 1
    assert (status.json["state"], status.json["current"], status.json["embedded"]) == ("empty", None, False)
    assert bare("db", "upgrade").code == 0
    assert bare("db", "upgrade", "--json").json["state"] == "current"
    assert bare("db", "status").code == 0
    assert bare("run", WORKFLOWS / "hello.yaml").code == 0


def test_a_database_of_a_newer_release_is_refused(circuit: Command, database_url: str) -> None:
    asyncio.run(execute(database_url, "UPDATE circuit.alembic_version SET version_num = '9999'"))
    assert circuit("db", "status", "--json").json["state"] == "compatible"
    assert circuit("cases").code == 0
    asyncio.run(execute(database_url, "UPDATE circuit.compatibility SET floor = '9999'"))
    status = circuit("db", "status", "--json")
    assert status.code == 1
    assert status.json["state"] == "ahead"
    for command in (["cases"], ["db", "upgrade"], ["worker"], ["serve"]):
        outcome = circuit(*command)
        assert outcome.code == 1, (command, outcome)
        assert "newer release" in outcome.err


def test_a_home_that_cannot_be_written(process: Command, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    outcome = process("cases", CIRCUIT_HOME=str(file))
    assert outcome.code == 2, outcome
    assert str(file) in outcome.err and "CIRCUIT_HOME" in outcome.err
    outcome = process("run", WORKFLOWS / "hello.yaml", "--json", CIRCUIT_HOME="/proc/circuit")
    assert outcome.code == 2
    assert outcome.json["error"]["code"] == "home_not_writable"


def test_a_home_that_is_read_only(process: Command, tmp_path: Path) -> None:
    """Root may write into what is read-only, but not into what the kernel makes up."""
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    parent = Path("/sys/kernel") if os.geteuid() == 0 else tmp_path
    outcome = process("cases", "--json", CIRCUIT_HOME=str(parent / "home"))
    assert outcome.code == 2
    assert outcome.json["error"]["code"] == "home_not_writable"


def test_the_embedded_database_is_made_and_kept_and_left(process: Command, home: Path, tmp_path: Path) -> None:
    first = process("run", WORKFLOWS / "hello.yaml", "--json", CIRCUIT_HOME=str(home))
    assert first.code == 0, first.err
    assert "embedded database" in first.err
    assert not list(home.rglob("postmaster.pid")), "the server goes on after the last process has left it"
    status = process("db", "status", "--json", CIRCUIT_HOME=str(home))
    assert status.code == 0
    assert status.json["embedded"] is True
    shown = process("show", first.json["case_id"], "--json", CIRCUIT_HOME=str(home))
    assert shown.json == first.json
    assert "embedded database" not in shown.err


def test_two_runs_at_once_on_a_new_embedded_database(process: Command, home: Path, tmp_path: Path) -> None:
    file = scripted_workflow(tmp_path, delay=0.05)
    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(lambda _: process("run", file, "--json", CIRCUIT_HOME=str(home)), range(3)))
    assert [outcome.code for outcome in outcomes] == [0, 0, 0], [outcome.err for outcome in outcomes]
    assert {outcome.json["status"] for outcome in outcomes} == {"completed"}
    listed = process("cases", "--json", CIRCUIT_HOME=str(home)).json
    assert {case["case_id"] for case in listed} == {outcome.json["case_id"] for outcome in outcomes}


def test_the_embedded_database_of_a_newer_release_is_refused(process: Command, made_home: Path) -> None:
    assert process("db", "upgrade", CIRCUIT_HOME=str(made_home)).code == 0
    server = embedded.start(made_home)
    try:
        newer = "UPDATE circuit.alembic_version SET version_num = '9999'"
        asyncio.run(execute(server.url, newer, "UPDATE circuit.compatibility SET floor = '9999'"))
        assert asyncio.run(schema.status(server.url)).state == "ahead"
        outcome = process("cases", CIRCUIT_HOME=str(made_home))
        head = asyncio.run(schema.status(server.url)).head
        older = f"UPDATE circuit.alembic_version SET version_num = '{head}'"
        asyncio.run(execute(server.url, older, "UPDATE circuit.compatibility SET floor = '0001'"))
    finally:
        server.stop()
    assert outcome.code == 1
    assert "newer release" in outcome.err


def test_a_killed_process_leaves_nothing_behind_that_stops_the_next(
    process: Command, spawned: Spawn, made_home: Path, tmp_path: Path
) -> None:
    assert process("db", "upgrade", CIRCUIT_HOME=str(made_home)).code == 0
    running = spawned("run", scripted_workflow(tmp_path, delay=30), CIRCUIT_HOME=str(made_home))
    case = running.read_until(b"case ").splitlines()[-1].split()[1].decode()
    running.cut()
    shown = process("show", case, "--json", CIRCUIT_HOME=str(made_home))
    assert shown.code == 0, shown.err
    assert shown.json["status"] == "running"
