"""What may be asked, what is refused and how, and that asking twice with one key is asking once."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from eventually import eventually
from parts import Doing, at_once, for_ever
from running import CHAIN, MANUAL, REVIEW, WITHOUT_WAY_OUT, engine, publish, start, until

from circuit.engine.commands import OutcomeState, TokenInput
from circuit.errors import Conflict, Forbidden, InvalidRequest, NotFound, PayloadTooLarge, TokenRefused
from circuit.ids import CaseKey
from circuit.security.principal import LOCAL, Principal
from circuit.storage.database import Database

COLOURED = """
workflow: coloured
colours:
  Order: {type: object, required: [amount], properties: {amount: {type: integer, minimum: 1}, name: {type: string}}}
places:
  begin: {initial: true, colour: Order, capacity: 1}
  end: {terminal: true}
transitions:
  go: {from_places: begin, to_place: end}
"""

LAID = """
workflow: laid
places:
  begin: {tokens: [{data: {n: 1}}, {data: {n: 2}, metadata: {who: me}}]}
  end: {terminal: true}
transitions:
  go: {from_places: begin, to_place: end}
"""

AUTHOR = Principal("ann", roles=frozenset({"author"}))
STRANGER = Principal("bob", roles=frozenset({"reader"}))


async def test_publishing_twice_is_new_once(database: Database) -> None:
    async with engine(database, worker=False) as running:
        workflow = await publish(running, CHAIN)
        again = await running.commands.publish(workflow, LOCAL)
        assert (again.workflow_id, again.hash, again.new) == ("chain", workflow.hash, False)


async def test_a_case_starts_with_its_token_in_the_initial_place(database: Database) -> None:
    async with engine(database, worker=False) as running:
        await publish(running, CHAIN)
        key = await running.commands.start_case("chain", TokenInput({"n": 1}, {"by": "me"}), principal=LOCAL)
        case = await running.queries.case(key)
        assert case is not None
        assert case.status == "running"
        assert [token.as_dict() for token in case.tokens] == [
            {"id": f"{key.case}.1", "place": "a", "data": {"n": 1}, "metadata": {"by": "me"}}
        ]
        assert [event.kind for event in case.history] == ["case_started"]


async def test_without_a_token_a_case_starts_with_what_lies_in_its_places(database: Database) -> None:
    async with engine(database, worker=False) as running:
        await publish(running, LAID)
        await publish(running, CHAIN)
        laid = await running.queries.case(await running.commands.start_case("laid", None, principal=LOCAL))
        assert laid is not None
        assert [(token.place, token.data, token.metadata) for token in laid.tokens] == [
            ("begin", {"n": 1}, {}),
            ("begin", {"n": 2}, {"who": "me"}),
        ]
        empty = await running.queries.case(await running.commands.start_case("chain", None, principal=LOCAL))
        assert empty is not None and [(token.place, token.data) for token in empty.tokens] == [("a", {})]
        with pytest.raises(InvalidRequest, match="no initial place"):
            await start(running, "laid", {"n": 3})


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        pytest.param({"amount": 0, "name": 7}, TokenRefused, ("amount", "name"), id="every fault of the colour"),
        pytest.param({}, TokenRefused, ("amount",), id="missing"),
        pytest.param({"amount": 1, "name": "a\0b"}, TokenRefused, ("name", "NUL"), id="NUL"),
        pytest.param({"amount": 1, "a\0": 1}, TokenRefused, ("key",), id="NUL in a key"),
        pytest.param({"amount": math.nan}, TokenRefused, ("amount", "finite"), id="nan"),
        pytest.param({"amount": 1, "x": [math.inf]}, TokenRefused, ("x[0]", "finite"), id="infinity"),
        pytest.param({"amount": 1, "name": "\ud800"}, TokenRefused, ("surrogate",), id="lone surrogate"),
        pytest.param({"amount": 1, "name": "x" * 4_300_000}, PayloadTooLarge, ("bytes",), id="4 MiB"),
    ],
)
async def test_a_token_that_does_not_fit_is_refused_with_what_is_wrong(
    database: Database, data: dict[str, Any], error: type[Exception], words: tuple[str, ...]
) -> None:
    async with engine(database, worker=False) as running:
        await publish(running, COLOURED)
        with pytest.raises(error) as raised:
            await start(running, "coloured", data)
        for word in words:
            assert word in str(raised.value)
        assert len(str(raised.value)) < 2_000
        assert await running.queries.cases(1) == []


async def test_an_unknown_workflow_says_which_may_be_meant(database: Database) -> None:
    async with engine(database, worker=False) as running:
        await publish(running, CHAIN)
        with pytest.raises(NotFound, match="did you mean 'chain'"):
            await start(running, "chian")


@pytest.mark.parametrize(
    "parameters", [{"model": {}}, {"models": []}, {"models": {"a": "x"}}, {"models": {"a": {"type": "x"}}}]
)
async def test_parameters_that_nobody_knows_are_refused(database: Database, parameters: dict[str, Any]) -> None:
    async with engine(database, worker=False) as running:
        await publish(running, CHAIN)
        with pytest.raises(InvalidRequest):
            await running.commands.start_case("chain", None, principal=LOCAL, parameters=parameters)


async def test_one_key_starts_one_case_however_many_ask_at_once(database: Database) -> None:
    async with engine(database, worker=False) as running:
        await publish(running, CHAIN)
        keys = await asyncio.gather(
            *(running.commands.start_case("chain", None, principal=LOCAL, key="only-once") for _ in range(8))
        )
        assert len(set(keys)) == 1
        assert len(await running.queries.cases(1)) == 1


async def test_a_manual_transition_fires_with_its_form(database: Database) -> None:
    async with engine(database) as running:
        await publish(running, MANUAL)
        key = await start(running, "manual")
        await until(running, key, "waiting")
        outcome = await running.commands.fire(key, "publish", {"title": "On nets"}, principal=AUTHOR)
        assert outcome.state is OutcomeState.APPLIED
        assert outcome.result["transition"] == "publish"
        case = await until(running, key, "completed")
        assert [(token.place, token.data) for token in case.tokens] == [("done", {"title": "On nets"})]
        fired = next(event.event for event in case.history if event.kind == "transition_fired")
        assert fired.principal == "ann"  # type: ignore[union-attr]


async def test_what_cannot_be_fired_is_refused_at_once(database: Database) -> None:
    async with engine(database) as running:
        await publish(running, MANUAL)
        await publish(running, CHAIN)
        key = await start(running, "manual")
        await until(running, key, "waiting")
        fire = running.commands.fire
        with pytest.raises(InvalidRequest, match="did you mean 'publish'"):
            await fire(key, "publsh", {}, principal=AUTHOR)
        with pytest.raises(InvalidRequest, match="title"):
            await fire(key, "publish", {}, principal=AUTHOR)
        with pytest.raises(InvalidRequest, match="NUL"):
            await fire(key, "publish", {"title": "\0"}, principal=AUTHOR)
        with pytest.raises(Forbidden, match="author"):
            await fire(key, "publish", {"title": "x"}, principal=STRANGER)
        with pytest.raises(NotFound):
            await fire(CaseKey(1, running.commands._ids.uuid()), "publish", {}, principal=AUTHOR)
        with pytest.raises(NotFound):
            await fire(CaseKey(2, key.case), "publish", {"title": "x"}, principal=AUTHOR)
        ended = await start(running, "chain")
        await until(running, ended, "completed")
        with pytest.raises(Conflict, match="completed"):
            await fire(ended, "first", {}, principal=LOCAL)
        with pytest.raises(InvalidRequest, match="idempotency"):
            await fire(key, "publish", {"title": "x"}, principal=AUTHOR, idempotency_key="")


async def test_asked_again_with_its_key_a_command_answers_as_before_even_after_the_end(database: Database) -> None:
    async with engine(database) as running:
        await publish(running, MANUAL)
        key = await start(running, "manual")
        await until(running, key, "waiting")

        async def ask() -> Any:
            return await running.commands.fire(key, "publish", {"title": "x"}, principal=LOCAL, idempotency_key="one")

        outcomes = await asyncio.gather(*(ask() for _ in range(6)))
        await until(running, key, "completed")
        outcomes.append(await ask())
        assert {outcome.id for outcome in outcomes} == {outcomes[0].id}
        assert {outcome.state for outcome in outcomes} == {OutcomeState.APPLIED}
        case = await running.queries.case(key)
        assert case is not None
        assert [event.kind for event in case.history].count("transition_fired") == 1


async def test_without_a_worker_a_command_is_accepted_and_applied_later(database: Database) -> None:
    async with engine(database) as running:
        await publish(running, MANUAL)
        key = await start(running, "manual")
        await until(running, key, "waiting")
    async with engine(database, worker=False) as asking:
        outcome = await asking.commands.fire(key, "publish", {"title": "x"}, principal=LOCAL, wait_seconds=0.05)
        assert outcome.state is OutcomeState.PENDING
        async with engine(database):
            later = await asking.commands.outcome(key, outcome.id, wait_seconds=60)
            assert later.state is OutcomeState.APPLIED
            await until(asking, key, "completed")


async def test_a_transition_that_is_not_enabled_is_refused_by_the_owner_with_the_reason(database: Database) -> None:
    busy = MANUAL.replace("from_places: draft", "from_places: [draft, extra]").replace(
        "places: [draft, done]", "places: {draft: {initial: true}, extra: {}, done: {terminal: true}}"
    )
    async with engine(database) as running:
        await publish(running, busy + "  fill: {from_places: done, to_place: extra}\n")
        key = await start(running, "manual")
        await until(running, key, "stuck", "waiting", "attention")
        outcome = await running.commands.fire(key, "publish", {"title": "x"}, principal=LOCAL)
        assert outcome.state is OutcomeState.REFUSED
        assert outcome.result["error"]["code"] == "conflict"
        assert "extra" in outcome.result["error"]["message"]


async def test_cancelling_ends_the_case_and_what_runs_of_it(database: Database) -> None:
    action = Doing(for_ever)
    async with engine(database, {"agent": action}) as running:
        await publish(running, REVIEW)
        key = await start(running, "review")
        await eventually(lambda: action.calls)
        outcome = await running.commands.cancel(key, "no longer needed", principal=LOCAL)
        assert outcome.state is OutcomeState.APPLIED
        case = await until(running, key, "cancelled")
        assert [execution.status for execution in case.executions] == ["cancelled"]
        assert [token.place for token in case.tokens] == ["open"]
        worker = running.worker
        assert worker is not None and worker.tenure is not None
        slots = worker.tenure.desk.slots
        await eventually(lambda: slots.running == 0, what="the end of what was cancelled")


async def test_an_incident_is_retried_on_command(database: Database) -> None:
    broken = True

    async def perform(call: Any, context: Any) -> Any:
        if broken:
            raise ValueError("not today")
        return await at_once(call, context)

    async with engine(database, {"agent": Doing(perform)}) as running:
        await publish(running, WITHOUT_WAY_OUT)
        key = await start(running, "review")
        case = await until(running, key, "attention")
        assert [(incident.code, incident.open) for incident in case.incidents] == [("action_failed", True)]
        broken = False
        refused = await running.commands.retry(key, 99, principal=LOCAL)
        assert refused.state is OutcomeState.REFUSED
        outcome = await running.commands.retry(key, principal=LOCAL)
        assert outcome.state is OutcomeState.APPLIED
        case = await until(running, key, "completed")
        assert [incident.open for incident in case.incidents] == [False]


async def test_a_retired_workflow_starts_nothing_and_its_cases_go_on(database: Database) -> None:
    async with engine(database, worker=False) as asking:
        await publish(asking, MANUAL)
        running = await asking.commands.start_case("manual", None, principal=LOCAL, key="first")
        assert await asking.commands.retire("manual", LOCAL)
        assert not await asking.commands.retire("manual", LOCAL), "twice changes nothing"
        with pytest.raises(Conflict, match=r"retired.*circuit unretire"):
            await asking.commands.start_case("manual", None, principal=LOCAL)
        # Who asks again gets the answer that he got.
        assert await asking.commands.start_case("manual", None, principal=LOCAL, key="first") == running
        with pytest.raises(NotFound, match="no workflow 'manul'"):
            await asking.commands.retire("manul", LOCAL)
        async with engine(database) as working:
            fired = await working.commands.fire(running, "publish", {"title": "T"}, principal=LOCAL)
            assert fired.state == "applied"
            await until(working, running, "completed")
        assert await asking.commands.retire("manual", LOCAL, retired=False)
        assert await start(asking, "manual") != running
