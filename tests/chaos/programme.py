"""The driver of the fault programme: round after round, cases and readers under way, faults, and then the judgement.

    python -m tests.chaos.programme --hours 2 [--seed SEED] [--fault NAME ...]

draws from the table (`tests/chaos/faults.py`) by weight until the time is over or a promise is broken, and says at once
how to repeat the run: `make chaos HOURS=2 SEED=...`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import secrets
import sys
import time
from collections import Counter
from collections.abc import Sequence

from tests.chaos.faults import FAULTS, Fault
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


async def long_run(seconds: float, seed: int, faults: Sequence[Fault]) -> Counter[str]:
    """Rounds of faults drawn by their weights until `seconds` are over."""
    done: Counter[str] = Counter()
    drawn = random.Random(seed)
    deadline = time.monotonic() + seconds
    async with Stage.open(seed, workers=3) as stage:
        while time.monotonic() < deadline:
            fault = drawn.choices(faults, [fault.weight for fault in faults])[0]
            together = drawn.randint(1, fault.together)
            await one_round(stage, [fault] * together, cases=2 * CASES, readers=LONG_RUN_READERS)
            done[fault.name] += together
            print(
                f"{time.strftime('%H:%M:%S')} {sum(done.values()):>6} faults survived, the last: {fault.name}",
                flush=True,
            )
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**32))
    parser.add_argument("--fault", action="append", choices=[fault.name for fault in FAULTS], help="only this one")
    arguments = parser.parse_args()
    faults = [fault for fault in FAULTS if arguments.fault is None or fault.name in arguments.fault]
    print(f"seed {arguments.seed}; to repeat: make chaos HOURS={arguments.hours:g} SEED={arguments.seed}", flush=True)
    try:
        done = asyncio.run(long_run(arguments.hours * 3600, arguments.seed, faults))
    except Broken as broken:
        print(broken, file=sys.stderr)
        return 1
    for name, count in done.most_common():
        print(f"{count:>8}  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
