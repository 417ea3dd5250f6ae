"""Runs worlds by their seeds, in several processes: what a block of seeds comes to, and which one failed."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

from circuit.engine import livelock, owner
from tests.engine.world import World

JOBS = int(os.environ.get("CIRCUIT_SIMULATION_JOBS", "2"))
BLOCK = 250
MOST_IMMEDIATE = 20
PATIENCE = 10
COUNTED_EVENTS = 7


def shorten() -> None:
    """Let owners yield after few firings, so that the simulation gets between them."""
    owner.MOST_IMMEDIATE = MOST_IMMEDIATE
    owner.COUNTED_EVENTS = COUNTED_EVENTS
    livelock.PATIENCE = PATIENCE


def run_block(first: int, last: int) -> Counter[str]:
    """How the cases of the seeds from `first` up to `last` ended. Raises `AssertionError`, with the seed."""
    outcomes: Counter[str] = Counter()
    for seed in range(first, last):
        world = World(seed)
        try:
            world.run()
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
        outcomes[world.case.row.status.value] += 1
    return outcomes


def run_blocks(count: int) -> Iterator[Counter[str]]:
    """Run the seeds below `count` in `JOBS` processes; each block's outcomes as they come."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(JOBS, mp_context=context, initializer=shorten) as pool:
        blocks = [pool.submit(run_block, first, min(first + BLOCK, count)) for first in range(0, count, BLOCK)]
        try:
            for block in as_completed(blocks):
                yield block.result()
        finally:
            pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    shorten()
    for seed in map(int, sys.argv[1:]):
        print(f"seed {seed}: {dict(run_block(seed, seed + 1))}")
