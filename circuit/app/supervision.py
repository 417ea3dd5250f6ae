"""Worker processes beside a server: started, started again when they are lost, ended with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A process that lived so long was no failed start: another one begins after the first pause."""
END_SECONDS = 15.0
"""How long a process may take to hand its cases back; then it is killed, and others take over what it held."""


@asynccontextmanager
async def worker_processes(
    count: int, arguments: Sequence[str], environment: Mapping[str, str]
) -> AsyncGenerator[list[Process]]:
    """Keeps `count` processes of `circuit worker` alive while the block runs; what it gives are those that live now.

    Each has the end of a pipe as its input: if this process is lost, the pipe ends, and so do they.
    """
    living: list[Process] = []
    keeping = [asyncio.create_task(_keep(living, number, arguments, environment)) for number in range(1, count + 1)]
    try:
        yield living
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)


async def _keep(living: list[Process], number: int, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Keep one process, until it ends as it was asked to."""
    loop = asyncio.get_running_loop()
    pause = FIRST_PAUSE_SECONDS
    while True:
        begun = loop.time()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "circuit", "worker", "--supervised", *arguments),
            stdin=PIPE,
            stdout=DEVNULL,
            env=dict(environment),
            start_new_session=True,  # a signal from the terminal is for the server, which ends its workers itself
        )
        living.append(process)
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            await _end(process)
            raise
        finally:
            living.remove(process)
        if code == 0:
            logger.warning("worker %d has ended, as it was asked to: no other one begins", number)
            return
        pause = FIRST_PAUSE_SECONDS if loop.time() - begun >= STEADY_SECONDS else pause
        logger.error("worker %d ended with %d: another one begins in %g s", number, code, pause)
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


async def _end(process: Process) -> None:
    """Have a process hand its cases back and end, in bounded time."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(END_SECONDS):
            await process.wait()
    except TimeoutError:
        logger.error("worker process %d did not end within %g s and is killed", process.pid, END_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
