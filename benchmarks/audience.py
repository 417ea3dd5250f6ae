"""One stream, its server and its readers, as the benchmarks of streams need them."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass

import psutil

REST_SECONDS = 0.03
"""Between two turns, in which readers take what lies in their sockets."""
MOST_APART = 16
"""Bytes between readers of a stream: the end of the connection may come with the last event or after it."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What the deliveries of one turn took: seconds of the clock, and of the server's CPU."""

    seconds: float
    cpu_seconds: float


class Audience:
    """A server and the readers of its one stream, in two processes. Use it as an async context manager.

    `came` is what it took until all readers were there, `kib_each` how much more memory the server has with them.
    """

    def __init__(self, mode: str, protocol: str, readers: int, *, at_once: bool = False) -> None:
        self._mode = mode
        self._protocol = protocol
        self._readers = readers
        self._at_once = at_once
        self.turns: list[Turn] = []

    async def __aenter__(self) -> Audience:
        self._server = await _python("benchmarks.stream_server", self._mode, str(self._readers))
        port = await _line(self._server)
        process = psutil.Process(self._server.pid)
        arguments = [port, str(self._readers), self._protocol, *(["at-once"] if self._at_once else [])]
        self._clients = await _python("benchmarks.stream_readers", *arguments)
        await _line(self._clients)
        began, cpu, memory = time.perf_counter(), _cpu(process), process.memory_info().rss
        if await _line(self._server) != "ready":
            raise RuntimeError("the server does not speak")
        self.came = Turn(time.perf_counter() - began, _cpu(process) - cpu)
        self.kib_each = (process.memory_info().rss - memory) / self._readers / 1024
        return self

    @property
    def mebibytes(self) -> int:
        """The server's memory now."""
        return psutil.Process(self._server.pid).memory_info().rss >> 20

    async def turn(self, events: int) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(b"%d\n" % events)
        self.turns.append(Turn(**json.loads(await _line(self._server))))
        await asyncio.sleep(REST_SECONDS)

    async def finish(self) -> int:
        """Let the stream end, and see that each reader has the same of it: how many bytes."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        amounts = json.loads(await _line(self._clients))
        if self._protocol != "graphql" and amounts[-1] - amounts[0] > MOST_APART:
            raise RuntimeError(f"readers of one stream got different amounts: {amounts}")
        return int(amounts[0])

    async def __aexit__(self, *_: object) -> None:
        for process in (self._clients, self._server):
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _python(module: str, *arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-m", module, *arguments, stdin=PIPE, stdout=PIPE)


async def _line(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
