"""`circuit streams`: compacted by hand, counted before, listed after."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg

from tests.cli.commanding import Command, scripted_workflow


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
    for span in ("1", "-1d", "0h", "1y", ""):
        outcome = circuit("streams", "compact", f"--older-than={span}")
        assert outcome.code == 2 and "is no span; write 1h, 7d or 4w" in outcome.err, outcome
    assert circuit("streams", "compact").code == 2
