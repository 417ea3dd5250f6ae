"""What somebody puts right by hand: changed data for an incident, tokens that are put back, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from circuit.errors import ActionFailed
from circuit.net.colour import Colour
from circuit.net.structure import Net
from circuit.storage.records import CaseStatus, CommandState, FiringState
from tests.engine.test_owner import Stage, acting, place, review_net, transition

SHORT = Colour("Short", {"type": "object", "properties": {"text": {"type": "string", "maxLength": 5}}})


def failing(net: Net, *tokens: tuple[str, dict[str, Any]]) -> Stage:
    """A case whose firings have all failed for good."""
    stage = Stage(net, list(tokens), review=acting())
    for start in stage.wake().starts:
        stage.fail(start, ActionFailed("broken"))
    return stage


def strict_net(**options: Any) -> Net:
    places = [place("draft", initial=True, colour=SHORT, **options), place("done", terminal=True)]
    return Net.build("w", places, [transition("review", "draft", "done", acting=True)])


def test_an_incident_is_resolved_with_other_data_and_tried_again() -> None:
    stage = failing(strict_net(), ("draft", {"text": "x", "kept": [1, 2]}))
    result = stage.ask("resolve", incident=1, set={"data.text": "fresh", "data.kept.1": 3, "metadata.by": "ada"})
    assert (result.state, result.result) == (CommandState.APPLIED, {"incidents": [1]})
    token, held = stage.case.tokens[1]
    assert (token.version, token.place, token.data) == (2, "draft", {"text": "fresh", "kept": [1, 3]})
    assert (token.metadata, held, token.entered_at) == ({"by": "ada"}, 2, stage.now)
    assert stage.case.firings[2].state is FiringState.RUNNING
    assert stage.case.firings[2].request["inputs"]["text"] == "fresh"
    assert stage.kinds[-3:] == ["tokens_changed", "incident_resolved", "firing_begun"]


@pytest.mark.parametrize(
    ("payload", "code", "said"),
    [
        ({"incident": 1, "set": {"data.text": "too long a text"}}, "token_refused", "Short"),
        ({"incident": 1, "set": {"data.text.deeper": 1}}, "invalid_request", "not an object"),
        ({"incident": 1, "set": {"place": "done"}}, "invalid_request", "begins with"),
        ({"incident": 1, "set": {"data": {}}}, "invalid_request", "begins with"),
        ({"incident": 1, "set": {"data.text": "a\0b"}}, "invalid_request", "NUL"),
        ({"incident": 1, "set": {}}, "invalid_request", "what to set"),
        ({"incident": "one", "set": {"data.text": "x"}}, "invalid_request", "incident"),
        ({"incident": 2, "set": {"data.text": "x"}}, "conflict", "no open incident 2"),
        ({"incident": 1, "set": {"data.text": "x"}, "token": 9}, "invalid_request", "not about token 9"),
    ],
)
def test_a_change_that_cannot_be_is_refused_and_changes_nothing(payload: dict[str, Any], code: str, said: str) -> None:
    stage = failing(strict_net(), ("draft", {"text": "x"}))
    result = stage.ask("resolve", **payload)
    assert result.state is CommandState.REFUSED
    assert result.result["error"]["code"] == code and said in result.result["error"]["message"]
    assert stage.case.tokens[1][0].version == 1
    assert stage.case.incidents[1].resolved_at is None
    assert stage.case.row.status is CaseStatus.ATTENTION


def test_what_an_incident_is_about_is_changed_by_those_for_whom_its_place_is() -> None:
    stage = failing(strict_net(roles=frozenset({"author"})), ("draft", {"text": "x"}))
    asked = {"incident": 1, "set": {"data.text": "y"}}
    stranger = stage.ask("resolve", {"subject": "bob", "roles": ["operator"]}, **asked)
    assert stranger.result["error"]["code"] == "forbidden" and stage.case.tokens[1][0].version == 1
    assert stage.ask("resolve", {"subject": "ann", "roles": ["author"]}, **asked).state is CommandState.APPLIED


def test_a_join_is_resolved_token_by_token_or_as_a_whole() -> None:
    net = Net.build(
        "w",
        [place("a", initial=True), place("b", colour=SHORT), place("done", terminal=True)],
        [transition("review", ["a", "b"], "done", acting=True)],
    )
    for only, expected in ((None, ["y", "y"]), (2, ["x", "y"])):
        stage = failing(net, ("a", {"text": "x"}), ("b", {"text": "x"}))
        payload = {"token": only} if only is not None else {}
        assert stage.ask("resolve", incident=1, set={"data.text": "y"}, **payload).state is CommandState.APPLIED
        assert [stage.case.tokens[number][0].data["text"] for number in (1, 2)] == expected
    # All of the tokens or none: the second place does not take what the first one would.
    stage = failing(net, ("a", {"text": "x"}), ("b", {"text": "x"}))
    assert stage.ask("resolve", incident=1, set={"data.text": "too long"}).state is CommandState.REFUSED
    assert [stage.case.tokens[number][0].version for number in (1, 2)] == [1, 1]


def test_a_dead_letter_is_put_back_to_where_it_was_taken_from() -> None:
    stage = failing(review_net(on_failure="lost"), ("draft", {"text": "x"}), ("draft", {"text": "y"}))
    assert stage.marking == {"lost": 2}
    assert stage.ask("put_back", token=2).result == {"tokens": [2]}
    assert stage.marking == {"lost": 1, "draft": 1}
    token, held = stage.case.tokens[2]
    assert (token.version, token.data, token.metadata, held) == (3, {"text": "y"}, {}, 3)
    assert stage.ask("put_back").result == {"tokens": [1]}
    assert stage.kinds[-2:] == ["tokens_changed", "firing_begun"]
    result = stage.ask("put_back")
    assert result.state is CommandState.REFUSED and "nothing to put back" in result.result["error"]["message"]


def test_a_token_is_put_into_another_place_if_there_is_one_and_it_has_room() -> None:
    places = [place("draft", initial=True), place("full", capacity=1), place("done", terminal=True)]
    places.append(place("lost", dead_letter=True))
    net = Net.build("w", places, [transition("review", "draft", "done", acting=True, on_failure="lost")])
    stage = failing(net, ("draft", {}), ("draft", {}), ("full", {}))
    for name, code in (("nowhere", "invalid_request"), ("full", "conflict")):
        assert stage.ask("put_back", place=name).result["error"]["code"] == code
    assert stage.ask("put_back", token=1, place="done").state is CommandState.APPLIED
    assert stage.marking == {"lost": 1, "full": 1, "done": 1}


def test_a_token_that_came_to_a_dead_letter_place_by_itself_needs_a_place() -> None:
    net = Net.build(
        "w",
        [place("a", initial=True), place("lost", dead_letter=True), place("done", terminal=True)],
        [transition("lose", "a", "lost")],
    )
    stage = Stage(net, [("a", {})])
    stage.wake()
    assert "name the place" in stage.ask("put_back").result["error"]["message"]
    assert stage.ask("put_back", place="done").state is CommandState.APPLIED
    assert stage.case.row.status is CaseStatus.COMPLETED
