"""What a firing takes without having bound it: places that are reset, regions that are cancelled, what runs there; and
transitions with several choices, and joins of lists, as the owner fires them. Each history is replayed at its end."""

from __future__ import annotations

from typing import Any

import pytest

from circuit.definition import load_workflow
from circuit.engine.action import ActionOutput
from circuit.engine.audit.replay import Replay
from circuit.engine.diagnosis import explain
from circuit.events import FiringCancelled, TransitionFired
from circuit.storage.records import CaseStatus, CommandState, FiringState
from tests.engine.test_owner import KEY, Stage, acting

HUMAN = "action: {type: human, title: look}"


class Told(Stage):
    """A stage whose net stands in a workflow file."""

    def __init__(self, text: str, *tokens: tuple[str, dict[str, Any]]) -> None:
        workflow = load_workflow(text)
        super().__init__(workflow.net, tokens, **dict.fromkeys(workflow.actions, acting()))

    def replayed(self) -> None:
        """The history accounts for every token."""
        replay = Replay(KEY, self.workflow.net)
        faults = [fault for seq, at, event in self.case.history for fault in replay.apply(seq, at, event)]
        assert not faults
        lying = {token.number: (token.place, token.version) for token, _ in self.case.tokens.values()}
        assert {token.number: (token.place, token.version) for token in replay.marking.all()} == lying

    def events(self, kind: type) -> list[Any]:
        return [event for _, _, event in self.case.history if isinstance(event, kind)]


REGION = f"""
workflow: region
places:
  asked: {{initial: true}}
  draft: {{}}
  beside: {{}}
  stop: {{}}
  over: {{terminal: true}}
transitions:
  write: {{from_places: [draft, beside], to_place: over, {HUMAN}}}
  check: {{from_places: asked, to_place: over, {HUMAN}}}
  give_up: {{from_places: stop, to_place: over, cancels: work, trigger: {{type: manual}}}}
regions:
  work: {{places: [draft], transitions: [check]}}
"""


def test_a_region_is_cancelled_with_what_runs_there_and_no_late_result_counts() -> None:
    stage = Told(REGION, *[(name, {}) for name in ("asked", "draft", "draft", "beside", "stop")])
    starts = {start.call.transition: start for start in stage.wake().starts}
    assert set(starts) == {"check", "write"}
    assert stage.ask("fire", transition="give_up").state is CommandState.APPLIED
    (fired,) = stage.events(TransitionFired)
    assert [(ref.number, ref.place) for ref in fired.removed] == [(1, "asked"), (2, "draft"), (3, "draft")]
    assert stage.marking == {"beside": 1, "over": 1}, "what a cancelled firing held beside is free again"
    assert len(stage.events(FiringCancelled)) == 2
    for start in starts.values():
        late = stage.owner.completed(start.call.firing, start.call.start, ActionOutput({}), 9, stage.now)
        assert late.write is None, "a late result counts for nothing"
    assert {row.state for row in stage.case.firings.values()} == {FiringState.CANCELLED}
    stage.replayed()
    stage.read()
    assert stage.wake().starts == (), "who reads the case anew finds nothing of it either"


def test_an_acting_transition_takes_away_when_its_action_is_done_and_not_before() -> None:
    text = f"""
workflow: last
places: {{asked: {{initial: true}}, rest: {{capacity: 1}}, over: {{terminal: true}}}}
transitions:
  decide: {{from_places: [asked, {{place: rest, mode: reset}}], to_places: [over, rest], {HUMAN}}}
"""
    stage = Told(text, ("asked", {}), ("rest", {"old": 1}))
    [start] = stage.wake().starts
    assert stage.marking == {"asked": 1, "rest": 1}, "a place that is emptied first has room"
    stage.finish(start)
    assert stage.marking == {"over": 1, "rest": 1}
    (rest,) = [token for token, _ in stage.case.tokens.values() if token.place == "rest"]
    assert rest.data == {}
    stage.replayed()


def test_nothing_is_cancelled_by_a_firing_that_fails() -> None:
    text = f"""
workflow: clash
places: {{a: {{initial: true}}, b: {{}}, work: {{}}, over: {{terminal: true}}}}
transitions:
  do: {{from_places: work, to_place: over, {HUMAN}}}
  clash: {{from_places: [a, b], to_place: over, cancels: {{places: [work]}}, trigger: {{type: manual}}}}
"""
    stage = Told(text, ("a", {"x": 1}), ("b", {"x": 2}), ("work", {}))
    [start] = stage.wake().starts
    stage.ask("fire", transition="clash")
    assert [row.code for row in stage.case.incidents.values()] == ["merge_conflict"]
    assert not stage.events(FiringCancelled)
    stage.finish(start)
    assert stage.marking == {"a": 1, "b": 1, "over": 1}
    stage.replayed()


CHOICE = """
workflow: choice
places: {one: {initial: true}, two: {}, over: {terminal: true}}
transitions:
  go: {from_any: [one, two], to_place: over, trigger: {type: manual}, conditions: "case.fired.go < 2"}
"""


def test_the_choices_of_a_transition_are_fired_by_its_name_and_counted_together() -> None:
    stage = Told(CHOICE, ("two", {"n": 1}), ("one", {"n": 2}), ("two", {"n": 3}))
    stage.wake()
    assert stage.owner.memory.case["fired"] == {"go": 0}
    for _ in range(2):
        assert stage.ask("fire", transition="go").state is CommandState.APPLIED
    assert [event.transition for event in stage.events(TransitionFired)] == ["go@two", "go@one"], "lowest number first"
    stage.read()
    refused = stage.ask("fire", transition="go")
    assert refused.state is CommandState.REFUSED and "case.fired.go < 2" in refused.result["error"]["message"]
    assert stage.owner.memory.case["fired"] == {"go": 2}
    stage.replayed()


LIST = f"""
workflow: list
places: {{order: {{initial: true}}, waiting: {{}}, part: {{}}, made: {{}}, done: {{terminal: true}}}}
transitions:
  split:
    from_places: order
    to_places: [waiting, {{place: part, each: data.parts, data: {{n: item}}}}]
  make: {{from_places: part, to_place: made, {HUMAN}}}
  join:
    from_places: [waiting, {{place: made, gather: split}}]
    to_places: [{{place: done, data: {{all: "tokens.made.map(t, t.data.n)", parts: tokens.waiting.data.parts}}}}]
"""


@pytest.mark.parametrize("parts", [[], [5], [3, 1, 2]])
def test_a_join_waits_for_one_token_of_each_element(parts: list[int]) -> None:
    stage = Told(LIST, ("order", {"parts": parts}))
    starts = list(stage.wake().starts)
    assert len(starts) == len(parts)
    for start in reversed(starts):
        assert stage.case.row.status is CaseStatus.RUNNING
        stage.finish(start)
    assert stage.case.row.status is CaseStatus.COMPLETED
    (done,) = [token for token, _ in stage.case.tokens.values()]
    assert done.data == {"all": parts, "parts": parts} and not done.metadata
    stage.replayed()


def test_what_keeps_a_transition_back_is_said_in_words() -> None:
    text = """
workflow: held
places:
  part: {initial: true}
  order: {}
  recall: {}
  done: {terminal: true}
transitions:
  join:
    from_places:
      - {place: part, where: "token.data.q > 1", correlate: data.id}
      - {place: order, correlate: data.id}
      - {place: recall, mode: inhibit, correlate: data.id}
    to_place: done
    merge: last
"""
    expected = {
        (2, 7, None): "no key is shared by tokens of part, order, as many as each arc takes",
        (1, 8, None): "0 of 1 token in part are such that token.data.q > 1; 1 needed",
        (2, 8, 8): "tokens with the same key lie in recall",
    }
    for (quality, key, recalled), message in expected.items():
        tokens = [("part", {"id": 8, "q": quality}), ("order", {"id": key})]
        stage = Told(text, *tokens, *([("recall", {"id": recalled})] if recalled else []))
        stage.wake()
        assert stage.case.row.status is CaseStatus.STUCK
        (reasons,) = explain(stage.workflow, stage.case.state(), stage.now).transitions
        assert [obstacle.message for obstacle in reasons.obstacles] == [message]
