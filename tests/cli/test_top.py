"""`circuit top`: one look at a deployment, for people and for programs."""

from __future__ import annotations

import io
import json
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from rich.console import Console

from circuit.cli.top import OTHER_LINES, _picture
from circuit.engine.fleet import WorkerState, WorkerView
from circuit.engine.overview import Glance
from circuit.storage import schema
from circuit.storage.fleet import WorkerRow
from circuit.storage.overview import Recent, Written
from circuit.storage.waiting import Queue
from tests.cli.commanding import Command, Spawn, scripted_workflow
from tests.postgres import Server


def test_a_look_counts_what_is_there(circuit: Command, tmp_path: Path) -> None:
    file = scripted_workflow(tmp_path)
    for _ in range(2):
        assert circuit("run", file, "--json").code == 0
    assert circuit("load", file).code == 0
    looked = circuit("top", "--once", "--json", "--every", "0.1")
    assert looked.code == 0, looked.err
    shown = json.loads(looked.out)
    assert shown["cases"] == {"completed": 2}
    assert shown["executions"] == {"completed": 2}
    assert shown["tokens"] > 0
    assert shown["queue"] == {"cases": 0, "oldest_seconds": 0.0}
    assert shown["events_per_second"] >= 0
    assert shown["workers"] == []
    printed = circuit("top", "--once", "--every", "0.1", "--window", "10m")
    assert printed.code == 0, printed.err
    assert "2 completed" in printed.out
    assert "cases of the last 10m" in printed.out
    for wrong in ("soon", "0s", "-1h", "9999d"):
        refused = circuit("top", "--once", "--window", wrong)
        assert refused.code == 2
        assert "--window" in refused.err


FIGURES = 8
"""Lines of a look before its workers, where nothing is folded."""


def glance(states: dict[int, WorkerState], count: int) -> Glance:
    """A look at so many workers, each with as many cases as its number; all but some are alive."""
    now = datetime(2026, 11, 27, tzinfo=UTC)
    workers = [
        WorkerView(
            WorkerRow(
                id=UUID(int=number << 96),
                host=f"host-{number}",
                boot_id="boot",
                pid=number,
                pid_started=1.5,
                pools=("default",),
                started_at=now,
                now=now,
                expires_at=None,
                leased=True,
                fenced=False,
                retired_at=None,
                draining=False,
                cases=number,
                executions=0,
            ),
            states.get(number, WorkerState.ALIVE),
        )
        for number in range(count)
    ]
    return Glance(0.0, timedelta(hours=1), Queue(0, 0.0, count), workers, Written(0, 0), Recent())


def test_of_many_workers_those_are_shown_that_matter() -> None:
    looked = glance({3: WorkerState.DEAD, 7: WorkerState.DRAINING}, 300)
    for lines in (30, None):
        printed = shown(looked, 100, lines)
        hosts = [line.split()[2] for line in printed.splitlines() if "host-" in line]
        assert "1 dead, 1 draining" in printed and "298 alive" in printed
        assert hosts[:3] == ["host-7", "host-3", "host-299"], "not well, then busy"
        if lines is None:
            assert len(hosts) == 300 and "more" not in printed
        else:
            assert len(printed.splitlines()) <= lines
            left = 300 - (lines - FIGURES - OTHER_LINES - 1)
            assert f"{left} more" in printed and len(hosts) + left == 300
    assert "It is away.\\x1b[2J" in shown(looked, 100, 5, trouble="It is away.\x1b[2J")


def test_a_narrow_terminal_leaves_out_what_matters_least() -> None:
    looked = glance({3: WorkerState.DEAD, 7: WorkerState.DRAINING}, 30)
    told = {"worker", "state", "host", "pid", "pools", "cases", "lease"}
    for width, spared in ((200, set[str]()), (80, set[str]()), (40, {"pid", "pools"}), (32, {"host", "pid", "pools"})):
        lines = shown(looked, width, 24).splitlines()
        head = next(line for line in lines if line.startswith("worker "))
        [first, *_] = rows = [line for line in lines if line.startswith("0000")]
        assert set(head.split()) == told - spared
        assert first.split()[:2] == ["00000007", "draining"] and all("…" not in row for row in rows)
        assert all(len(line) <= width for line in lines) and len(lines) <= 24
        assert any(line.startswith(f"{30 - len(rows)} more") for line in lines)


def shown(looked: Glance, width: int, height: int | None, trouble: str = "") -> str:
    """A look as a terminal of this size has it, or all of it."""
    file = io.StringIO()
    console = Console(file=file, width=width, height=height)
    console.print(_picture(looked, None, "1h", console, whole=height is None, trouble=trouble))
    return file.getvalue()


async def test_it_goes_on_when_the_database_is_back(own_server: Server, spawned: Spawn) -> None:
    await schema.upgrade(own_server.url())
    process = spawned("top", "--json", "--every", "0.1", CIRCUIT_DATABASE_URL=own_server.url())
    process.read_until(b'"queue"')
    own_server.stop()
    process.read_until(b"Looking again.")
    own_server.start()
    assert b"Traceback" not in process.read_until(b'"queue"')
    process.signal(signal.SIGINT)
    process.rest()
    assert process.status == 130
