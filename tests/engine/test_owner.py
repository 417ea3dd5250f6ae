"""What the owner decides, rule by rule; `test_simulation` looks at what many such decisions come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from circuit.definition.workflow import ActionSpec, RetryPolicy, Workflow
from circuit.engine.action import ActionOutput
from circuit.engine.owner import Owner, Step
from circuit.errors import ActionFailed, InvalidOutput, RateLimited
from circuit.expressions.cel import compile_expression
from circuit.ids import CaseKey
from circuit.net.colour import Colour
from circuit.net.guard import Guard, Rule
from circuit.net.mapping import InputMapping, OutputMapping
from circuit.net.marking import Token
from circuit.net.structure import InputArc, Manual, Mode, Net, OutputArc, Place, Transition, Trigger
from circuit.storage.records import CaseStatus, CommandRow, CommandState, ExecutionStatus, FiringState
from tests.engine.model import ModelCase

NOW = datetime(2026, 3, 1, tzinfo=UTC)
KEY = CaseKey(1, UUID(int=7))
PERSON = {"subject": "ada", "roles": ["author"]}


class Stage:
    """One owner on one modelled case; every step is committed at once."""

    def __init__(self, net: Net, tokens: Sequence[tuple[str, dict[str, Any]]], **actions: ActionSpec) -> None:
        self.workflow = Workflow("w", "W", "", {}, {}, "hash", net, actions, {}, {})
        laid = [Token(number, 1, place, data, {}, NOW) for number, (place, data) in enumerate(tokens, 1)]
        self.case = ModelCase.start(KEY, "w", laid, NOW)
        self.now = NOW
        self.read()

    def read(self) -> None:
        self.case.owner = 1
        self.owner = Owner(self.workflow, self.case.state())

    def wake(self) -> Step:
        return self.commit(self.owner.wake(self.now))

    def commit(self, step: Step) -> Step:
        if step.write is not None:
            self.case.apply(step.write, 1)
        return step

    def finish(self, start: Any, **outputs: Any) -> Step:
        output = ActionOutput(outputs, text="said", usage={"output_tokens": 2})
        return self.commit(self.owner.completed(start.call.firing, start.call.start, output, 3, self.now))

    def fail(self, start: Any, error: Any) -> Step:
        return self.commit(self.owner.failed(start.call.firing, start.call.start, error, 3, self.now))

    def ask(self, kind: str, principal: dict[str, Any] = PERSON, **payload: Any) -> Any:
        command = CommandRow(UUID(int=len(self.case.commands) + 1), kind, payload, principal)
        self.case.commands[command.id] = command
        if self.case.owner is None:
            self.read()
            self.wake()
        else:
            self.commit(self.owner.command(command, self.now))
        return self.case.results[command.id]

    @property
    def marking(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for token, _ in self.case.tokens.values():
            counts[token.place] = counts.get(token.place, 0) + 1
        return counts

    @property
    def kinds(self) -> list[str]:
        return [event.kind for _, _, event in self.case.history]


def place(name: str, **options: Any) -> Place:
    return Place(name, **options)


def transition(name: str, take: str | Sequence[str], put: str | Sequence[str], **options: Any) -> Transition:
    sources = [take] if isinstance(take, str) else take
    targets = [put] if isinstance(put, str) else put
    return Transition(
        name, tuple(InputArc(one) for one in sources), tuple(OutputArc(one) for one in targets), **options
    )


def review_net(**options: Any) -> Net:
    places = [place("draft", initial=True), place("done", terminal=True), place("lost", dead_letter=True)]
    mapping = {"output_mapping": OutputMapping.parse({"data.verdict": "verdict"}), **options}
    return Net.build("w", places, [transition("review", "draft", "done", acting=True, **mapping)])


def acting(**options: Any) -> ActionSpec:
    return ActionSpec("test", {}, **options)


def test_immediate_transitions_fire_to_the_end_in_one_write() -> None:
    net = Net.build(
        "w",
        [place("a", initial=True), place("b"), place("c", terminal=True)],
        [transition("first", "a", "b"), transition("second", "b", "c")],
    )
    stage = Stage(net, [("a", {"n": 1})])
    step = stage.wake()
    assert stage.marking == {"c": 1}
    assert stage.kinds == ["case_started", "transition_fired", "transition_fired", "case_ended"]
    assert stage.case.row.status is CaseStatus.COMPLETED
    assert step.write is not None and step.write.release
    [move] = step.write.tokens_moved
    assert (move.from_version, move.token.version, move.token.number) == (1, 3, 1)


def test_an_agent_starts_after_the_commit_and_completes_once() -> None:
    stage = Stage(review_net(), [("draft", {"text": "x"})], review=acting())
    [start] = stage.wake().starts
    assert stage.case.row.status is CaseStatus.RUNNING
    assert stage.case.tokens[1][1] == start.call.firing
    stage.finish(start, verdict="good")
    assert stage.case.tokens[1][0].data == {"text": "x", "verdict": "good"}
    assert stage.case.executions[1].status is ExecutionStatus.COMPLETED
    assert [frame.sequence for frame in stage.case.frames[1]] == [4]
    assert stage.case.row.status is CaseStatus.COMPLETED


def test_a_second_result_of_the_same_start_is_dropped() -> None:
    stage = Stage(review_net(), [("draft", {})], review=acting())
    [start] = stage.wake().starts
    stage.finish(start, verdict="good")
    assert stage.owner.completed(1, 1, ActionOutput({"verdict": "bad"}), 9, NOW).write is None


def test_a_lost_process_resumes_with_the_journal_and_another_start() -> None:
    stage = Stage(review_net(), [("draft", {})], review=acting())
    [first] = stage.wake().starts
    stage.case.journal[(1, 1, "answer:0")] = {"text": "kept"}
    stage.case.lose_owner()
    stage.read()
    [second] = stage.wake().starts
    assert second.reason == "resumed"
    assert (second.call.attempt, second.call.start) == (1, 2)
    assert second.call.recorded == {"answer:0": {"text": "kept"}}
    assert stage.owner.completed(1, first.call.start, ActionOutput({"verdict": "late"}), 1, NOW).write is None
    stage.finish(second, verdict="good")
    assert stage.kinds.count("transition_fired") == 1


def test_a_retry_waits_holds_nothing_and_has_a_journal_of_its_own() -> None:
    policy = RetryPolicy(max_attempts=2, backoff_seconds=10)
    stage = Stage(review_net(), [("draft", {})], review=acting(retry=policy))
    [start] = stage.wake().starts
    stage.case.journal[(1, 1, "answer:0")] = {"text": "bad"}
    stage.fail(start, InvalidOutput("no JSON"))
    assert stage.case.row.status is CaseStatus.WAITING
    assert stage.case.owner is None
    due_at = stage.case.due_at
    assert due_at is not None and timedelta(seconds=5) <= due_at - NOW <= timedelta(seconds=10)
    stage.read()
    assert stage.wake().starts == ()
    stage.now = due_at
    stage.read()
    [again] = stage.wake().starts
    assert (again.reason, again.call.attempt, again.call.start, again.call.recorded) == ("retry", 2, 2, {})
    stage.fail(again, InvalidOutput("no JSON"))
    assert stage.case.row.status is CaseStatus.ATTENTION
    assert stage.case.frames[1][-1].type.value == "failed"


def test_a_provider_that_says_how_long_to_wait_is_heeded() -> None:
    policy = RetryPolicy(max_attempts=2, backoff_seconds=1, retry_on_errors=("rate_limit",))
    stage = Stage(review_net(), [("draft", {})], review=acting(retry=policy))
    [start] = stage.wake().starts
    stage.fail(start, RateLimited("slow down", retry_after=90))
    assert stage.case.due_at == NOW + timedelta(seconds=90)


def test_an_error_that_the_policy_does_not_name_is_not_retried() -> None:
    policy = RetryPolicy(max_attempts=5, retry_on_errors=("rate_limit",))
    stage = Stage(review_net(), [("draft", {})], review=acting(retry=policy))
    [start] = stage.wake().starts
    stage.fail(start, InvalidOutput("no JSON"))
    assert stage.case.firings[1].state is FiringState.FAILED


def test_without_on_failure_the_token_stays_with_an_incident_until_it_is_retried() -> None:
    stage = Stage(review_net(), [("draft", {})], review=acting())
    [start] = stage.wake().starts
    stage.fail(start, ActionFailed("broken"))
    assert stage.marking == {"draft": 1}
    assert stage.case.row.status is CaseStatus.ATTENTION
    assert stage.case.incidents[1].code == "action_failed"
    stage.read()
    assert stage.wake().starts == (), "an open incident does not keep its binding from being tried"
    assert stage.ask("retry").result == {"incidents": [1]}
    assert stage.case.firings[2].state is FiringState.RUNNING
    assert stage.case.incidents[1].resolved_by == "ada"


def test_with_on_failure_the_token_goes_there_and_says_why() -> None:
    stage = Stage(review_net(on_failure="lost"), [("draft", {"text": "x"})], review=acting())
    [start] = stage.wake().starts
    stage.fail(start, ActionFailed("broken"))
    token, held = stage.case.tokens[1]
    assert (token.place, token.version, token.data, held) == ("lost", 2, {"text": "x"}, None)
    note = {"code": "action_failed", "message": "broken", "transition": "review", "place": "draft"}
    assert token.metadata["failure"] == note
    assert stage.case.row.status is CaseStatus.ATTENTION


def test_an_agent_that_is_not_required_is_skipped_when_it_fails() -> None:
    stage = Stage(review_net(), [("draft", {"text": "x"})], review=acting(required=False))
    [start] = stage.wake().starts
    stage.fail(start, ActionFailed("broken"))
    assert stage.case.tokens[1][0].data == {"text": "x"}
    assert stage.case.row.status is CaseStatus.COMPLETED
    fired = next(event for _, _, event in stage.case.history if event.kind == "transition_fired")
    assert fired.skipped["code"] == "action_failed"
    assert stage.case.executions[1].status is ExecutionStatus.FAILED


def test_a_mapping_that_leads_nowhere_fails_at_the_begin() -> None:
    net = review_net(input_mapping=InputMapping.parse({"content": "data.content"}))
    stage = Stage(net, [("draft", {})], review=acting())
    assert stage.wake().starts == ()
    assert stage.case.incidents[1].code == "mapping_error"
    assert stage.case.firings == {}


def test_a_join_that_would_lose_an_answer_fails() -> None:
    net = Net.build(
        "w",
        [place("a", initial=True), place("b"), place("c", terminal=True)],
        [transition("join", ["a", "b"], "c")],
    )
    stage = Stage(net, [("a", {"answer": 1}), ("b", {"answer": 2})])
    stage.wake()
    assert stage.marking == {"a": 1, "b": 1}
    assert stage.case.incidents[1].code == "merge_conflict"
    assert stage.case.row.status is CaseStatus.ATTENTION


def test_a_token_that_does_not_fit_its_place_is_not_produced() -> None:
    schema = Colour("Verdict", {"type": "object", "required": ["verdict"], "properties": {"verdict": {"enum": ["a"]}}})
    net = review_net()
    places = [replace(net.places["done"], colour=schema) if name == "done" else net.places[name] for name in net.places]
    stage = Stage(Net.build("w", places, list(net.transitions.values())), [("draft", {})], review=acting())
    [start] = stage.wake().starts
    stage.finish(start, verdict="b")
    assert stage.case.incidents[1].code == "colour_mismatch"
    assert stage.marking == {"draft": 1}


def test_room_is_reserved_while_an_agent_runs() -> None:
    net = Net.build(
        "w",
        [place("a", initial=True), place("narrow", capacity=1), place("end", terminal=True)],
        [transition("work", "a", "narrow", acting=True)],
    )
    stage = Stage(net, [("a", {}), ("a", {})], work=acting())
    [start] = stage.wake().starts
    assert stage.case.row.status is CaseStatus.RUNNING
    stage.finish(start)
    assert stage.marking == {"narrow": 1, "a": 1}
    assert stage.case.row.status is CaseStatus.STUCK


def test_a_loop_is_bounded_by_the_count_of_firings() -> None:
    below = Guard((), (compile_expression("case.fired.again < 3", ("case", "tokens", "data", "metadata")),))
    over = Guard((), (compile_expression("case.fired.again >= 3", ("case", "tokens", "data", "metadata")),))
    net = Net.build(
        "w",
        [place("a", initial=True), place("b"), place("end", terminal=True)],
        [
            transition("look", "a", "b"),
            transition("again", "b", "a", guard=below),
            transition("leave", "b", "end", guard=over),
        ],
    )
    stage = Stage(net, [("a", {})])
    stage.wake()
    assert stage.case.row.status is CaseStatus.COMPLETED
    assert stage.kinds.count("transition_fired") == 8


def test_an_endless_run_of_immediate_firings_is_a_livelock() -> None:
    net = Net.build("w", [place("a", initial=True), place("b")], [transition("x", "a", "b"), transition("y", "b", "a")])
    stage = Stage(net, [("a", {})])
    stage.wake()
    assert stage.case.row.status is CaseStatus.ATTENTION
    assert stage.case.incidents[1].code == "livelock"
    assert stage.kinds.count("transition_fired") < 200


def test_a_long_run_lets_others_have_their_turn() -> None:
    counting = Guard((), (compile_expression("case.fired.step < 2500", ("case", "tokens", "data", "metadata")),))
    net = Net.build(
        "w", [place("a", initial=True), place("end", terminal=True)], [transition("step", "a", "a", guard=counting)]
    )
    stage = Stage(net, [("a", {})])
    turns = 0
    while stage.wake().again:
        turns += 1
    assert turns == 2
    assert stage.kinds.count("transition_fired") == 2500
    assert stage.case.row.status is CaseStatus.STUCK


def manual_net() -> Net:
    form = Colour("form", {"type": "object", "required": ["content"], "properties": {"content": {"type": "string"}}})
    resubmit = transition(
        "resubmit",
        "revision",
        "done",
        trigger=Trigger.MANUAL,
        manual=Manual(form, frozenset({"author"})),
        output_mapping=OutputMapping.parse({"data.content": "form.content"}),
    )
    return Net.build("w", [place("revision", initial=True), place("done", terminal=True)], [resubmit])


def test_a_person_fires_a_manual_transition() -> None:
    stage = Stage(manual_net(), [("revision", {"content": "old"})])
    stage.wake()
    assert stage.case.row.status is CaseStatus.WAITING
    result = stage.ask("fire", transition="resubmit", form={"content": "new"})
    assert result.state is CommandState.APPLIED
    assert stage.case.tokens[1][0].data == {"content": "new"}
    assert stage.case.row.status is CaseStatus.COMPLETED


@pytest.mark.parametrize(
    ("principal", "payload", "code"),
    [
        (PERSON, {"transition": "resubmit", "form": {}}, "invalid_request"),
        (PERSON, {"transition": "resubmit", "form": {"content": 3}}, "invalid_request"),
        (PERSON, {"transition": "nowhere", "form": {}}, "invalid_request"),
        ({"subject": "eve", "roles": ["reader"]}, {"transition": "resubmit", "form": {"content": "x"}}, "forbidden"),
    ],
    ids=["an empty form", "a form of another type", "no such transition", "another role"],
)
def test_a_command_that_may_not_be_is_refused(principal: dict[str, Any], payload: dict[str, Any], code: str) -> None:
    stage = Stage(manual_net(), [("revision", {"content": "old"})])
    stage.wake()
    result = stage.ask("fire", principal, **payload)
    assert result.state is CommandState.REFUSED
    assert result.result["error"]["code"] == code
    assert stage.marking == {"revision": 1}


def test_a_case_is_cancelled_with_all_that_runs() -> None:
    stage = Stage(review_net(), [("draft", {})], review=acting())
    stage.wake()
    command = CommandRow(UUID(int=99), "cancel", {"reason": "enough"}, PERSON)
    step = stage.commit(stage.owner.command(command, NOW))
    assert step.cancels == (1,)
    assert stage.case.row.status is CaseStatus.CANCELLED
    assert stage.case.firings[1].state is FiringState.CANCELLED
    assert stage.case.tokens[1][1] is None


def test_a_token_where_the_case_fails_ends_it_at_once() -> None:
    net = Net.build(
        "w",
        [place("a", initial=True), place("bad", terminal=True, failed=True)],
        [transition("work", "a", "bad", acting=True), transition("drop", "a", "bad", priority=1)],
    )
    stage = Stage(net, [("a", {}), ("a", {})], work=acting())
    stage.wake()
    assert stage.case.row.status is CaseStatus.FAILED
    assert stage.marking == {"bad": 1, "a": 1}


def test_a_firing_that_kills_its_process_again_and_again_fails() -> None:
    stage = Stage(review_net(on_failure="lost"), [("draft", {})], review=acting())
    stage.wake()
    for _ in range(10):
        stage.case.lose_owner()
        stage.read()
        stage.wake()
    assert stage.marking == {"lost": 1}
    assert stage.case.firings[1].error == {
        "code": "crashed",
        "message": stage.case.firings[1].error["message"],
        "retryable": False,
    }


def test_a_stream_of_a_firing_that_is_given_up_on_ends_too() -> None:
    stage = Stage(review_net(), [("draft", {"text": "x"})], review=acting(required=False))
    stage.wake()
    for _ in range(10):
        stage.case.lose_owner()
        stage.read()
        stage.wake()
    assert [(f.type.value, f.start, f.sequence) for f in stage.case.frames[1]] == [
        ("restarted", 11, 1),
        ("failed", 11, 2),
    ]
    assert stage.case.row.status is CaseStatus.COMPLETED, "an agent that is not required is skipped, however it failed"


def test_the_counts_of_firings_are_written_down_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuit.engine.owner.COUNTED_EVENTS", 3)
    go = Transition("go", (InputArc("p"),), (OutputArc("end"),), acting=True)
    net = Net.build("n", [Place("p", initial=True), Place("end", terminal=True)], [go])
    stage = Stage(net, [("p", {"n": number}) for number in range(6)], go=ActionSpec("agent", {}))
    written = [stage.finish(start).write.fired for start in stage.wake().starts]
    # They were written down when all had begun, so the third event after that is the next, and the last ends the case.
    assert written == [None, None, {"go": 3}, None, None, None]


def test_many_firings_that_begin_in_one_step_are_no_livelock() -> None:
    fan = Transition("fan", (InputArc("a"),), (OutputArc("todo", 150),))
    net = Net.build(
        "w",
        [place("a", initial=True), place("todo"), place("done", terminal=True)],
        [fan, transition("work", "todo", "done", acting=True)],
    )
    stage = Stage(net, [("a", {})], work=acting())
    assert len(stage.wake().starts) == 150
    assert stage.case.incidents == {}


@pytest.mark.parametrize("payload", [{}, {"transition": 3}, {"transition": "resubmit", "form": []}, {"form": "x"}])
def test_a_malformed_command_is_refused(payload: dict[str, Any]) -> None:
    stage = Stage(manual_net(), [("revision", {"content": "old"})])
    stage.wake()
    assert stage.ask("fire", {"roles": "author"}, **payload).state is CommandState.REFUSED


def test_a_read_token_stays_where_it_lies() -> None:
    net = Net.build(
        "w",
        [place("order", initial=True), place("catalogue", terminal=True), place("end", terminal=True)],
        [
            Transition(
                "work",
                (InputArc("order"), InputArc("catalogue", 1, Mode.READ)),
                (OutputArc("end"),),
                guard=Guard(
                    (Rule.parse({"field_equals": {"field": "tokens.catalogue.data.open", "value": True}}),), ()
                ),
                acting=True,
            )
        ],
    )
    stage = Stage(net, [("order", {}), ("catalogue", {"open": True})], work=acting())
    [start] = stage.wake().starts
    stage.finish(start)
    assert stage.marking == {"catalogue": 1, "end": 1}
    assert stage.case.tokens[2][0].version == 1


def test_an_incident_is_closed_when_its_tokens_go_another_way() -> None:
    net = Net.build(
        "w",
        [place("a", initial=True), place("done", terminal=True)],
        [
            transition("work", "a", "done", acting=True, priority=1),
            transition("skip", "a", "done", trigger=Trigger.MANUAL, manual=Manual()),
        ],
    )
    stage = Stage(net, [("a", {})], work=acting())
    [start] = stage.wake().starts
    stage.fail(start, ActionFailed("broken"))
    stage.ask("fire", transition="skip", form={})
    assert stage.case.row.status is CaseStatus.COMPLETED
    assert "incident_resolved" in stage.kinds
    assert stage.case.incidents[1].resolved_at is not None
