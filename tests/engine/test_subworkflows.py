"""Cases that open cases: opened with the commit that waits for them, told of once, and cancelled with who waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import invariants
import pytest
from eventually import eventually
from parts import Doing, SystemIds, at_once, for_ever
from running import LIMITS, engine, publish, start, until

from circuit.actions.human import HumanAction
from circuit.actions.subworkflow import SubworkflowAction
from circuit.engine import troubles
from circuit.engine.action import Action, ActionCall, ActionContext, ActionOutput
from circuit.engine.audit import deployment
from circuit.engine.children import Children
from circuit.engine.connecting import connected
from circuit.engine.engine import Engine
from circuit.engine.kinship import DEEPEST
from circuit.engine.owner import Owner
from circuit.engine.versions import Versions
from circuit.errors import InvalidRequest
from circuit.ids import CaseKey
from circuit.security.principal import LOCAL
from circuit.storage import kinship, workers
from circuit.storage.database import Database

PARENT = """
workflow: order
places:
  open: {initial: true}
  done: {terminal: true}
  broken: {terminal: true}
transitions:
  check:
    from_places: open
    to_place: done
    on_failure: broken
    action:
      type: subworkflow
      workflow: credit
      input_mapping: {customer: data.customer}
      output_mapping: {data.score: score, data.child: case_id, data.place: place}
"""
CHILD = """
workflow: credit
colours:
  Customer: {type: object, required: [customer], properties: {customer: {type: string}}}
places:
  asked: {initial: true, colour: Customer}
  good: {terminal: true}
  bad: {terminal: true, outcome: failed}
agents:
  scorer:
    name: Scorer
    llm_provider: {type: scripted, model: any, responses: ["yes"]}
    prompts: {system: You score., user_template: "{input_data}"}
    output_schema: {type: object, properties: {answer: {type: string}}}
transitions:
  score:
    from_places: asked
    to_place: good
    on_failure: bad
    agent_execution: {agent_id: scorer, output_mapping: {data.score: answer}}
"""


@asynccontextmanager
async def family(database: Database, agent: Action | None = None, **options: Any) -> AsyncIterator[Engine]:
    versions = Versions()
    children = Children(database, versions, SystemIds())
    actions: Mapping[str, Action] = {
        "agent": agent or Doing(at_once),
        "human": HumanAction(),
        "subworkflow": SubworkflowAction(children),
    }
    async with engine(database, actions, versions=versions, **options) as running:
        yield running


@pytest.fixture
async def plain(database_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def audited(database: Database) -> list[str]:
    """What `circuit fsck` finds wrong beyond single cases."""
    async with connected(database) as connection:
        faults, _ = await deployment.check(connection)
    return [fault.message for fault in faults]


async def test_an_audit_finds_who_waits_for_nothing_and_who_is_not_waited_for(database: Database, plain: Any) -> None:
    async with family(database, Doing(for_ever)) as running:
        await publish(running, CHILD)
        await publish(running, PARENT)
        keys = [await start(running, "order", {"customer": "Ada"}) for _ in range(2)]
        children = [await child_of(running, plain, key) for key in keys]
        for key in keys:
            await until(running, key, "waiting")
    # Nobody says what the new case needs of a worker but its row: an older release takes none of them.
    needed = await plain.fetch(
        'SELECT DISTINCT b.requires::text FROM circuit."case" c JOIN circuit.bucket b ON b.bucket = c.bucket'
        " WHERE c.parent_case IS NOT NULL"
    )
    assert len(needed) == 1 and '"features": ["subworkflow"]' in needed[0][0]
    await plain.execute("SET session_replication_role = replica")
    await plain.execute('UPDATE circuit."case" SET status = $1 WHERE case_id = $2', "completed", children[0].case)
    await plain.execute("UPDATE circuit.firing SET state = 'failed' WHERE case_id = $1", keys[1].case)
    found = await audited(database)
    assert [f"waits for case {children[0]}" in one or f"{keys[1]}.1" in one for one in found] == [True, True], found


async def child_of(running: Engine, plain: Any, parent: CaseKey) -> CaseKey:
    async def look() -> Any:
        return await plain.fetchval('SELECT case_id FROM circuit."case" WHERE parent_case = $1', parent.case)

    return CaseKey(1, await eventually(look, what="a child"))


async def test_a_case_does_not_rest_when_its_child_ends_while_one_looks(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = asyncio.Event()

    async def scored(call: ActionCall, context: ActionContext) -> ActionOutput:
        await ending.wait()
        return ActionOutput({"answer": "yes"})

    async with family(database, Doing(scored)) as running:
        await publish(running, CHILD)
        await publish(running, PARENT)
        key = await start(running, "order", {"customer": "Ada"})
        await until(running, key, "waiting")
        looked = kinship.busy

        async def meanwhile(connection: Any, of: CaseKey) -> bool:
            monkeypatch.setattr(kinship, "busy", looked)
            ending.set()
            await until(running, key, "completed")
            return await looked(connection, of)

        monkeypatch.setattr(kinship, "busy", meanwhile)
        standing = await running.queries.standing(key)
    assert standing is not None and standing.owned


async def test_a_child_runs_and_its_parent_goes_on_with_what_it_ends_with(
    database: Database, database_url: str, plain: Any
) -> None:
    async def scored(call: ActionCall, context: ActionContext) -> ActionOutput:
        return ActionOutput({"answer": "yes"}, usage={"input_tokens": 5, "cost_usd": 0.25})

    async with family(database, Doing(scored)) as running:
        await publish(running, CHILD)
        await publish(running, PARENT)
        key = await start(running, "order", {"customer": "Ada"})
        case = await until(running, key, "completed")
        child = await child_of(running, plain, key)
        assert case.tokens[0].data == {"customer": "Ada", "score": "yes", "child": str(child), "place": "good"}
        assert [one.as_dict()["case_id"] for one in case.children] == [str(child)]
        assert case.executions[0].usage == {"input_tokens": 5, "cost_usd": 0.25}
        seen = await running.queries.case(child)
        assert seen is not None and seen.parent == f"{key}.1"
        assert seen.tokens[0].data == {"customer": "Ada", "score": "yes"}
    await invariants.check(database_url)


async def test_how_a_child_ends_is_how_the_firing_ends(database: Database, database_url: str, plain: Any) -> None:
    async def broken(call: ActionCall, context: ActionContext) -> ActionOutput:
        raise RuntimeError("no")

    async with family(database, Doing(broken)) as running:
        await publish(running, CHILD)
        await publish(running, PARENT)
        key = await start(running, "order", {"customer": "Ada"})
        case = await until(running, key, "completed")
        assert [token.place for token in case.tokens] == ["broken"]
        failed = next(one.event for one in case.history if one.event.kind == "firing_failed")
        assert failed.error["code"] == "subworkflow_failed" and "is failed" in failed.error["message"]
        # What the first place of the child does not take is no case at all.
        wrong = await start(running, "order", {"customer": 5})
        case = await until(running, wrong, "completed")
        failed = next(one.event for one in case.history if one.event.kind == "firing_failed")
        assert failed.error["code"] == "invalid_input"
        assert await plain.fetchval('SELECT count(*)::int FROM circuit."case" WHERE parent_case = $1', wrong.case) == 0
        await running.commands.retire("credit", LOCAL)
        retired = await until(running, await start(running, "order", {"customer": "Ada"}), "completed")
        assert "is retired" in str(retired.history)
    await invariants.check(database_url)


async def test_who_waits_is_cancelled_with_what_it_waits_for_and_neither_is_signalled(
    database: Database, database_url: str, plain: Any
) -> None:
    async with family(database, Doing(for_ever)) as running:
        await publish(running, CHILD)
        await publish(running, PARENT)
        await publish(
            running,
            PARENT.replace("workflow: order", "workflow: hasty").replace(
                "      input_mapping", "      timeout_seconds: 0.3\n      input_mapping"
            ),
        )
        key = await start(running, "order", {"customer": "Ada"})
        child = await child_of(running, plain, key)
        await until(running, key, "waiting")
        why = await running.queries.why(key)
        assert why is not None and f"for case {child} of credit to end" in why.summary
        assert await audited(database) == []
        refused = await running.commands.signal(key, 1, {"status": "completed"}, principal=LOCAL)
        assert refused.state.value == "refused" and "waits for the end of case" in str(refused.result)
        await running.commands.cancel(key, principal=LOCAL)
        ended = await until(running, child, "cancelled")
        assert f"{key}.1" in ended.history[-1].event.reason
        # A child that is cancelled by itself fails who waits for it.
        key = await start(running, "order", {"customer": "Ada"})
        await running.commands.cancel(await child_of(running, plain, key), principal=LOCAL)
        assert "is cancelled" in str((await until(running, key, "completed")).history)
        # So does one that takes too long, which ends with it.
        key = await start(running, "hasty", {"customer": "Ada"})
        child = await child_of(running, plain, key)
        assert "timeout" in str((await until(running, key, "completed")).history)
        await until(running, child, "cancelled")
    await invariants.check(database_url)


async def test_what_is_called_must_be_there_and_take_the_inputs(database: Database) -> None:
    async with family(database) as running:
        with pytest.raises(InvalidRequest, match="there is no such workflow"):
            await publish(running, PARENT)
        await publish(running, CHILD)
        with pytest.raises(InvalidRequest, match="what it asks for: customer"):
            await publish(running, PARENT.replace("{customer: data.customer}", "{client: data.customer}"))
        endless = PARENT.replace("workflow: credit", "workflow: order").replace("workflow: order", "workflow: order")
        await publish(running, endless.replace("score: score, data.", ""))
        key = await start(running, "order", {"customer": "Ada"})
        case = await until(running, key, "completed")
        assert [token.place for token in case.tokens] == ["done"]
        async with database.transaction(1) as connection:
            deepest = (await connection.exec_driver_sql('SELECT max(depth) FROM circuit."case"')).scalar()
        assert deepest == DEEPEST


async def test_whatever_dies_each_child_is_opened_once_and_told_of_once(
    database: Database, database_url: str, plain: Any
) -> None:
    number = 20
    async with family(database) as running, family(database) as second:
        await publish(running, CHILD)
        await publish(running, PARENT)
        keys = [await start(running, "order", {"customer": str(one)}) for one in range(number)]
        for one in [running, second] * 3:
            tenure = one.worker.tenure if one.worker is not None else None
            if tenure is not None:
                await workers.take_over(plain, tenure.incarnation.id)
            await until(running, keys.pop(), "completed")
        for key in keys:
            await until(running, key, "completed")
        counted = await plain.fetch(
            'SELECT parent_case, count(*)::int AS children FROM circuit."case" WHERE parent_case IS NOT NULL GROUP BY 1'
        )
        assert [row["children"] for row in counted] == [1] * number
        told = await plain.fetchval("SELECT count(*)::int FROM circuit.command WHERE kind = 'child_ended'")
        assert told == number
    await invariants.check(database_url)


async def test_who_was_given_up_when_its_child_ended_hears_of_it_when_it_is_tried_again(
    database: Database, database_url: str, plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken: set[CaseKey] = set()
    release = asyncio.Event()
    wake = Owner.wake

    def poisonous(owner: Owner, now: Any) -> Any:
        if owner.memory.key in broken:
            raise ZeroDivisionError("a bug")
        return wake(owner, now)

    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        await release.wait()
        return ActionOutput({"answer": "yes"})

    monkeypatch.setattr(Owner, "wake", poisonous)
    monkeypatch.setattr(troubles, "MOST_TRIES", 2)
    async with family(database, Doing(perform)) as running:
        await publish(running, CHILD)
        await publish(running, PARENT)
        key = await start(running, "order", {"customer": "Ada"})
        child = await child_of(running, plain, key)
        await until(running, key, "waiting")
        broken.add(key)
        release.set()
        await until(running, child, "completed")
        await until(running, key, "attention")
        assert await audited(database) == []
        broken.clear()
        assert (await running.commands.retry(key, principal=LOCAL)).state == "applied"
        assert (await until(running, key, "completed")).tokens[0].place == "done"
    await invariants.check(database_url)


async def test_who_runs_one_case_only_runs_what_it_opens(database: Database, plain: Any) -> None:
    async with family(database, worker=False) as idle:
        await publish(idle, CHILD)
        await publish(idle, PARENT)
        keys = [await start(idle, "order", {"customer": "Ada"}) for _ in range(2)]
        async with family(database, only=[keys[0]], limits=LIMITS) as running:
            await until(running, keys[0], "completed")
        assert (await until(idle, keys[1], "running")).status.value == "running"
