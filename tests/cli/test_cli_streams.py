"""`circuit streams`: compacted by hand, counted before, listed after. `circuit executions read`: what was said."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import orjson

from circuit.app import Circuit
from circuit.ids import uuid7
from circuit.storage import partitions
from tests.cli.commanding import Chat, Command, Spawn, scripted_workflow


async def age(url: str) -> None:
    """What has ended, ended ninety minutes ago (past the trigger that refuses it)."""
    connection = await asyncpg.connect(url)
    await connection.execute("SET session_replication_role = replica")
    await connection.execute("UPDATE circuit.execution SET finished_at = finished_at - interval '90 minutes'")
    await connection.close()


def test_streams_from_the_command_line(circuit: Command, database_url: str, tmp_path: Path) -> None:
    assert circuit("streams", "compact", "--older-than", "1m").out == "nothing is left to compact\n"
    assert circuit("streams", "list").out == "no stream was compacted\n"
    ran = circuit("run", scripted_workflow(tmp_path, delay=0.05), "--json")
    assert ran.code == 0, ran
    assert circuit("streams", "compact", "--older-than", "1h", "--json").json["frames_gone"] == 0
    execution = f"{ran.json['case_id']}.1"
    told = f"execution {execution} of write is completed\nwrite | Once upon a time\nwrite completed\n"
    for more in ([], ["--follow"]):
        assert circuit("executions", "read", execution, *more).out == told
    frames = [orjson.loads(line) for line in circuit("executions", "read", execution, "--json").out.splitlines()]
    assert "".join(frame.get("content", "") for frame in frames) == "Once upon a time"
    assert [frame["cursor"] for frame in frames][-1] == f"1-{len(frames)}" and frames[-1]["eventType"] == "completed"
    asyncio.run(age(database_url))
    planned = circuit("streams", "compact", "--older-than", "1h", "--dry-run", "--json").json
    assert planned["dry_run"] and planned["executions"] == 1 and planned["frames_gone"] >= 1
    assert "would go" in circuit("streams", "compact", "--older-than", "1h", "--dry-run").out
    done = circuit("streams", "compact", "--older-than", "1h", "--json")
    assert done.json == {**planned, "dry_run": False} and "frames go, with" in done.err
    assert circuit("streams", "compact", "--older-than", "1h").out == "nothing is left to compact\n"
    [week] = circuit("streams", "list", "--json").json
    assert (week["state"], week["frames_gone"]) == ("open", planned["frames_gone"])
    assert week["week"] in circuit("streams", "list").out
    assert circuit("fsck", "--json").json["clean"]
    # What was compacted reads the same, from the middle of what is one piece now, too.
    assert circuit("executions", "read", execution).out == told
    behind = circuit("executions", "read", execution, "--after", "1-1").out
    assert behind.splitlines()[1] == f"write | {'Once upon a time'.removeprefix(frames[0]['content'])}".rstrip()
    over = circuit("executions", "read", execution, "--after", f"1-{len(frames)}", "--json")
    assert (over.code, over.out, over.err) == (0, "", "")
    for wrong, said in (
        ([execution, "--after", "x"], "'x' is no cursor"),
        ([f"{ran.json['case_id']}.9"], "there is no execution"),
        (["nonsense"], "is not the id of an execution"),
    ):
        outcome = circuit("executions", "read", *wrong)
        assert outcome.code == 2 and said in outcome.err, outcome
    for span in ("1", "-1d", "0h", "1y", ""):
        outcome = circuit("streams", "compact", f"--older-than={span}")
        assert outcome.code == 2 and "is no span; write 1h, 7d or 4w" in outcome.err, outcome
    assert circuit("streams", "compact").code == 2


def test_an_execution_is_read_while_it_runs(
    circuit: Command, spawned: Spawn, database_url: str, tmp_path: Path
) -> None:
    chat = Chat({"text": "one two", "gate": 0})
    try:
        running = spawned("run", chat.workflow(tmp_path), CIRCUIT_DATABASE_URL=database_url)
        begun = running.read_until(b"begins (execution ").decode()
        execution = begun.rpartition("(execution ")[2].rstrip().removesuffix(")")
        chat.at_gate()
        read = circuit("executions", "read", execution)
        assert (read.code, read.out) == (0, f"execution {execution} of write is running\n")
        assert read.err == f"the execution is not over; go on with: circuit executions read {execution} --follow\n"
        following = spawned("executions", "read", execution, "--follow", CIRCUIT_DATABASE_URL=database_url)
        following.read_until(b" is running")
        chat.release()
        assert following.rest().decode().splitlines() == ["write | one two", "write completed"]
        running.rest()
    finally:
        chat.end()


class OldIds:
    """Ids of cases that were born ten weeks ago."""

    def __init__(self) -> None:
        self._born = partitions.week_of(datetime.now(UTC) - timedelta(weeks=10)).lower.int >> 80
        self._numbers = itertools.count(1)

    def uuid(self) -> UUID:
        number = next(self._numbers)
        return uuid7(self._born + number, number)


async def old_case(url: str, file: Path) -> str:
    """A case that was born ten weeks ago and ended nine weeks ago."""
    async with Circuit.open(url) as circuit:
        connection = await circuit.database.raw()
        await partitions.ensure(connection, datetime.now(UTC) - timedelta(weeks=10))
        circuit.commands._ids = OldIds()
        workflow = await circuit.load(file)
        case = await circuit.start(workflow.id)
        await circuit.wait(case)
        await connection.close()
    plain = await asyncpg.connect(url)
    await plain.execute("SET session_replication_role = replica")
    await plain.execute("UPDATE circuit.\"case\" SET finished_at = finished_at - interval '9 weeks'")
    await plain.close()
    return case


def test_what_an_archived_execution_said_is_read_from_its_week(
    circuit: Command, database_url: str, tmp_path: Path
) -> None:
    case = asyncio.run(old_case(database_url, scripted_workflow(tmp_path)))
    shelf = tmp_path / "shelf"
    circuit("executions", "read", f"{case}.1", "--json", CIRCUIT_ARCHIVE_DIR=str(shelf))
    before = [circuit("executions", "read", f"{case}.1", *more).out for more in ([], ["--json"], ["--after", "1-2"])]
    archived = circuit("archive", "--older-than", "6w", "--json", CIRCUIT_ARCHIVE_DIR=str(shelf))
    assert archived.code == 0 and [week["cases"] for week in archived.json["done"]] == [1], archived
    after = [circuit("executions", "read", f"{case}.1", *more).out for more in ([], ["--json"], ["--after", "1-2"])]
    assert after == before and "Once upon a time" in after[0]
    assert f"it is archived in {shelf}" in circuit("executions", "read", f"{case}.1").err
    # Of an archived case only what it ran is there, and where the files are somewhere else, that is said.
    assert "there is no execution" in circuit("executions", "read", f"{case}.7").err
    shelf.rename(tmp_path / "elsewhere")
    away = circuit("executions", "read", f"{case}.1")
    assert away.code == 2 and "which is not here: say in CIRCUIT_ARCHIVE_DIR" in away.err
    assert circuit("executions", "read", f"{case}.1", CIRCUIT_ARCHIVE_DIR=str(tmp_path / "elsewhere")).out == before[0]
