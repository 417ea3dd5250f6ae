"""The driver of the fault programme: round after round, cases and readers under way, faults, and then the judgement.

    PYTHONPATH=tests python -m tests.chaos.programme --hours 2 [--seed SEED] [--skip ROUNDS] [--fault NAME ...]

draws from the table (`tests/chaos/faults.py`) by weight until the time is over or a promise is broken, and says at once
how to repeat the run, or to go on where it was interrupted: `make chaos HOURS=2 SEED=... SKIP=...`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import random
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from tests.chaos.faults import FAULTS, Fault, rounds
from tests.chaos.stage import Broken, Stage

CASES = 7
READERS = 12
LONG_RUN_READERS = 200


async def one_round(stage: Stage, faults: Sequence[Fault], *, cases: int = CASES, readers: int = READERS) -> None:
    """Some work, the faults in its midst, and the judgement. Raises `Broken`."""
    names = ", ".join(f"{count} x {name}" for name, count in Counter(fault.name for fault in faults).items())
    following: asyncio.Task[None] | None = None
    try:
        await stage.start_cases(cases)
        following = asyncio.create_task(stage.followed(readers))
        await stage.working(2)
        for fault in faults:
            await asyncio.sleep(stage.random.uniform(0, 0.2))
            await fault.inject(stage)
            await stage.holds()
        await _end(following)
        await stage.settle()
    except Exception as error:
        raise Broken(f"seed {stage.seed}, {names}: {error}\n{stage.fleet.told()}") from error
    finally:
        if following is not None:
            await _end(following)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def all_rounds(*areas: str) -> None:
    """What `make test` runs: each fault of these areas of the table as often as it says. As with Hypothesis, the same
    is drawn each time where a change is judged (`CI`); `make chaos` looks for what nobody has seen yet."""
    drawn_once = 1 if os.environ.get("CI") else secrets.randbelow(2**32)
    seed = int(os.environ.get("CIRCUIT_CHAOS_SEED") or drawn_once)
    async with Stage.open(seed) as stage:
        for faults in rounds(*areas):
            await one_round(stage, faults)


def drawn(seed: int, faults: Sequence[Fault]) -> Iterator[list[Fault]]:
    """The rounds of a long run: for ever, and the same for the same seed."""
    source = random.Random(seed)
    while True:
        fault = source.choices(faults, [fault.weight for fault in faults])[0]
        yield [fault] * source.randint(1, fault.together)


async def long_run(seconds: float, seed: int, faults: Sequence[Fault], skip: int = 0) -> Counter[str]:
    """Rounds of faults drawn by their weights until `seconds` are over; the first `skip` of them were run before."""
    done: Counter[str] = Counter()
    deadline = time.monotonic() + seconds
    async with Stage.open(seed + skip, workers=3) as stage:
        for number, chosen in enumerate(itertools.islice(drawn(seed, faults), skip, None), skip + 1):
            if time.monotonic() >= deadline:
                break
            await one_round(stage, chosen, cases=2 * CASES, readers=LONG_RUN_READERS)
            done[chosen[0].name] += len(chosen)
            told = f"round {number}: {len(chosen)} x {chosen[0].name}; {done.total()} faults survived"
            print(f"{time.strftime('%H:%M:%S')} {told}", flush=True)
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    parser.add_argument("--skip", type=int, default=0, help="go on behind so many rounds of this seed")
    parser.add_argument("--fault", action="append", choices=[fault.name for fault in FAULTS], help="only this one")
    arguments = parser.parse_args()
    faults = [fault for fault in FAULTS if arguments.fault is None or fault.name in arguments.fault]
    hours, seed = f"{arguments.hours:g}", arguments.seed
    print(f"seed {seed}; to repeat: make chaos HOURS={hours} SEED={seed}; to go on behind round N: SKIP=N", flush=True)
    try:
        done = asyncio.run(long_run(arguments.hours * 3600, seed, faults, arguments.skip))
    except Broken as broken:
        print(broken, file=sys.stderr)
        return 1
    for name, count in done.most_common():
        print(f"{count:>8}  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
