"""Runs contestants side by side: rounds of all of them, one after the other, on one Postgres; the median counts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.contestants import Contestant
from benchmarks.environment import NotInstallable, python_of
from benchmarks.gauge import Gauge

HERE = Path(__file__).resolve().parent
SECONDS = 240.0
"""After so long a contestant that has not ended has failed."""

GOODBYE_SECONDS = 1.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """One round of one contestant in one scenario. CPU is in microseconds a step, of the contestant's own process and
    of the server that stores (Postgres, or one of its own); `wal` in bytes a step, `memory` the largest resident size
    of its process in bytes; `each` holds the seconds of runs that went one by one."""

    rate: float
    client: float
    server: float
    wal: float
    memory: int
    each: tuple[float, ...] = ()


class Failed(Exception):
    """A contestant did not come to its end."""


async def contest(
    gauge: Gauge, contestants: Sequence[Contestant], scenarios: Sequence[str], rounds: int, say: Say
) -> tuple[dict[tuple[str, str], Measured], dict[str, str]]:
    """The medians by contestant and scenario, and why contestants are missing, by name."""
    missing: dict[str, str] = {}
    pythons: dict[str, Path] = {}
    for contestant in contestants:
        say(f"installing {contestant.name}")
        try:
            pythons[contestant.name] = await asyncio.to_thread(python_of, contestant)
        except NotInstallable as error:
            missing[contestant.name] = str(error)
            say(str(error))
    found: dict[tuple[str, str], list[Measured]] = {}
    for number in range(1, rounds + 1):
        for scenario in scenarios:
            for contestant in contestants:
                if scenario not in contestant.scenarios or contestant.name in missing:
                    continue
                try:
                    measured = await _once(gauge, contestant, pythons[contestant.name], scenario)
                except Failed as error:
                    missing[contestant.name] = str(error)
                    say(f"{contestant.name} failed in {scenario}: {error}")
                    continue
                found.setdefault((contestant.name, scenario), []).append(measured)
                say(
                    f"round {number} of {rounds}: {scenario}, {contestant.name}: {measured.rate:,.0f} steps/s, "
                    f"CPU {measured.client:,.0f} + {measured.server:,.0f} µs a step"
                )
    return {key: _median(several) for key, several in found.items()}, missing


async def _once(gauge: Gauge, contestant: Contestant, python: Path, scenario: str) -> Measured:
    """A round in a database that is made for it and dropped after it."""
    if not contestant.stored:
        return await perform(gauge, contestant, python, scenario, contestant.scenarios[scenario])
    database = f"bench_{contestant.script}"
    url = await gauge.fresh(database)
    try:
        return await perform(gauge, contestant, python, scenario, contestant.scenarios[scenario], url)
    finally:
        await gauge.drop(database)


async def perform(
    gauge: Gauge, contestant: Contestant, python: Path, scenario: str, runs: int, url: str = ""
) -> Measured:
    """Let a contestant do so many runs in the database at `url`. Raises `Failed`."""
    paths = [str(HERE.parent)] if not contestant.packages else []
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
    }
    process = await asyncio.create_subprocess_exec(
        str(python),
        str(HERE / "peers" / f"{contestant.script}.py"),
        *("--url", url, "--scenario", scenario, "--runs", str(runs)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,
        limit=16 * 1024 * 1024,
    )
    errors = asyncio.ensure_future(_tail(process))
    try:
        async with asyncio.timeout(SECONDS):
            await _line(process, errors, "ready")
            cpu, wal = gauge.cpu(), await gauge.wal()
            _tell(process)
            told = json.loads(await _line(process, errors, "{"))
            cpu, wal = gauge.cpu() - cpu, await gauge.wal() - wal
            _tell(process)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(process.wait()), GOODBYE_SECONDS)
    except TimeoutError:
        raise Failed(f"it did not end within {SECONDS:g} s") from None
    finally:
        # Whatever it started (a server, threads that do not end) ends with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        errors.cancel()
    steps = told["steps"]
    return Measured(
        rate=steps / told["seconds"],
        client=told["cpu"] / steps * 1e6,
        server=(cpu if contestant.stored else told["server"]) / steps * 1e6,
        wal=wal / steps if contestant.stored else 0.0,
        memory=told["memory"],
        each=tuple(told["each"]),
    )


async def _line(process: asyncio.subprocess.Process, errors: asyncio.Future[str], begins: str) -> str:
    """The next line that begins so; what else the contestant prints is passed over."""
    assert process.stdout is not None
    while True:
        line = (await process.stdout.readline()).decode(errors="replace")
        if line.startswith(begins):
            return line
        if not line:
            told = await errors
            raise Failed(told or "it ended without a word")


async def _tail(process: asyncio.subprocess.Process) -> str:
    """The last line that it says on its standard error."""
    assert process.stderr is not None
    last = ""
    async for line in process.stderr:
        last = line.decode(errors="replace").strip() or last
    return last


def _tell(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")


def _median(several: Sequence[Measured]) -> Measured:
    each = tuple(second for one in several for second in one.each)
    return Measured(
        rate=median(one.rate for one in several),
        client=median(one.client for one in several),
        server=median(one.server for one in several),
        wal=median(one.wal for one in several),
        memory=int(median(one.memory for one in several)),
        each=tuple(sorted(each)),
    )
