"""How a contestant and the bench talk: it prepares, says `ready`, waits for a line, runs, and says in JSON how it went.

So what is measured begins and ends at the same instants in both processes: the bench looks at Postgres' CPU and WAL
between the two lines. A contestant runs in an environment of its own, so this file needs the standard library only.

Scenarios: `chain` runs chains of ten steps, all at once; `fork` runs of as many steps (one that forks, eight beside
each other, one that joins), all at once; `alone` chains one after the other, and tells how long each took.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

LENGTH = 10
BRANCHES = 8
PAYLOAD = {"text": "x" * 150, "n": 1}
"""The 170 bytes of JSON that go from step to step."""


@dataclass
class Task:
    """What a contestant is asked to run: how many `runs` of a scenario, and the database to keep them in. One that
    brings a server of its own says its process id, so that what it spends is seen, and how to do away with it."""

    url: str
    scenario: str
    runs: int
    server: int | None = None
    cleanup: Callable[[], object] = lambda: None

    @property
    def alone(self) -> bool:
        return self.scenario == "alone"


Run = Callable[[], Awaitable[Sequence[float]]]
"""Runs it all; for `alone` it returns the seconds of each run, else nothing."""


async def one_by_one(run: Callable[[], Awaitable[object]], runs: int) -> list[float]:
    """How many seconds each of so many runs takes, one after the other."""
    seconds: list[float] = []
    for _ in range(runs):
        began = time.perf_counter()
        await run()
        seconds.append(time.perf_counter() - began)
    return seconds


def main(prepare: Callable[[Task], Awaitable[Run]]) -> None:
    """Take the task from the command line and serve the exchange. `prepare` does all that is not measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", default="")
    parser.add_argument("--scenario", default="chain")
    parser.add_argument("--runs", type=int, default=100)
    options = parser.parse_args()
    asyncio.run(_serve(prepare, Task(options.url, options.scenario, options.runs)))


async def _serve(prepare: Callable[[Task], Awaitable[Run]], task: Task) -> None:
    run = await prepare(task)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    began, cpu, server = time.perf_counter(), time.process_time(), _cpu_of(task.server)
    each = await run()
    seconds, used = time.perf_counter() - began, time.process_time() - cpu
    told = {"steps": task.runs * LENGTH, "seconds": seconds, "cpu": used, "server": _cpu_of(task.server) - server}
    told |= {"memory": _peak(), "each": list(each)}
    print(json.dumps(told), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    task.cleanup()


def _peak() -> int:
    """The largest resident size of this process so far. (What `getrusage` tells begins with that of its parent.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _cpu_of(process: int | None) -> float:
    """Seconds of CPU of another process so far."""
    if process is None:
        return 0.0
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
