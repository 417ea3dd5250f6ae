"""What a run looks like on a terminal, and what becomes of it when it is stopped in the middle."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import pytest

from tests.cli.commanding import Command, environment, scripted_workflow

SECONDS = 60
SLOW = '["one two"]'
"""Two pieces: with a delay of a second before each, time enough to interrupt the answer, and little to wait for."""


def read_until(process: Popen[bytes], wanted: bytes) -> bytes:
    """What the process prints up to the first line that holds `wanted`."""
    assert process.stdout is not None
    read = b""
    for line in process.stdout:
        read += line
        if wanted in line:
            return read
    raise AssertionError(f"{wanted!r} was never printed:\n{read.decode()}")


def case_in(output: bytes) -> str:
    found = re.search(rb"^case ([0-9a-f-]{36}) ", output, re.MULTILINE)
    assert found, output.decode()
    return found.group(1).decode()


def on_a_terminal(arguments: list[str], variables: dict[str, str]) -> tuple[int, str]:
    """Run the command on a pseudo-terminal; its exit code and all that it wrote there."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "circuit", *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment({**variables, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}),
    )
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
                written += piece
    finally:
        process.kill() if time.monotonic() >= deadline else None
        code = process.wait(SECONDS)
        os.close(master)
    return code, written.decode("utf-8", "replace")


def test_on_a_terminal_the_text_is_drawn_while_it_comes(database_url: str, tmp_path: Path) -> None:
    file = scripted_workflow(tmp_path, responses='["alpha beta \\e]0;owned\\a gamma"]', delay=0.05)
    code, written = on_a_terminal(["run", str(file)], {"CIRCUIT_DATABASE_URL": database_url})
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
    spawned: Callable[..., Popen[bytes]],
    database_url: str,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    file = scripted_workflow(tmp_path, responses=SLOW, delay=1.0)
    running = spawned("run", file, CIRCUIT_DATABASE_URL=database_url)
    output = read_until(running, b"begins")
    begun = time.monotonic()
    running.send_signal(number)
    rest, _ = running.communicate(timeout=SECONDS)
    assert running.returncode == 128 + number
    assert time.monotonic() - begun < 10
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
    spawned: Callable[..., Popen[bytes]], database_url: str, tmp_path: Path
) -> None:
    import orjson

    file = scripted_workflow(tmp_path, responses=SLOW, delay=1.0)
    process = subprocess.Popen(
        [sys.executable, "-m", "circuit", "run", str(file), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment({"CIRCUIT_DATABASE_URL": database_url}),
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if b"begins" in line:
                break
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    error = orjson.loads(out)["error"]
    assert error["code"] == "interrupted"
    assert error["details"]["case_id"]


def test_a_killed_run_is_taken_over_by_a_resume(
    circuit: Command, spawned: Callable[..., Popen[bytes]], database_url: str, tmp_path: Path
) -> None:
    file = scripted_workflow(tmp_path, responses=SLOW, delay=1.0)
    running = spawned("run", file, CIRCUIT_DATABASE_URL=database_url)
    case = case_in(read_until(running, b"begins"))
    running.kill()
    running.wait()
    resumed = circuit("run", "--resume", case, "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.json["tokens"][0]["data"]["text"].startswith("one two")


def test_a_case_that_another_process_has_is_followed(
    circuit: Command, spawned: Callable[..., Popen[bytes]], database_url: str, tmp_path: Path
) -> None:
    file = scripted_workflow(tmp_path, responses=SLOW, delay=1.0)
    running = spawned("run", file, CIRCUIT_DATABASE_URL=database_url)
    case = case_in(read_until(running, b"begins"))
    followed = circuit("run", "--resume", case)
    assert followed.code == 0, followed.err
    assert "write fired: submitted -> done" in followed.out
    running.communicate(timeout=SECONDS)
    assert running.returncode == 0
    kinds = [event["kind"] for event in circuit("show", case, "--json").json["history"]]
    assert kinds == ["case_started", "firing_begun", "transition_fired", "case_ended"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_worker_works_and_ends_cleanly(
    circuit: Command,
    spawned: Callable[..., Popen[bytes]],
    database_url: str,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    file = scripted_workflow(tmp_path, responses=SLOW, delay=1.0)
    running = spawned("run", file, CIRCUIT_DATABASE_URL=database_url)
    case = case_in(read_until(running, b"begins"))
    running.kill()
    running.wait()
    worker = spawned("worker", CIRCUIT_DATABASE_URL=database_url)
    read_until(worker, b"circuit worker is ready")
    followed = circuit("run", "--resume", case)
    assert followed.code == 0, followed.err
    worker.send_signal(number)
    rest, _ = worker.communicate(timeout=SECONDS)
    assert worker.returncode == 0, rest.decode()
    assert b"Traceback" not in rest


def test_a_server_serves_works_and_ends_cleanly(
    circuit: Command, spawned: Callable[..., Popen[bytes]], database_url: str, tmp_path: Path
) -> None:
    import httpx

    server = spawned("serve", "--port", "0", CIRCUIT_DATABASE_URL=database_url)
    ready = read_until(server, b"circuit serve is ready at")
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
    server.send_signal(signal.SIGTERM)
    rest, _ = server.communicate(timeout=SECONDS)
    assert server.returncode == 0, rest.decode()
    assert b"Traceback" not in rest
