"""How the command is run in tests: in this process, which is quick, or as a process of its own, which is real."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from circuit.cli.main import main
from tests.cli.commanding import PROCESS_SECONDS, Command, Outcome, Spawn, Spawned, environment, limited
from tests.forked import command, finished

put_together = functools.cache(typer.main.get_command)
"""The whole command line, put together once for all commands of the tests and not for each of them."""


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in this process, with no database: what needs one fails."""
    for name in [name for name in os.environ if name.startswith(("CIRCUIT_", "OPENAI_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(typer.main, "get_command", put_together)
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
        words = (str(argument) for argument in arguments)
        surroundings = environment(variables)
        return Outcome(
            *finished(command, *words, stdin=stdin, environment=surroundings, folder=tmp_path, within=PROCESS_SECONDS)
        )

    return run


@pytest.fixture
def spawned() -> Iterator[Spawn]:
    """Starts commands that go on while the test does; those that still run at its end are killed."""
    started: list[Spawned] = []

    def spawn(*arguments: str | Path, out: Path | None = None, **variables: str) -> Spawned:
        process = Spawned(*(str(argument) for argument in arguments), environment=environment(variables), out=out)
        process.start()
        started.append(process)
        return process

    yield spawn
    for process in started:
        process.end()
