"""Many readers of one stream: how long a thousand that come at once take, and what ten thousand cost that stay."""

from __future__ import annotations

import resource
from statistics import median

from benchmarks.audience import Audience
from benchmarks.results import Row, figure

AT_ONCE = 1_000
STAYING = 10_000
EVENTS = 20
"""That are said in one turn to those who stay."""
TURNS = 8
_FILES = STAYING + 1_000


async def measure() -> list[Row]:
    """The rows: of a crowd that comes at once, and of one that stays."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(_FILES, hard), hard))
    rows: list[Row] = []
    for protocol in ("websocket", "sse"):
        async with Audience("circuit", protocol, AT_ONCE, at_once=True) as crowd:
            await crowd.turn(EVENTS)
            await crowd.finish()
        cpu_us = round(crowd.came.cpu_seconds / AT_ONCE * 1e6)
        rows.append(figure(f"streams_{protocol}_{AT_ONCE}_at_once", crowd.came.seconds, "s", cpu_us_each=cpu_us))
    async with Audience("circuit", "websocket", STAYING) as crowd:
        sizes: list[int] = []
        for _ in range(TURNS):
            await crowd.turn(EVENTS)
            sizes.append(crowd.mebibytes)
        await crowd.finish()
    cpu_us = round(median(turn.cpu_seconds for turn in crowd.turns) / EVENTS / STAYING * 1e6, 2)
    name = f"streams_websocket_{STAYING}_stay"
    rows.append(figure(name, crowd.kib_each, "KiB of the server each", mib_by_turn=sizes, cpu_us_a_delivery=cpu_us))
    return rows
