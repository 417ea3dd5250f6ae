"""How the command is run in tests: in this process, which is quick, or as a process of its own, which is real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from circuit.cli.main import main

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
PROCESS_SECONDS = 120

SCRIPTED = """\
workflow: {workflow}
places:
  submitted: {{initial: true}}
  done: {{terminal: true}}
agents:
  writer:
    llm_provider: {{type: scripted, model: script, responses: {responses}, delay_seconds: {delay}, chunk_size: 4}}
transitions:
  write:
    from_places: [submitted]
    to_place: done
    agent_execution: {{agent_id: writer, output_mapping: {{data.text: text}}, required: true}}
"""


def scripted_workflow(
    folder: Path, *, responses: str = "[Once upon a time]", delay: float = 0.0, name: str = "story"
) -> Path:
    """A workflow of one scripted agent, in a file of its own."""
    file = folder / f"{name}.yaml"
    file.write_text(SCRIPTED.format(workflow=name, responses=responses, delay=delay))
    return file


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of this process without any setting of Circuit or key of a provider, and `extra`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CIRCUIT_", "OPENAI_")) and name not in ("MAX_CONCURRENT_EXECUTIONS", "NO_COLOR")
    }
    return {**kept, **extra}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON value."""
        return orjson.loads(self.out)


Command = Callable[..., Outcome]


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Ends what runs in this thread after so many seconds: a command that waits for ever fails its test."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"the command did not end within {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in this process, with no database: what needs one fails."""
    for name in [name for name in os.environ if name.startswith(("CIRCUIT_", "OPENAI_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CIRCUIT_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/none")

    def run(*arguments: str | Path, **variables: str) -> Outcome:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        capfd.readouterr()
        with limited(PROCESS_SECONDS):
            code = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def circuit(bare: Command, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the command in this process, on a fresh migrated database."""
    monkeypatch.setenv("CIRCUIT_DATABASE_URL", database_url)
    return bare


@pytest.fixture
def process(tmp_path: Path) -> Command:
    """Runs the command as a process of its own, in an empty directory."""

    def run(*arguments: str | Path, stdin: str = "", **variables: str) -> Outcome:
        result = subprocess.run(
            [sys.executable, "-m", "circuit", *(str(argument) for argument in arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            env=environment(variables),
            cwd=tmp_path,
            timeout=PROCESS_SECONDS,
            check=False,
        )
        return Outcome(result.returncode, result.stdout, result.stderr)

    return run


@pytest.fixture
def spawned() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts commands that go on while the test does; those that still run at its end are killed."""
    started: list[subprocess.Popen[bytes]] = []

    def spawn(*arguments: str | Path, **variables: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "circuit", *(str(argument) for argument in arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(variables),
        )
        started.append(process)
        return process

    yield spawn
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
