"""The fault programme as a table: what can go wrong, how often it does in a long run, and how often in `make test`.

A fault is a function of the stage that returns when the fault is over, or when only `Stage.heal` can end it. The driver
(`tests/chaos/programme.py`) has cases and readers under way before it, and judges afterwards.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import asyncpg

from tests.chaos.fleet import Member
from tests.chaos.member import POINTS
from tests.chaos.stage import LEASE_SECONDS, Stage
from tests.eventually import eventually
from tests.postgres import execute


@dataclass(frozen=True)
class Fault:
    """`weight` counts in a long run, `times` in `make test`; so many `together` are one round. `area` says what
    it breaks."""

    name: str
    area: str
    inject: Callable[[Stage], Awaitable[None]]
    weight: float
    times: int = 1
    together: int = 1


# -- processes ---------------------------------------------------------------------------------------------------------


async def kill(stage: Stage) -> None:
    """kill -9 of a worker or of the server, and another one in its place."""
    await stage.some_worker().kill()
    await stage.serve()
    await stage.recruit()


async def kill_server(stage: Stage) -> None:
    """kill -9 of the process that serves the API, while streams are read through it; the readers come back."""
    assert stage.api is not None
    await stage.api.kill()
    await stage.serve()


async def die_at(stage: Stage, point: str) -> None:
    """A worker dies exactly at a named point, with nobody else there who could come to it first. The points of a sweep
    need somebody dead to be found, with cases; that of a drain needs a worker that is told to end."""
    others = stage.fleet.living
    # One that has lost its lease ends without a drain.
    lease = 30.0 if point == "in_drain" else LEASE_SECONDS
    member = await stage.fleet.add(point=point, lease_seconds=lease)
    await stage.start_cases(3)
    if point == "in_drain":
        await _owning(stage, [member])
        member.signal(signal.SIGTERM)
    else:
        if point in ("in_sweep", "before_take_over", "after_take_over"):
            await _owning(stage, others)
        await asyncio.gather(*(other.kill() for other in others))
        await stage.start_cases(1)
    status = await member.ended()
    assert status == -signal.SIGKILL, f"the worker never came to {point}: it ended with {status}"
    await stage.serve()
    await stage.recruit()


async def _owning(stage: Stage, members: list[Member]) -> None:
    """Return when one of `members` owns a case."""
    pids = [member.pid for member in members]
    while not await stage.fetch(
        'SELECT 1 FROM circuit."case" t JOIN circuit.worker w ON w.id = t.owner WHERE w.pid = ANY($1::int[])', pids
    ):
        await stage.start_cases(1)


async def stop_and_continue(stage: Stage, leases: float) -> None:
    """SIGSTOP for so many leases, then SIGCONT: what the sleeper still believes must not count."""
    await stage.start_cases(2)
    member = stage.some_worker()
    member.signal(signal.SIGSTOP)
    await asyncio.sleep(leases * LEASE_SECONDS)
    member.signal(signal.SIGCONT)


# -- the database ------------------------------------------------------------------------------------------------------


async def restart(stage: Stage) -> None:
    """Postgres stops at once, as in a crash, and starts again after a while."""
    await stage.start_cases(2)
    await asyncio.to_thread(stage.server.stop, "immediate")
    await asyncio.sleep(stage.random.uniform(0, 1))
    await asyncio.to_thread(stage.server.start)


async def terminate(stage: Stage, per_second: float) -> None:
    """`pg_terminate_backend` of connections at random."""
    connection = await asyncpg.connect(stage.url)
    try:
        for _ in range(round(3 * per_second)):
            rows = await connection.fetch(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'circuit' AND datname = current_database()"
            )
            if rows:
                await connection.execute("SELECT pg_terminate_backend($1)", stage.random.choice(rows)["pid"])
            await asyncio.sleep(1 / per_second)
    finally:
        await connection.close()


async def freeze(stage: Stage) -> None:
    """Postgres does not run for two leases, and tells nobody."""
    with stage.server.frozen():
        await asyncio.sleep(2 * LEASE_SECONDS)


async def fill(stage: Stage) -> None:
    """The disk is full. Postgres may refuse to write, or end; both must pass."""
    before = stage.server.refusals()

    async def press() -> None:
        """What is under way may need no more room: whoever starts cases does, with each try."""
        while stage.server.refusals() == before:
            await stage.start_cases(1)

    async def is_back() -> bool:
        # It may have been about to end.
        await asyncio.to_thread(stage.server.come_back)
        try:
            await execute(stage.url, "SELECT 1")
        except (OSError, asyncpg.PostgresError):
            return False
        return True

    async with asyncio.TaskGroup() as group:
        with stage.server.full():
            group.create_task(press())
            await eventually(lambda: stage.server.refusals() > before, what="a write that fails for lack of room")
            await asyncio.sleep(LEASE_SECONDS)
        await eventually(is_back, what="a server that answers")


async def read_only(stage: Stage) -> None:
    """The database takes no writes, as a standby does after a failover."""
    await stage.server.read_only(True)
    await asyncio.sleep(2 * LEASE_SECONDS)
    await stage.server.read_only(False)


async def clock_jumps(stage: Stage, seconds: float) -> None:
    """The database's clock jumps and stays there. Leases end early or late; what was to be due is due at once, or so
    much later; nothing is lost by it, and nothing happens twice."""
    await stage.clock_jumps(seconds)
    await stage.start_cases(2)


async def set_back(stage: Stage) -> None:
    """The database is restored to an earlier state, while workers remember a later one."""
    # What began before may be nearly over: each time enough begins to be at work.
    await stage.start_cases(5)
    await stage.working(5)
    await asyncio.to_thread(stage.server.back_up)
    await stage.start_cases(8)
    await stage.working(8)
    await asyncio.to_thread(stage.server.set_back)
    await stage.was_set_back()


# -- the network -------------------------------------------------------------------------------------------------------


async def cut(stage: Stage) -> None:
    stage.proxy.cut()


async def reset(stage: Stage) -> None:
    stage.proxy.reset()


async def half_open(stage: Stage) -> None:
    """The connections that there are lead nowhere for two leases, and nobody is told."""
    stage.proxy.half_open()
    await asyncio.sleep(2 * LEASE_SECONDS)
    stage.proxy.heal()


async def slow(stage: Stage) -> None:
    """Whatever is asked of the database takes two seconds longer."""
    stage.proxy.delay = 2.0
    await asyncio.sleep(4 * LEASE_SECONDS)
    stage.proxy.heal()


async def partition(stage: Stage) -> None:
    """The database cannot be reached for longer than the lease."""
    stage.proxy.refusing = True
    stage.proxy.cut()
    await asyncio.sleep(2 * LEASE_SECONDS)
    stage.proxy.heal()


async def lose_acknowledgements(stage: Stage) -> None:
    """What was committed is not acknowledged: again and again, on every connection."""
    for _ in range(5):
        stage.proxy.lose_acknowledgements()
        await asyncio.sleep(LEASE_SECONDS / 5)


# -- clients -----------------------------------------------------------------------------------------------------------


async def same_key(stage: Stage) -> None:
    """A hundred starts with one idempotency key are one case."""
    key = f"same-{stage.random.randrange(2**32)}"
    workflow = stage.random.choice(stage.workflows)
    started = await asyncio.gather(*(stage.start_case(workflow, key) for _ in range(100)))
    assert len(set(started)) == 1, f"one key has started {len(set(started))} cases"


async def cancels(stage: Stage) -> None:
    """Cancels at random times, several of each: against completions, retries and take-overs."""
    cases = await stage.start_cases(6)

    async def cancel(case: str) -> None:
        await asyncio.sleep(stage.random.uniform(0, 0.5))
        await asyncio.gather(*(stage.cancel(case) for _ in range(3)))

    await asyncio.gather(*(cancel(case) for case in cases), kill(stage))


async def reconnect_storm(stage: Stage) -> None:
    """Every stream is read by many who come and go."""
    for execution in {subscriber.execution for subscriber in stage.audience.subscribers}:
        stage.audience.follow(execution, 5)


def _points() -> list[Fault]:
    return [
        Fault(f"kill at {point}", "processes", partial(die_at, point=point), weight=100, times=1) for point in POINTS
    ]


def _stops() -> list[Fault]:
    return [
        Fault(
            f"SIGSTOP for {leases:g} leases",
            "processes",
            partial(stop_and_continue, leases=leases),
            weight,
            times,
            together=times,
        )
        for leases, weight, times in ((0.5, 600, 4), (1, 600, 3), (2, 600, 2), (10, 200, 1))
    ]


FAULTS: tuple[Fault, ...] = (
    Fault("kill", "processes", kill, weight=10_000, times=30, together=6),
    *_points(),
    *_stops(),
    Fault("kill the server", "processes", kill_server, weight=500),
    Fault("one key a hundred times", "clients", same_key, weight=300),
    Fault("cancel against everything", "clients", cancels, weight=2_000),
    Fault("reconnect storm", "clients", reconnect_storm, weight=500),
    Fault("restart Postgres", "database", restart, weight=1_000, times=5, together=3),
    Fault("terminate backends, 2 a second", "database", partial(terminate, per_second=2), weight=150),
    Fault("terminate backends, 20 a second", "database", partial(terminate, per_second=20), weight=150),
    Fault("freeze Postgres", "database", freeze, weight=300),
    Fault("fill the disk", "database", fill, weight=100),
    Fault("read-only", "database", read_only, weight=100),
    Fault("the clock jumps ahead", "database", partial(clock_jumps, seconds=3600), weight=50),
    Fault("the clock jumps back", "database", partial(clock_jumps, seconds=-10), weight=50),
    Fault("restore a backup", "database", set_back, weight=50),
    Fault("cut", "database", cut, weight=1_000),
    Fault("reset", "database", reset, weight=1_000),
    Fault("half open", "database", half_open, weight=1_000),
    Fault("2 s of latency", "database", slow, weight=1_000),
    Fault("partition", "database", partition, weight=500),
    Fault("commit acknowledgement lost", "database", lose_acknowledgements, weight=1_000),
)


def rounds(*areas: str) -> list[list[Fault]]:
    """The rounds of `make test` in these areas of the table: each fault as often as it says."""
    planned: list[list[Fault]] = []
    for fault in FAULTS:
        if fault.area in areas:
            bounds = [*range(0, fault.times, fault.together), fault.times]
            planned += [[fault] * (end - begin) for begin, end in pairwise(bounds)]
    return planned
