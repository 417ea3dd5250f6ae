"""Everything that one run of the fault programme needs: a Postgres, a proxy before it, a model server, workers, a
server with its readers, a client, and the judgement over what they come to. One seed decides all that is drawn."""

from __future__ import annotations

import asyncio
import itertools
import signal
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, TypeVar
from zlib import crc32

import asyncpg
import psutil

from circuit.app import Circuit
from circuit.definition import load_workflow
from circuit.engine.audit.inspection import inspect
from circuit.engine.commands import TokenInput
from circuit.engine.versions import Versions
from circuit.errors import CircuitError, Conflict
from circuit.security.principal import LOCAL
from circuit.storage import schema
from tests import invariants
from tests.chaos import nets
from tests.chaos.database import FaultyServer, set_clock_ahead
from tests.chaos.fleet import Fleet, Member
from tests.chaos.provider import SeededProvider
from tests.chaos.proxy import Proxy
from tests.chaos.subscriber import Audience
from tests.eventually import eventually
from tests.postgres import execute, free_port

DATABASE = "chaos"
LEASE_SECONDS = 1.0
PROGRESS_SECONDS = LEASE_SECONDS + 5.0
"""I4: once faults have stopped, whatever can start starts within one lease and five seconds."""
SLACK_SECONDS = 60.0
"""What a machine that does much else may add to that: a delay, never a wait of Circuit's own."""
REST_SECONDS = 240.0
QUIET_SECONDS = 5.0
"""When no model was asked for so long, the cases may all be over."""
DAWDLING = """
SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'
    AND state_change < pg_catalog.clock_timestamp() - interval '3 seconds'
"""
MOST_BYTES = 400_000_000
MOST_CONNECTIONS = 20
"""Of one process: two lanes, two pools, and a connection for each of its loops."""
FAULTS_OF_PROVIDERS = {
    "rate_limit": 0.02,
    "unavailable": 0.02,
    "broken": 0.01,
    "hang_at_connect": 0.004,
    "hang_in_stream": 0.004,
    "cut_stream": 0.02,
    "doubled_chunk": 0.02,
    "slow_first_chunk": 0.002,
}

LARGE = {"document": "A document that many cases have. " * 400}
"""What some of the cases carry, by their keys: an artefact."""

T = TypeVar("T")


class Broken(AssertionError):
    """A promise was broken; the message says which, and how to repeat the run."""


class Stage:
    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.folder = folder
        self.server = FaultyServer()
        self.provider = SeededProvider(seed=self.random.randrange(2**32), faults=FAULTS_OF_PROVIDERS)
        self.cases: list[str] = []
        self.cancelled: set[str] = set()
        self.workers = 2
        self.api_port = free_port()
        self.api: Member | None = None
        self.asked_again = False
        self.ahead = 0.0
        self._keys = itertools.count(1)
        self._versions = Versions()
        self.proxy: Proxy
        self.fleet: Fleet
        self.client: Circuit
        self.audience: Audience
        self.workflows: list[str] = []

    @classmethod
    @asynccontextmanager
    async def open(cls, seed: int, *, workers: int = 2, serve: bool = True) -> AsyncIterator[Stage]:
        """A stage with all its processes running, and all of it gone in the end."""
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="circuit-chaos-")))
            stage = cls(seed, folder)
            stack.callback(stage.server.remove)
            await asyncio.to_thread(stage.server.create)
            await asyncio.to_thread(stage.server.start)
            await execute(stage.server.url(), f"CREATE DATABASE {DATABASE}")
            await schema.upgrade(stage.url)
            await stage.clock_jumps(0)
            stage.proxy = await stack.enter_async_context(Proxy(stage.server.port))
            await stack.enter_async_context(stage.provider)
            stage.client = await stack.enter_async_context(Circuit.open(stage.url, worker=False))
            for name, document in nets.documents(stage.provider.url).items():
                await stage.client.publish(load_workflow(nets.text(document), f"{name}.json"))
                stage.workflows.append(name)
            stage.fleet = Fleet(stage.proxied_url, folder)
            stack.push_async_callback(stage.fleet.end)
            stage.audience = Audience(stage.random, lambda: f"http://127.0.0.1:{stage.api_port}")
            stack.push_async_callback(stage.audience.leave)
            stage.workers = workers
            if serve:
                await stage.serve()
            await stage.recruit()
            yield stage

    @property
    def url(self) -> str:
        """The database, past the proxy: for those who judge."""
        return self.server.url(DATABASE)

    @property
    def proxied_url(self) -> str:
        return f"postgresql://{self.server.user}@127.0.0.1:{self.proxy.port}/{DATABASE}"

    # -- processes --------------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Start the server, which is a worker too, unless it runs."""
        if self.api is None or not self.api.alive:
            self.api = await self.fleet.add(port=self.api_port)

    async def recruit(self) -> None:
        """Start workers until there are as many as there should be."""
        self.fleet.forget()
        while len([member for member in self.fleet.living if member is not self.api]) < self.workers:
            await self.fleet.add()

    def some_worker(self) -> Member:
        """One of those that live, the server included."""
        return self.random.choice(self.fleet.living)

    # -- cases ------------------------------------------------------------------------------------------------------

    async def start_cases(self, count: int) -> list[str]:
        """Start cases of all shapes; those of this round are remembered until they are judged."""
        drawn = nets.draw(self.random, self.workflows, count)
        return [await self.start_case(workflow, f"case-{next(self._keys)}") for workflow in drawn]

    async def start_case(self, workflow: str, key: str) -> str:
        """Start a case, again and again until it is certain that it started. The key makes it one case."""

        async def start() -> str:
            token = TokenInput({"key": key, **(LARGE if crc32(key.encode()) % 3 == 0 else {})})
            return str(await self.client.commands.start_case(workflow, token, principal=LOCAL, key=key))

        case = await self.insisting(start)
        if case not in self.cases:
            self.cases.append(case)
        return case

    async def cancel(self, case: str) -> None:
        """Have a case cancelled, whatever happens to it meanwhile; if it was, it must stay so. It may end before."""
        key = f"cancel-{case}"

        async def ask() -> Any:
            return await self.client.commands.cancel(
                Circuit.key(case), principal=LOCAL, idempotency_key=key, wait_seconds=REST_SECONDS
            )

        try:
            outcome = await self.insisting(ask)
        except Conflict:
            return
        if outcome.state.value == "applied":
            self.cancelled.add(case)

    async def insisting(self, act: Callable[[], Awaitable[T]], within: float = REST_SECONDS) -> T:
        """What `act` returns, tried again while the database is away."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        while True:
            try:
                return await act()
            except (CircuitError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                passing = not isinstance(error, CircuitError) or error.retryable
                if not passing or loop.time() > deadline:
                    raise
                await asyncio.sleep(0.1)

    async def clock_jumps(self, seconds: float) -> None:
        """The database's clock jumps by so much, and stays there."""
        self.ahead += seconds
        await set_clock_ahead(self.url, self.ahead)

    async def was_set_back(self) -> None:
        """The database is as it was: what began later has never been, and what was read or asked of it counts for
        nothing."""
        await self.audience.forget()
        rows = await self.fetch('SELECT case_id::text AS id FROM circuit."case"')
        there = {row["id"] for row in rows}
        self.cases = [case for case in self.cases if case in there]
        self.asked_again = True

    async def fetch(self, query: str, *arguments: object) -> list[Any]:
        """Rows, on a connection of their own, whatever the present state of the server."""

        async def look() -> list[Any]:
            connection = await asyncpg.connect(self.url, timeout=5)
            try:
                return await connection.fetch(query, *arguments, timeout=10)
            finally:
                connection.terminate()

        return await self.insisting(look)

    async def working(self, requests: int = 3) -> None:
        """Return when the models have been asked so often from now on; where all that began is over, more begins."""
        until = len(self.provider.asked) + requests
        async with asyncio.timeout(REST_SECONDS):
            while len(self.provider.asked) < until:
                try:
                    async with asyncio.timeout(QUIET_SECONDS):
                        await self.provider.wait_for(lambda _: len(self.provider.asked) >= until)
                except TimeoutError:
                    await self.start_cases(1)

    async def followed(self, most: int) -> None:
        """Have executions of this round read, as they begin, until there are so many readers."""
        known: set[str] = set()
        while len(self.audience.subscribers) < most:
            rows = await self.fetch(
                "SELECT case_id::text || '.' || firing AS id FROM circuit.execution"
                " WHERE case_id = ANY($1::text[]::uuid[])",
                self.cases,
            )
            new = [row["id"] for row in rows if row["id"] not in known]
            known.update(new)
            for execution in new[: most - len(self.audience.subscribers)]:
                self.audience.follow(execution, self.random.choice([1, 1, 2]))
            await asyncio.sleep(0.1)

    # -- judgement --------------------------------------------------------------------------------------------------

    async def heal(self) -> None:
        """Every fault is over: the server runs, the network is whole, nobody is stopped, nobody is missing."""
        self.proxy.heal()
        await asyncio.to_thread(self.server.come_back)
        for member in self.fleet.living:
            if member.stopped:
                member.signal(signal.SIGCONT)
        await self.serve()
        await self.recruit()

    async def holds(self) -> None:
        """What must hold at every moment holds now. Who was stopped in the midst of a transaction goes on with it
        first, as soon as the machine lets him; one that is left lying stays."""

        async def nobody_dawdles() -> bool:
            return not await self.fetch(DAWDLING)

        await eventually(nobody_dawdles, within=SLACK_SECONDS, what="I7: the end of every transaction")
        await self.insisting(lambda: invariants.check(self.url, at_rest=False))

    async def progresses(self) -> None:
        """I4: whatever waits to be looked at is looked at within the time that is promised."""

        async def none_waits() -> bool:
            return not await self.insisting(lambda: invariants.waiting_since(self.url, PROGRESS_SECONDS))

        await asyncio.sleep(0)
        await eventually(none_waits, within=PROGRESS_SECONDS + SLACK_SECONDS, what="I4: progress")

    async def settle(self) -> None:
        """The faults have stopped: everything comes to its end in time, and then every invariant holds."""
        await self.heal()
        await self.progresses()

        async def ended() -> bool:
            rows = await self.fetch(
                'SELECT count(*) AS count FROM circuit."case" WHERE case_id = ANY($1::text[]::uuid[])'
                " AND status IN ('completed', 'failed', 'cancelled')",
                self.cases,
            )
            return rows[0]["count"] == len(self.cases)

        await eventually(ended, within=REST_SECONDS, what=f"the end of {len(self.cases)} cases")
        unread = await self.audience.ended(REST_SECONDS)
        assert not unread, f"I5: the streams of {unread} never ended for their readers"
        await self.judge()

    async def judge(self) -> None:
        faults = await self.audience.judge(self.url)
        assert not faults, "I5: " + "\n".join(faults)
        await invariants.check(self.url)
        await self.judge_amounts()
        report = await inspect(self.client.database, versions=self._versions)
        assert report.clean, f"circuit fsck: {report.as_dict()}"
        rows = await self.fetch(
            'SELECT case_id::text AS id, status FROM circuit."case" WHERE case_id = ANY($1::text[]::uuid[])', self.cases
        )
        ends = {row["id"]: row["status"] for row in rows}
        assert len(ends) == len(self.cases), "a case that was started is gone"
        for case, status in ends.items():
            assert status in ("completed", "cancelled"), f"case {case} is {status}"
            assert (status == "cancelled") == (case in self.cancelled), f"case {case} is {status}: cancel or not?"
        if not self.asked_again:
            await self.judge_requests()
        self.cases.clear()
        self.cancelled.clear()
        self.asked_again = False

    async def judge_amounts(self) -> None:
        """I10: whatever was lost and begun anew, no process has grown without bound, and no connection was left."""
        for member in self.fleet.living:
            size = psutil.Process(member.pid).memory_info().rss
            assert size < MOST_BYTES, f"I10: {member.name} has {size:,} bytes"
        rows = await self.fetch(
            "SELECT count(*) AS count FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'circuit'"
        )
        most = MOST_CONNECTIONS * (len(self.fleet.living) + 1)
        assert rows[0]["count"] <= most, f"I10: {rows[0]['count']} connections, and {most} are too many"

    async def judge_requests(self) -> None:
        """I9: each start asks at most once, and not at all if its attempt's answer was recorded before it began.

        Which of two rows came first is told by their transactions, and not by clocks, which jump."""
        answered = {
            (row["execution"], row["attempt"]): row["transaction"]
            for row in await self.fetch(
                "SELECT case_id::text || '.' || firing AS execution, attempt, min(xmin::text::bigint) AS transaction"
                " FROM circuit.journal"
                " WHERE case_id = ANY($1::text[]::uuid[]) GROUP BY 1, 2",
                self.cases,
            )
        }
        starts = await self.fetch(
            """
            SELECT f.case_id::text || '.' || f.number AS execution, f.transition, f.case_id::text AS "case",
                f.request->'consumed'->0->>0 AS token, f.request->>'history_count' AS count,
                h.xmin::text::bigint AS transaction, h.kind, h.body->>'reason' AS reason
            FROM circuit.firing f JOIN circuit.history h
                ON h.tenant_id = f.tenant_id AND h.case_id = f.case_id AND h.firing = f.number
                AND h.kind IN ('firing_begun', 'firing_resumed')
            WHERE f.case_id = ANY($1::text[]::uuid[]) ORDER BY f.case_id, f.number, h.seq
            """,
            self.cases,
        )
        may: Counter[str] = Counter()
        attempts: Counter[str] = Counter()
        for row in starts:
            execution = row["execution"]
            attempts[execution] += row["kind"] == "firing_begun" or row["reason"] == "retry"
            answer = answered.get((execution, attempts[execution]))
            may[f"{row['transition']} {row['case']}.{row['token']} {row['count']}"] += (
                answer is None or row["transaction"] <= answer
            )
        asked = Counter(one.question for one in self.provider.asked)
        for question, times in may.items():
            assert asked[question] <= times, f"I9: {question!r} was asked {asked[question]} times, and may be {times}"
