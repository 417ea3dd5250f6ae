"""What becomes of cases that a worker claims: read when they can be, found again, answered, and given up in sight."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import invariants
import pytest
from eventually import eventually
from parts import Doing, at_once, for_ever
from running import CHAIN, LIMITS, MANUAL, REVIEW, engine, publish, start, until

from circuit.definition import compile_document
from circuit.engine.action import ActionCall, ActionContext, ActionOutput
from circuit.engine.desk import Desk
from circuit.engine.engine import Engine
from circuit.engine.outbox import Outbox
from circuit.engine.owner import Owner
from circuit.engine.troubles import MOST_TRIES
from circuit.engine.versions import Versions
from circuit.engine.worker import Tenure
from circuit.errors import RateLimited
from circuit.ids import CaseKey
from circuit.security.principal import LOCAL
from circuit.storage import workers
from circuit.storage.database import Database
from circuit.storage.records import CaseWrite, LogWrite
from circuit.storage.writer import Writer


@pytest.fixture
async def plain(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


def tenure(running: Engine) -> Tenure:
    assert running.worker is not None and running.worker.tenure is not None
    return running.worker.tenure


class Poison:
    """A bug in the owner that shows with some cases. Counts how often each was tried."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cases: set[CaseKey] = set()
        self.tries: Counter[CaseKey] = Counter()
        wake = Owner.wake

        def poisonous(owner: Owner, now: Any) -> Any:
            key = owner.memory.key
            if key in self.cases:
                self.tries[key] += 1
                raise ZeroDivisionError("a bug with sk-abcdefghijkl")
            return wake(owner, now)

        monkeypatch.setattr(Owner, "wake", poisonous)


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Poison:
    return Poison(monkeypatch)


async def test_a_fault_of_ours_in_one_case_does_not_stop_the_others(
    database: Database, poison: Poison, caplog: pytest.LogCaptureFixture
) -> None:
    async with engine(database, worker=False) as asking:
        await publish(asking, CHAIN)
        bad = await start(asking, "chain")
        poison.cases.add(bad)
        good = [await start(asking, "chain") for _ in range(5)]
        async with engine(database) as running:
            for key in good:
                await until(asking, key, "completed")
            await until(asking, bad, "attention")
            assert poison.tries[bad] == MOST_TRIES
            assert str(bad) in caplog.text
            # It is not forgotten: somebody who asks for it gives it another chance.
            poison.cases.clear()
            outcome = await asking.commands.cancel(bad, principal=LOCAL)
            assert outcome.state == "applied"
            assert tenure(running).lease.held


async def test_a_case_that_fails_again_and_again_is_given_up_in_sight_of_everybody(
    database: Database, database_url: str, poison: Poison, plain: Any
) -> None:
    async with engine(database, worker=False) as asking:
        await publish(asking, CHAIN + "outbox: [firing_failed]")
        bad = await start(asking, "chain")
        poison.cases.add(bad)
        async with engine(database):
            case = await until(asking, bad, "attention")
            assert [(one.code, one.open) for one in case.incidents] == [("action_failed", True)]
            message = case.incidents[0].message
            assert str(bad) in message and "log" in message and "ZeroDivisionError" in message
            assert "sk-" not in message
            assert case.history[-1].kind == "firing_failed"
            [left] = await Outbox(database, bad.tenant).read()
            assert (left.key, left.seq, left.kind) == (bad, case.history[-1].seq, "firing_failed")
            assert await plain.fetchval('SELECT owner FROM circuit."case" WHERE case_id = $1', bad.case) is None
            # Whoever asks for something while the bug is there is told, and no second incident is raised.
            outcome = await asking.commands.retry(bad, principal=LOCAL, wait_seconds=30)
            assert outcome.state == "refused"
            assert str(bad) in outcome.result["error"]["message"]
            case = await until(asking, bad, "attention")
            assert len(case.incidents) == 1
            poison.cases.clear()
            outcome = await asking.commands.retry(bad, principal=LOCAL)
            assert outcome.state == "applied"
            await until(asking, bad, "completed")
    await invariants.check(database_url)


async def test_a_case_that_is_given_up_while_it_waits_for_a_retry_comes_to_rest(
    database: Database, database_url: str, poison: Poison
) -> None:
    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        if call.attempt == 1:
            poison.cases.add(call.key)
            raise RateLimited("slow down")
        return ActionOutput({"answer": "yes"})

    retried = REVIEW.replace(
        "output_mapping: {data.answer: answer}",
        "output_mapping: {data.answer: answer}, retry_config: {max_attempts: 3, backoff_seconds: 0.01}",
    )
    async with engine(database, {"agent": Doing(perform)}) as running:
        await publish(running, retried)
        key = await start(running, "review")
        case = await until(running, key, "attention")
        assert case.due_at is None, "nothing more happens by itself: who follows the case may stop"
        poison.cases.clear()
        assert (await running.commands.retry(key, principal=LOCAL)).state == "applied"
        await until(running, key, "completed")
    await invariants.check(database_url)


async def test_a_worker_for_one_case_does_not_hammer_it_when_it_was_given_up(
    database: Database, poison: Poison, plain: Any
) -> None:
    async with engine(database, worker=False) as asking:
        await publish(asking, CHAIN)
        bad = await start(asking, "chain")
        poison.cases.add(bad)
        async with engine(database, only=[bad]) as running:
            await until(asking, bad, "attention")
            claims = tenure(running).claims
            looks = 0
            look = claims._look

            async def counted(connection: Any) -> bool:
                nonlocal looks
                looks += 1
                return await look(connection)

            claims._look = counted  # type: ignore[method-assign]
            await eventually(lambda: looks >= 5, what="five looks")
            assert poison.tries[bad] == MOST_TRIES
            # It is tried again after a while, and whoever follows it has seen that it rests.
            assert await plain.fetchval('SELECT status FROM circuit."case"') == "attention"


async def test_a_case_that_cannot_be_read_does_not_stop_the_others(
    database: Database, database_url: str, plain: Any
) -> None:
    async with engine(database, worker=False) as asking:
        await publish(asking, CHAIN)
        strange = await start(asking, "chain")
        await plain.execute(
            "INSERT INTO circuit.incident (tenant_id, case_id, number, transition, code, message, blocks, raised_at)"
            " VALUES ($1, $2, 7, 'first', 'odd', '', '[[1, 2, 3]]', now())",
            strange.tenant,
            strange.case,
        )
        # Of a case in which nothing has happened yet, nothing is read but its tokens.
        await plain.execute('UPDATE circuit."case" SET seq = 2 WHERE case_id = $1', strange.case)
        good = await start(asking, "chain")
        async with engine(database) as running:
            await until(asking, good, "completed")
            await eventually(lambda: not tenure(running).claims.holds(strange))
            row = await plain.fetchrow('SELECT status, owner FROM circuit."case" WHERE case_id = $1', strange.case)
            assert (row["status"], row["owner"]) == ("attention", None)


async def test_a_case_that_is_claimed_before_its_release_is_answered_is_read_afterwards(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = asyncio.Event()
    write = Writer.write

    def slowly_answered(self: Writer, what: CaseWrite | LogWrite) -> asyncio.Future[None]:
        future = write(self, what)
        if not isinstance(what, CaseWrite) or not what.release or answer.is_set():
            return future

        async def late() -> None:
            await future
            await answer.wait()

        return asyncio.ensure_future(late())

    monkeypatch.setattr(Writer, "write", slowly_answered)
    # The self-check is far away.
    async with engine(database, limits=replace(LIMITS, lease_seconds=60)) as running:
        await publish(running, MANUAL)
        key = await start(running, "manual")
        await until(running, key, "waiting")
        assert key in tenure(running).desk
        fired = asyncio.create_task(running.commands.fire(key, "publish", {"title": "x"}, principal=LOCAL))
        await eventually(lambda: tenure(running).claims.holds(key), what="the case claimed again")
        answer.set()
        assert (await fired).state == "applied"
        await until(running, key, "completed")


async def given_away(running: Engine, plain: Any, key: CaseKey) -> None:
    """Make a case the worker's own behind its back, as a claim does whose answer is lost."""
    await plain.execute("DELETE FROM circuit.ready WHERE case_id = $1", key.case)
    await plain.execute(
        'UPDATE circuit."case" SET owner = $1 WHERE case_id = $2', tenure(running).incarnation.id, key.case
    )


async def test_a_case_that_its_worker_does_not_know_of_is_found_within_a_lease(
    database: Database, database_url: str, plain: Any
) -> None:
    async with engine(database, only=[]) as running:
        await publish(running, CHAIN)
        key = await start(running, "chain")
        await given_away(running, plain, key)
        await until(running, key, "completed")
    await invariants.check(database_url)


async def test_a_command_for_a_case_that_its_worker_does_not_know_of_has_it_read(
    database: Database, database_url: str, plain: Any
) -> None:
    async with engine(database, only=[], limits=replace(LIMITS, lease_seconds=60)) as running:
        await publish(running, MANUAL)
        key = await start(running, "manual")
        await given_away(running, plain, key)
        outcome = await running.commands.fire(key, "publish", {"title": "x"}, principal=LOCAL)
        assert outcome.state == "applied"
        await until(running, key, "completed")
    await invariants.check(database_url)


@pytest.mark.parametrize("ending", ["stopped", "fenced"])
async def test_what_is_not_applied_when_a_worker_ends_is_applied_by_the_next(
    ending: str, database: Database, database_url: str, plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivered = asyncio.Event()

    def lost(self: Desk, key: CaseKey, command: Any) -> bool:
        """The worker ends between its look at the command and the commit of what it leads to."""
        delivered.set()
        return True

    async def due() -> int:
        return await plain.fetchval("SELECT count(*) FROM circuit.ready WHERE case_id = $1", key.case)

    monkeypatch.setattr(Desk, "deliver", lost)
    action = Doing(for_ever)
    async with engine(database, {"agent": action}, limits=replace(LIMITS, stop_seconds=0.05)) as running:
        await publish(running, REVIEW)
        key = await start(running, "review")
        await eventually(lambda: action.calls)
        asked = await running.commands.cancel(key, principal=LOCAL, wait_seconds=0)
        await delivered.wait()
        assert asked.state == "pending" and await due() == 1
        if ending == "fenced":
            connection = await database.raw()
            await workers.take_over(connection, tenure(running).incarnation.id)
            await connection.close()
            await until(running, key, "cancelled")
    if ending == "stopped":
        assert await due() == 1
        async with engine(database) as other:
            await until(other, key, "cancelled")
    async with engine(database, worker=False) as asking:
        assert (await asking.commands.outcome(key, asked.id)).state == "applied"
    await invariants.check(database_url)


async def test_a_command_that_is_delivered_twice_is_applied_once(database: Database, monkeypatch: Any) -> None:
    forever = MANUAL.replace("to_place: done", "to_place: draft")
    deliver = Desk.deliver

    def twice(self: Desk, key: CaseKey, command: Any) -> bool:
        return deliver(self, key, command) and deliver(self, key, command)

    monkeypatch.setattr(Desk, "deliver", twice)
    async with engine(database) as running:
        await publish(running, forever)
        key = await start(running, "manual")
        await until(running, key, "waiting")
        for title in "ab":
            outcome = await running.commands.fire(key, "publish", {"title": title}, principal=LOCAL)
            assert outcome.state == "applied"
        case = await running.queries.case(key)
        assert case is not None and case.tokens[0].version == 3


async def test_a_version_that_does_not_compile_here_is_left_to_others(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with engine(database, worker=False) as asking:
        await publish(asking, CHAIN)
        strange = await start(asking, "chain")

    def refuse(document: Any) -> Any:
        """A release that knows less: its compiler refuses what the other one published."""
        if document["workflow"] == "chain":
            raise ValueError("a key from the future")
        return compile_document(document)

    async with engine(database, versions=Versions(refuse)) as running:
        await until(running, strange, "attention")
        await publish(running, MANUAL)
        key = await start(running, "manual")
        await until(running, key, "waiting")
        found = await running.queries.why(strange)
        assert found is not None and "from the future" in found.summary
    assert str(strange) in caplog.text and "from the future" in caplog.text


async def test_what_was_claimed_and_has_not_begun_counts_as_if_it_had(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty cases, four slots, and a database that takes its time: four are claimed, however often it is looked."""
    answering = asyncio.Event()
    at_once_written = Writer.write

    def write(writer: Writer, write: CaseWrite | LogWrite) -> asyncio.Future[None]:
        async def later() -> None:
            await answering.wait()
            await at_once_written(writer, write)

        return asyncio.ensure_future(later())

    monkeypatch.setattr(Writer, "write", write)
    async with engine(database, worker=False) as asking:
        await publish(asking, REVIEW)
        keys = [await start(asking, "review") for _ in range(20)]
        limits = replace(LIMITS, executions=4)
        async with engine(database, {"agent": Doing(at_once)}, limits=limits) as running:
            await eventually(lambda: len(tenure(running).desk) >= 4, what="cases are claimed")
            connection = await database.raw()
            for _ in range(5):
                await tenure(running).claims._look(connection)  # pyright: ignore[reportPrivateUsage]
            await connection.close()
            assert len(tenure(running).desk) == 4
            answering.set()
            for key in keys:
                await until(asking, key, "completed")
