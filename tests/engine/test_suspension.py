"""Firings that wait without a worker: what wakes them, what is kept for them, and that nothing is said twice."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import invariants
import pytest
from eventually import eventually
from parts import Doing
from running import REVIEW, engine, publish, start, until

from circuit.definition.workflow import RetryPolicy
from circuit.engine.action import ActionCall, ActionContext, ActionOutput, Suspended, Woken
from circuit.engine.diagnosis import explain
from circuit.engine.owner import Step
from circuit.errors import ProviderUnavailable
from circuit.events import CaseStarted
from circuit.ids import CaseKey, Numbered
from circuit.security.principal import LOCAL
from circuit.storage.database import Database
from circuit.storage.records import (
    ALL_ATTEMPTS,
    CaseRow,
    CaseStatus,
    CommandRow,
    CommandState,
    FiringState,
    NewCase,
    Parent,
)
from tests.engine.test_owner import NOW, Stage, acting, review_net

APPROVAL = {"type": "object", "required": ["approved"], "properties": {"approved": {"type": "boolean"}}}


class Waiting(Stage):
    """A case whose only firing has begun; its action waits when the test says so."""

    def __init__(self, retry: RetryPolicy | None = None, **options: Any) -> None:
        super().__init__(review_net(**options), [("draft", {})], review=acting(retry=retry or RetryPolicy()))
        self.begun = self.wake().starts[0]

    def suspend(self, wait: Suspended, start: Any = None, **recorded: Any) -> Step:
        call = (start or self.begun).call
        return self.commit(self.owner.suspended(call.firing, call.start, wait, recorded, 2, self.now))

    def signal(self, payload: Any = None, key: str | None = None, **options: Any) -> Any:
        return self.ask("signal", firing=1, key=key, payload=payload, **options)

    @property
    def recorded(self) -> dict[str, Any]:
        """The journal of the firing's first attempt."""
        return {step: value for (number, _, step), value in self.case.journal.items() if number == 1}

    def woken(self) -> Any:
        """The start that follows the wait."""
        self.read()
        return self.wake().starts[0]


def refusal(result: Any) -> str:
    assert result.state is CommandState.REFUSED
    return result.result["error"]["code"]


def test_what_screening_found_is_said_once_and_journalled_in_the_same_commit() -> None:
    stage, event = Waiting(RetryPolicy(max_attempts=2)), {"agent_id": "a", "action": "warn", "found": [{"kind": "x"}]}

    def screened(start: int, step: str = "screened:input") -> Any:
        return stage.commit(stage.owner.screened(1, start, step, {"refused": None}, event, stage.now))

    step = screened(stage.begun.call.start)
    assert [one.kind for _, one in step.write.events] == ["input_screened"]
    assert [(row.attempt, row.step) for row in step.write.journal] == [(ALL_ATTEMPTS, "screened:input")]
    # Neither twice, nor of a start that is over.
    assert screened(stage.begun.call.start).write is None
    assert screened(stage.begun.call.start + 1, "screened:tools").write is None
    assert stage.kinds.count("input_screened") == 1


def test_a_suspended_firing_holds_its_tokens_and_no_worker() -> None:
    stage = Waiting()
    step = stage.suspend(Suspended("person", "ok", {"title": "May I?"}, 60), answer="recorded")
    assert step.write is not None and step.write.release and not step.starts
    assert step.write.due_at == NOW + timedelta(seconds=60)
    assert stage.case.row.status is CaseStatus.WAITING
    row = stage.case.firings[1]
    assert (row.state, row.wake_at) == (FiringState.SUSPENDED, NOW + timedelta(seconds=60))
    assert row.awaits == {"kind": "person", "key": "ok", "payload": {"title": "May I?"}, "since": NOW.isoformat()}
    assert [holder for _, holder in stage.case.tokens.values()] == [1]
    assert stage.kinds[-1] == "firing_suspended"


def test_a_signal_starts_it_again_with_its_journal() -> None:
    stage = Waiting()
    stage.suspend(Suspended("person", "ok"))
    stage.case.journal[(1, 1, "answer:0")] = {"text": "recorded"}
    stage.read()
    assert stage.signal({"yes": True}).result == {"firing": 1, "key": None, "delivered": True}
    row = stage.case.firings[1]
    assert (row.state, row.attempt, row.start, row.awaits) == (FiringState.RUNNING, 1, 2, None)
    assert stage.case.history[-1][2].reason == "woken"
    assert stage.case.history[-1][2].principal == "ada"
    recorded = stage.case.state().journal[1]
    assert recorded["answer:0"] == {"text": "recorded"}
    assert recorded["$wait:ok"]["payload"] == {"yes": True}


def test_what_the_start_recorded_before_it_waited_is_known_while_the_case_stays_in_memory() -> None:
    stage = Waiting()
    call = stage.begun.call
    stage.commit(stage.owner.suspended(call.firing, call.start, Suspended("person"), {"answer:0": 1}, 0, NOW))
    stage.case.owner = 1  # somebody asks before it is given up
    command = CommandRow(UUID(int=99), "signal", {"firing": 1}, {"subject": "ada", "roles": []})
    result = stage.owner.command(command, NOW)
    assert result.starts[0].call.recorded == {"answer:0": 1, "$wait:": {"payload": None, "principal": "ada"}}
    assert result.starts[0].reason == "woken"


def test_time_ends_a_wait_and_only_when_it_is_up() -> None:
    stage = Waiting()
    stage.suspend(Suspended("person", "ok", timeout_seconds=60))
    stage.now = NOW + timedelta(seconds=59)
    stage.read()
    step = stage.wake()
    assert not step.starts and step.write is not None and step.write.release
    assert step.write.due_at == NOW + timedelta(seconds=60)
    stage.now = NOW + timedelta(seconds=60)
    call = stage.woken().call
    assert call.recorded["$wait:ok"]["timed_out"] is True
    assert refusal(stage.signal(key="ok")) == "conflict"


def test_a_signal_sent_twice_counts_once() -> None:
    stage = Waiting()
    stage.suspend(Suspended("person", "ok"))
    assert stage.signal(1, "ok").result["delivered"] is True
    assert refusal(stage.signal(2, "ok")) == "conflict"
    assert stage.case.journal[(1, 1, "$wait:ok")]["payload"] == 1


@pytest.mark.parametrize("key", ["ok", None])
def test_a_signal_sent_before_the_firing_waits_is_kept(key: str | None) -> None:
    stage = Waiting()
    assert stage.signal("early", key).result["delivered"] is False
    assert refusal(stage.signal("again", key)) == "conflict"
    step = stage.suspend(Suspended("person", "ok"))
    assert [start.call.recorded["$wait:ok"]["payload"] for start in step.starts] == ["early"]
    # It is used up: the next wait is not ended by it.
    again = stage.suspend(Suspended("person", "more"), step.starts[0])
    assert not again.starts and stage.case.firings[1].state is FiringState.SUSPENDED


def test_what_allows_one_call_of_a_tool_is_kept_for_no_other() -> None:
    stage = Waiting()
    yes = {"approved": True}
    stage.suspend(Suspended("tool_approval", "approve:a"))
    # An action of somebody's own may say less of what it waits for than an agent does.
    assert "for somebody to allow its call of a tool" in explain(stage.workflow, stage.case.state(), stage.now).summary
    assert stage.signal(yes).result["delivered"] is True
    assert refusal(stage.signal(yes)) == "conflict", "of two who say yes at once the second one is told so"
    begun = stage.woken()
    assert stage.signal(yes, "approve:b").result["delivered"] is False, "with its key it may come before"
    stage.suspend(Suspended("tool_approval", "approve:c"), begun)
    assert stage.case.firings[1].state is FiringState.SUSPENDED and "$wait:approve:c" not in stage.recorded
    stage.signal(yes)
    stage.suspend(Suspended("tool_approval", "approve:b"), stage.woken())
    assert stage.recorded["$wait:approve:b"]["payload"] == yes

    early = Waiting()
    early.signal(yes)
    early.suspend(Suspended("tool_approval", "approve:a"))
    assert early.case.firings[1].state is FiringState.SUSPENDED, "said before there was anything to allow"


def test_a_signal_that_was_kept_does_not_end_the_wait_for_a_case() -> None:
    stage = Waiting()
    assert stage.signal("early").result["delivered"] is False
    row = CaseRow("child", "hash", CaseStatus.RUNNING, 1, 1, 1, 1, NOW, parent=Parent(stage.case.key.case, 1))
    child = NewCase(CaseKey(1, UUID(int=7)), row, [], CaseStarted("child", "hash", (), "test"), {}, False)
    step = stage.suspend(Suspended("case", "case:1", opens=child))
    assert not step.starts and stage.case.firings[1].state is FiringState.SUSPENDED


def test_a_signal_for_another_wait_is_kept_until_that_one() -> None:
    stage = Waiting()
    stage.suspend(Suspended("person", "first"))
    assert stage.signal(2, "second").result["delivered"] is False
    stage.signal(1, "first")
    stage.read()
    call = stage.wake().starts[0].call
    step = stage.commit(stage.owner.suspended(1, call.start, Suspended("person", "second"), {}, 0, NOW))
    assert [start.call.recorded["$wait:second"]["payload"] for start in step.starts] == [2]


def test_a_signal_must_come_from_who_may_send_it_and_fit_its_form() -> None:
    stage = Waiting()
    stage.suspend(Suspended("person", "ok", roles=["editor"], form=APPROVAL))
    assert refusal(stage.signal({"approved": True})) == "forbidden"
    editor = {"subject": "eve", "roles": ["editor"]}
    assert refusal(stage.signal({"approved": "perhaps"}, principal=editor)) == "invalid_request"
    assert stage.case.firings[1].state is FiringState.SUSPENDED
    assert stage.signal({"approved": True}, principal=editor).state is CommandState.APPLIED


def test_a_signal_that_was_kept_is_judged_when_the_firing_waits() -> None:
    stage = Waiting()
    stage.signal({"approved": "perhaps"}, "ok")
    step = stage.suspend(Suspended("person", "ok", form=APPROVAL))
    assert not step.starts and stage.case.firings[1].state is FiringState.SUSPENDED
    assert stage.signal({"approved": True}, "ok").result["delivered"] is True


def test_a_firing_that_has_ended_or_never_began_takes_no_signal() -> None:
    stage = Waiting(on_failure="lost")
    assert refusal(stage.ask("signal", firing=2)) == "not_found"
    assert refusal(stage.ask("signal", firing="1")) == "invalid_request"
    stage.fail(stage.begun, ProviderUnavailable("away"))
    assert refusal(stage.ask("signal", firing=1)) == "conflict"


def test_what_was_said_survives_a_new_attempt() -> None:
    stage = Waiting(RetryPolicy(2, 1.0))
    stage.suspend(Suspended("person", "ok"))
    stage.signal("yes", "ok")
    stage.read()
    stage.fail(stage.wake().starts[0], ProviderUnavailable("away"))
    stage.now = NOW + timedelta(seconds=30)
    call = stage.woken().call
    assert call.attempt == 2
    assert call.recorded["$wait:ok"]["payload"] == "yes"


def test_waiting_twice_for_the_same_thing_is_a_failure_and_no_loop() -> None:
    stage = Waiting()
    stage.suspend(Suspended("person", "ok"))
    stage.signal(1)
    stage.read()
    call = stage.wake().starts[0].call
    stage.commit(stage.owner.suspended(1, call.start, Suspended("person", "ok"), {}, 0, NOW))
    assert stage.case.firings[1].state is FiringState.FAILED
    assert "key of its own" in stage.case.incidents[1].message


def test_a_cancelled_case_releases_what_waits() -> None:
    stage = Waiting()
    stage.suspend(Suspended("person", "ok"))
    stage.ask("cancel")
    assert stage.case.firings[1].state is FiringState.CANCELLED
    assert stage.case.row.status is CaseStatus.CANCELLED
    assert [holder for _, holder in stage.case.tokens.values()] == [None]


async def _asking(call: ActionCall, context: ActionContext) -> ActionOutput:
    answer = await context.record("answer:0", {"start": call.start})
    woken: Woken = await context.suspend("person", "ok", {"draft": answer})
    return ActionOutput({"answer": f"{answer['start']} {woken.payload} {woken.principal} {woken.timed_out}"})


async def test_a_person_is_waited_for_outside_of_memory(database: Database, database_url: str) -> None:
    async with engine(database, {"agent": Doing(_asking)}) as running:
        await publish(running, REVIEW)
        key = await start(running, "review")
        view = await until(running, key, "waiting")
        assert running.worker is not None and running.worker.tenure is not None
        desk = running.worker.tenure.desk
        await eventually(lambda: len(desk) == 0)
        assert [execution.status for execution in view.executions] == ["suspended"]
        assert view.executions[0].as_dict()["awaits"]["payload"] == {"draft": {"start": 1}}
        why = await running.queries.why(key)
        assert why is not None and "waits for person 'ok'" in why.summary
        outcome = await running.commands.signal(key, 1, "yes", principal=LOCAL, idempotency_key="once")
        assert outcome.result == {"firing": 1, "key": None, "delivered": True}
        again = await running.commands.signal(key, 1, "yes", principal=LOCAL, idempotency_key="once")
        assert again.id == outcome.id
        view = await until(running, key, "completed")
        assert view.tokens[0].data == {"answer": "1 yes local False"}
        frames = [frame async for frame in running.streams.subscribe(Numbered(key.case, 1), key.tenant)]
        assert [(frame.start, frame.type.value) for frame in frames][:1] == [(2, "restarted")]
    await invariants.check(database_url)


async def test_a_wait_is_over_when_its_time_is_up(database: Database, database_url: str) -> None:
    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        woken = await context.suspend("person", timeout_seconds=0.2)
        return ActionOutput({"answer": f"{woken.payload} {woken.timed_out}"})

    async with engine(database, {"agent": Doing(perform)}) as running:
        await publish(running, REVIEW)
        keys: list[CaseKey] = list(await asyncio.gather(*(start(running, "review") for _ in range(10))))
        for key in keys:
            assert (await until(running, key, "completed")).tokens[0].data == {"answer": "None True"}
    await invariants.check(database_url)


async def test_a_wait_that_cannot_be_stored_fails(database: Database) -> None:
    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        await context.suspend("person", payload={"at": object()})
        raise AssertionError("unreachable")

    async with engine(database, {"agent": Doing(perform)}) as running:
        await publish(running, REVIEW)
        key = await start(running, "review")
        view = await until(running, key, "attention")
        assert view.executions[0].error is not None and "cannot be stored" in view.executions[0].error["message"]
