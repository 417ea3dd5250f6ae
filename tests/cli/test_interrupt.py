"""What a run looks like on a terminal, and what becomes of it when it is stopped in the middle."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from provider_shapes import stream_bytes

from tests.cli.commanding import Chat, Command, Spawn, environment, scripted_workflow
from tests.forked import Forked, command

SECONDS = 120
STOPPED = {"text": "one two", "gate": 0}, {"text": "one two"}
"""What is asked first waits for its answer, for as long as it takes to interrupt it; who asks again is answered."""


@pytest.fixture
def chat() -> Iterator[Chat]:
    """A model whose first answer waits."""
    found = Chat(*STOPPED)
    yield found
    found.end()


def case_in(output: bytes) -> str:
    found = re.search(rb"^case ([0-9a-f-]{36}) ", output, re.MULTILINE)
    assert found, output.decode()
    return found.group(1).decode()


def on_a_terminal(
    arguments: list[str], variables: dict[str, str], seen: bytes, then: Callable[[], None]
) -> tuple[int, str]:
    """Run the command on a pseudo-terminal; its exit code and all that it wrote there. When something is `seen` there,
    `then` is done."""
    master, slave = pty.openpty()
    size = {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    process = Forked(
        command, *arguments, standard=(slave, slave, slave), environment=environment({**variables, **size})
    )
    process.start()
    os.close(slave)
    written = b""
    deadline = time.monotonic() + SECONDS
    try:
        while time.monotonic() < deadline:
            if select.select([master], [], [], 1)[0]:
                try:
                    piece = os.read(master, 65536)
                except OSError:  # the other end is closed
                    break
                if not piece:
                    break
                before, written = written, written + piece
                if seen in written and seen not in before:
                    then()
    finally:
        code = process.wait(max(1.0, deadline - time.monotonic()))
        process.signal(signal.SIGKILL)
        os.close(master)
    assert code is not None, f"it never ended:\n{written.decode()}"
    return code, written.decode("utf-8", "replace")


def test_on_a_terminal_the_text_is_drawn_while_it_comes(database_url: str, tmp_path: Path) -> None:
    reply: dict[str, Any] = {"text": "alpha beta \x1b]0;owned\x07 gamma"}
    body = stream_bytes(reply)
    chat = Chat({**reply, "gate": body.index(b"\n\n", body.index(b"alpha")) + 2})
    try:
        code, written = on_a_terminal(
            ["run", str(chat.workflow(tmp_path))], {"CIRCUIT_DATABASE_URL": database_url}, b"alpha", chat.release
        )
    finally:
        chat.end()
    assert code == 0, written
    assert "\x1b[" in written, "nothing was drawn"
    assert "\x1b]" not in written and "\x07" not in written, "what the model said reached the terminal raw"
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    assert re.search(r"write: .*|write ─", plain), "the panel of the agent is missing"
    assert "write | alpha beta" in plain
    shown = re.findall(r"│ (alph[^│]*)│", plain)
    assert any("gamma" not in text for text in shown), "the answer was not shown before it was whole"
    assert "write fired: submitted -> done" in plain
    assert "completed: 1 token in done" in plain
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l"), "the cursor is left hidden"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interrupted_run_says_how_to_go_on_and_goes_on(
    circuit: Command,
    spawned: Spawn,
    chat: Chat,
    database_url: str,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    running = spawned("run", chat.workflow(tmp_path), CIRCUIT_DATABASE_URL=database_url)
    output = running.read_until(b"begins")
    chat.at_gate()
    running.signal(number)
    rest = running.rest()
    assert running.status == 128 + number
    case = case_in(output)
    assert f"circuit run --resume {case}" in rest.decode()
    assert "Traceback" not in rest.decode()
    shown = circuit("show", case, "--json").json
    assert shown["status"] == "running"
    resumed = circuit("run", "--resume", case, "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.json["status"] == "completed"
    kinds = [event["kind"] for event in resumed.json["history"]]
    assert kinds.count("transition_fired") == 1
    assert "firing_resumed" in kinds


def test_an_interrupted_run_with_json_prints_one_object(
    spawned: Spawn, chat: Chat, database_url: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    running = spawned("run", chat.workflow(tmp_path), "--json", out=out, CIRCUIT_DATABASE_URL=database_url)
    running.read_until(b"begins")
    running.signal(signal.SIGINT)
    running.rest()
    error = orjson.loads(out.read_text())["error"]
    assert error["code"] == "interrupted"
    assert error["details"]["case_id"]


def test_a_killed_run_is_taken_over_by_a_resume(
    circuit: Command, spawned: Spawn, chat: Chat, database_url: str, tmp_path: Path
) -> None:
    running = spawned("run", chat.workflow(tmp_path), CIRCUIT_DATABASE_URL=database_url)
    case = case_in(running.read_until(b"begins"))
    chat.at_gate()
    running.cut()
    resumed = circuit("run", "--resume", case, "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.json["tokens"][0]["data"]["text"].startswith("one two")


def test_a_case_that_another_process_has_is_followed(
    circuit: Command, spawned: Spawn, chat: Chat, database_url: str, tmp_path: Path
) -> None:
    running = spawned("run", chat.workflow(tmp_path), CIRCUIT_DATABASE_URL=database_url)
    case = case_in(running.read_until(b"begins"))
    chat.at_gate()
    following = spawned("run", "--resume", case, CIRCUIT_DATABASE_URL=database_url)
    following.read_until(b"begins")
    chat.release()
    followed = following.rest()
    assert following.status == 0, followed
    assert b"write fired: submitted -> done" in followed
    running.rest()
    assert running.status == 0
    kinds = [event["kind"] for event in circuit("show", case, "--json").json["history"]]
    assert kinds == ["case_started", "firing_begun", "transition_fired", "case_ended"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_worker_works_and_ends_cleanly(
    circuit: Command,
    spawned: Spawn,
    chat: Chat,
    database_url: str,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    running = spawned("run", chat.workflow(tmp_path), CIRCUIT_DATABASE_URL=database_url)
    case = case_in(running.read_until(b"begins"))
    chat.at_gate()
    running.cut()
    worker = spawned("worker", CIRCUIT_DATABASE_URL=database_url)
    worker.read_until(b"circuit worker is ready")
    followed = circuit("run", "--resume", case)
    assert followed.code == 0, followed.err
    worker.signal(number)
    rest = worker.rest()
    assert worker.status == 0, rest.decode()
    assert b"Traceback" not in rest


def test_a_server_serves_works_and_ends_cleanly(
    circuit: Command, spawned: Spawn, database_url: str, tmp_path: Path
) -> None:
    server = spawned("serve", "--port", "0", CIRCUIT_DATABASE_URL=database_url)
    ready = server.read_until(b"circuit serve is ready at")
    url = ready.split()[-1].decode()
    assert httpx.get(f"{url}/health").json()["status"] == "ok"
    assert circuit("load", scripted_workflow(tmp_path)).code == 0
    query = 'mutation { startCase(workflowId: "story") { caseId } }'
    answer = httpx.post(f"{url}/graphql", json={"query": query}).json()
    assert "errors" not in answer, answer
    case = answer["data"]["startCase"]["caseId"]
    followed = circuit("run", "--resume", case, "--json")
    assert followed.code == 0, followed.err
    frames = httpx.get(f"{url}/agent-stream/{case}.1", headers={"accept": "text/event-stream"}).text
    assert '"eventType":"completed"' in frames
    busy = circuit("serve", "--port", url.rpartition(":")[2])
    assert busy.code == 2
    assert "in use" in busy.err
    server.signal(signal.SIGTERM)
    rest = server.rest()
    assert server.status == 0, rest.decode()
    assert b"Traceback" not in rest
