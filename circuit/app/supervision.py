"""Worker processes beside a server: started, started again when they are lost, ended with it, and asked how they do.

A process answers on its output what is asked on its input, a line of JSON for a line; when its input ends, it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import orjson

from circuit.app.figures import process_figures
from circuit.observability.metrics import Figure

if TYPE_CHECKING:
    from circuit.app.circuit import Circuit

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A process that lived so long was no failed start: another one begins after the first pause."""
ANSWER_SECONDS = 2.0
LONGEST_ANSWER = 4 * 1024 * 1024
END_SECONDS = 5.0
"""How long a process may take to hand its cases back, beside twice what running executions get; then it is killed, and
others take over what it held."""


class Crew:
    """The worker processes that live now, by their numbers. Each has `end_seconds` to end when it is told to."""

    def __init__(self, end_seconds: float) -> None:
        self.end_seconds = end_seconds
        self.living: dict[int, Process] = {}
        self._asking = asyncio.Lock()
        self._asked = 0

    async def figures(self) -> Sequence[Figure]:
        """The figures of all of them, each with its number as `worker`, but for those that do not answer in time."""
        async with self._asking:
            self._asked += 1
            asked = [self._figures_of(number, process) for number, process in list(self.living.items())]
            return [figure for found in await asyncio.gather(*asked) for figure in found]

    async def _figures_of(self, number: int, process: Process) -> Sequence[Figure]:
        assert process.stdin is not None and process.stdout is not None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                process.stdin.write(f"{self._asked}\n".encode())
                await process.stdin.drain()
                while line := await process.stdout.readline():
                    # Whatever else it prints, and late answers to what was asked before, are nobody's concern.
                    if line.startswith(b"{") and (told := orjson.loads(line))["asked"] == self._asked:
                        return [Figure.of_json(one).labelled(worker=str(number)) for one in told["figures"]]
        except (TimeoutError, OSError, ValueError) as error:
            logger.warning("worker %d does not tell its figures: %s", number, type(error).__name__)
        return ()


async def answer(circuit: Circuit) -> None:
    """Answer whoever supervises this process, until its input ends."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        if line.strip().isdigit():
            figures = await process_figures(circuit.engine, circuit.registry, circuit.settings)
            told = [figure.as_json() for figure in figures]
            sys.stdout.buffer.write(orjson.dumps({"asked": int(line), "figures": told}) + b"\n")
            sys.stdout.buffer.flush()


@asynccontextmanager
async def worker_processes(
    count: int, arguments: Sequence[str], environment: Mapping[str, str], stop_seconds: float
) -> AsyncGenerator[Crew]:
    """Keeps `count` processes of `circuit worker` alive while the block runs; what runs in them gets `stop_seconds` to
    end.

    Each has the end of a pipe as its input: if this process is lost, the pipe ends, and so do they.
    """
    crew = Crew(END_SECONDS + 2 * stop_seconds)
    keeping = [asyncio.create_task(_keep(crew, number, arguments, environment)) for number in range(1, count + 1)]
    try:
        yield crew
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)


async def _keep(crew: Crew, number: int, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Keep one process, until it ends as it was asked to."""
    loop = asyncio.get_running_loop()
    pause = FIRST_PAUSE_SECONDS
    while True:
        begun = loop.time()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "circuit", "worker", "--supervised", *arguments),
            stdin=PIPE,
            stdout=PIPE,
            limit=LONGEST_ANSWER,
            env=dict(environment),
            start_new_session=True,  # a signal from the terminal is for the server, which ends its workers itself
        )
        crew.living[number] = process
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            await _end(process, crew.end_seconds)
            raise
        finally:
            del crew.living[number]
        if code == 0:
            logger.warning("worker %d has ended, as it was asked to: no other one begins", number)
            return
        pause = FIRST_PAUSE_SECONDS if loop.time() - begun >= STEADY_SECONDS else pause
        logger.error("worker %d ended with %d: another one begins in %g s", number, code, pause)
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


async def _end(process: Process, seconds: float) -> None:
    """Have a process hand its cases back and end, in bounded time."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(seconds):
            await process.wait()
    except TimeoutError:
        logger.error("worker process %d did not end within %g s and is killed", process.pid, seconds)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
