"""Processes of this checkout, forked from one that has imported Circuit already: real processes, and there in no time.

Starting Python and importing Circuit takes a second of a processor; what is forked has both behind it. Whatever a test
asks of a process holds for these: a pid and descriptors of their own, signals, exit codes, `kill -9`.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

SECONDS = 120.0

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["circuit.app", "circuit.api.application", "circuit.api.server", "circuit.cli.main", "uvicorn"]
)


class Forked:
    """One process that calls `target` with `arguments`. `status` is its exit code once it has ended; minus the signal
    that ended it.

    `standard` are the descriptors that become its standard input, output and errors, in this order; `environment`, if
    it is given, is its whole environment, and `folder` where it works.
    """

    def __init__(
        self,
        target: Callable[..., int | None],
        *arguments: object,
        name: str | None = None,
        standard: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        # A connection can be sent to the process that forks; each has its own copy of the descriptor.
        self._standard = [Connection(os.dup(number)) for number in standard]
        self._process = _CONTEXT.Process(
            target=_run, args=(target, arguments, self._standard, environment, folder), name=name
        )
        self.stopped = False

    @property
    def name(self) -> str:
        return self._process.name

    @property
    def pid(self) -> int:
        assert self._process.pid is not None, "it was never started"
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    @property
    def status(self) -> int | None:
        return self._process.exitcode

    def start(self) -> None:
        """Start it. The first one waits for the process that forks them all to import Circuit."""
        self._process.start()
        for connection in self._standard:
            connection.close()

    def signal(self, number: signal.Signals) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
            self.stopped = number is signal.SIGSTOP or (self.stopped and number is not signal.SIGCONT)

    def wait(self, within: float = SECONDS) -> int | None:
        """Wait for its end; its exit code, or None if it did not end in time."""
        self._process.join(within)
        return self.status

    async def ended(self, within: float = SECONDS) -> int | None:
        """The same, while other things go on."""
        if self.alive:
            loop = asyncio.get_running_loop()
            over = asyncio.Event()
            # Several may wait for it: each for a descriptor of its own.
            sentinel = os.dup(self._process.sentinel)
            loop.add_reader(sentinel, over.set)
            try:
                async with asyncio.timeout(within):
                    await over.wait()
            except TimeoutError:
                return None
            finally:
                loop.remove_reader(sentinel)
                os.close(sentinel)
        return self.wait()

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert await self.ended() is not None, f"{self.name} outlives a kill"


class Talking(Forked):
    """One that says lines on its standard output, and is told lines on its standard input. Its errors go where ours
    do. To be begun with `open`."""

    def __init__(self, target: Callable[..., int | None], *arguments: object) -> None:
        given, self._told = os.pipe()
        self._pipe, said = os.pipe()
        super().__init__(target, *arguments, standard=(given, said, 2))
        os.close(given)
        os.close(said)
        self._lines = asyncio.StreamReader()

    async def open(self) -> None:
        await asyncio.to_thread(self.start)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self._lines), os.fdopen(self._pipe, "rb", buffering=0)
        )

    async def line(self) -> str:
        """The next line that it says; nothing, once it has ended."""
        return (await asyncio.wait_for(self._lines.readline(), SECONDS)).decode().rstrip("\n")

    def tell(self, line: str = "") -> None:
        os.write(self._told, f"{line}\n".encode())

    async def close(self) -> None:
        """Nothing is left of it."""
        await self.kill()
        os.close(self._told)


def command(*arguments: str) -> int:
    """The command line `circuit ...`, as the whole of a process."""
    from circuit.cli.main import main

    sys.argv = ["circuit", *arguments]
    return main()


def finished(
    target: Callable[..., int | None],
    *arguments: object,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    within: float = SECONDS,
) -> tuple[int, str, str]:
    """Run a process to its end: its exit code, and what it wrote to its standard output and errors."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin.encode())
        given.seek(0)
        standard = (given.fileno(), out.fileno(), err.fileno())
        process = Forked(target, *arguments, standard=standard, environment=environment, folder=folder)
        process.start()
        status = process.wait(within)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
        if status is None:
            process.signal(signal.SIGKILL)
            process.wait()
            raise TimeoutError(f"{process.name} did not end within {within} s:\n{texts[0]}\n{texts[1]}")
    return status, texts[0], texts[1]


def _run(
    target: Callable[..., int | None],
    arguments: Sequence[Any],
    standard: Sequence[Connection],
    environment: Mapping[str, str] | None,
    folder: Path | None,
) -> None:
    """The process's whole life."""
    for number, connection in enumerate(standard):
        os.dup2(connection.fileno(), number)
        connection.close()
    if environment is not None:
        os.environ.clear()
        os.environ.update(environment)
    if folder is not None:
        os.chdir(folder)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 -- for as long as the process lives
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False, buffering=1 if os.isatty(1) else -1)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1, errors="backslashreplace")  # noqa: SIM115
    try:
        status = target(*arguments)
    finally:
        # What is forked ends without these.
        atexit._run_exitfuncs()
        sys.stdout.flush()
    sys.exit(status)
