"""One process of a fleet: a worker, or the server with a worker, as it runs in production, but that it may be told to
die at a named point, or to be a build that is broken on purpose."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

POINTS = (
    "after_claim",
    "before_answer",
    "after_answer",
    "after_journal",
    "before_commit",
    "after_commit",
    "in_sweep",
    "before_take_over",
    "after_take_over",
    "in_drain",
)
"""Where the engine can be told to die. The last four need somebody else's death, or a SIGTERM, to be come to."""


@dataclass(frozen=True)
class Orders:
    """What a process is to be. `point` is where it kills itself, the `times`-th time that it comes there; `control`
    names a build of `tests.chaos.controls`; `poisonous` lets tokens do to it what `tests.chaos.poison` says; `port`
    makes it a server."""

    url: str
    log: Path
    lease_seconds: float = 1.0
    stop_seconds: float = 1.0
    executions: int = 50
    point: str | None = None
    times: int = 1
    control: str | None = None
    poisonous: bool = False
    port: int | None = None


def run(orders: Orders) -> None:
    """The process's whole life."""
    with orders.log.open("ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    if orders.control is not None:
        from tests.chaos.controls import CONTROLS

        CONTROLS[orders.control]()
    if orders.poisonous:
        from tests.chaos import poison

        poison.install()
    asyncio.run(_work(orders))


async def _work(orders: Orders) -> None:
    from circuit.app import Circuit
    from circuit.settings import Settings

    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    settings = replace(
        Settings.from_environment(),
        lease_seconds=orders.lease_seconds,
        max_concurrent_executions=orders.executions,
    )
    try:
        async with Circuit.open(
            orders.url,
            settings=settings,
            fault=dying_at(orders),
            stop_seconds=orders.stop_seconds,
            exit_when_stuck=True,
        ) as circuit:
            if orders.port is None:
                await asyncio.Event().wait()
            else:
                await circuit.serve("127.0.0.1", orders.port)
    except asyncio.CancelledError:
        return


def dying_at(orders: Orders) -> Callable[[str], None]:
    """The hook that ends the process as a crash would: nothing is closed and nothing is flushed."""
    left = orders.times

    def fault(here: str) -> None:
        nonlocal left
        if here == orders.point:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return fault
