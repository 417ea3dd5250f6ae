"""A live case modified by hand: all of it or nothing, under the rules of its places, with who and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from circuit.app import Circuit
from circuit.engine.audit.inspection import inspect_at
from circuit.engine.audit.replay import Replay
from circuit.engine.modification import MOST_CHANGES, Modification, Move, NewToken
from circuit.engine.token_change import TokenChange
from circuit.errors import Forbidden, InvalidRequest
from circuit.net.colour import Colour
from circuit.net.structure import Net
from circuit.security.principal import Principal
from circuit.storage.records import CaseStatus, CommandState, FiringState
from tests.cli.commanding import Command
from tests.cli.conftest import bare, circuit
from tests.engine.test_owner import Stage, acting, place, transition

__all__ = ["bare", "circuit"]

SHORT = Colour("Short", {"type": "object", "properties": {"text": {"type": "string", "maxLength": 5}}})


def net() -> Net:
    places = [
        place("draft", initial=True, colour=SHORT),
        place("aside", capacity=1),
        place("waiting"),
        place("done", terminal=True),
        place("ruined", terminal=True, failed=True),
    ]
    return Net.build("w", places, [transition("review", "draft", "done", acting=True)])


def ask(stage: Stage, **wanted: Any) -> Any:
    result = stage.ask("modify", **Modification(**{"reason": "a mistake", **wanted}).as_payload())
    replay = Replay(stage.case.key, stage.workflow.net)
    faults = [str(fault) for recorded in stage.case.history for fault in replay.apply(*recorded)]
    assert faults == []
    assert {token.number: (token.version, token.place, token.data) for token in replay.marking.all()} == {
        number: (token.version, token.place, token.data) for number, (token, _) in stage.case.tokens.items()
    }
    assert [token.entered_at for token in replay.marking.all()] == [
        stage.case.tokens[number][0].entered_at for number in sorted(stage.case.tokens)
    ]
    return result


def test_tokens_are_put_taken_moved_and_changed_at_once() -> None:
    stage = Stage(net(), [("waiting", {"text": "x"}), ("waiting", {}), ("aside", {})], review=acting())
    stage.wake()
    assert stage.case.row.status is CaseStatus.STUCK
    result = ask(
        stage,
        put=[NewToken("draft", {"text": "new"}, {"by": "ada"})],
        take=[2],
        # A place of one token changes hands in one go.
        move=[Move(1, "aside"), Move(3, "waiting")],
        changes=[TokenChange("data.text", "y", token=1), TokenChange("data.n", 1, place="aside")],
    )
    assert result.result == {"put": [4], "taken": [2], "changed": [1, 3], "cancelled": []}
    assert stage.marking == {"aside": 1, "waiting": 1, "draft": 1}
    assert [stage.case.tokens[number][0].version for number in (1, 3, 4)] == [2, 2, 1]
    assert stage.case.tokens[1][0].data == {"text": "y"} and stage.case.tokens[3][0].data == {"n": 1}
    assert stage.case.row.next_token == 5
    assert stage.case.firings[1].state is FiringState.RUNNING, "what was put is worked on at once"
    event = stage.case.history[-2][2]
    assert (event.kind, event.reason, event.principal, event.note) == ("tokens_changed", "modified", "ada", "a mistake")


def test_tokens_of_a_place_that_names_roles_change_by_hand_for_these_alone() -> None:
    kept = frozenset({"keeper"})
    guarded = [place("vault", roles=kept), place("lost", roles=kept, dead_letter=True)]
    guarded_net = Net.build("w", [place("open", initial=True), *guarded, place("done", terminal=True)], [])
    tokens = [("vault", {"n": 1}), ("open", {}), ("lost", {})]
    asked: list[tuple[str, dict[str, Any]]] = [
        ("modify", Modification("x", **wanted).as_payload())
        for wanted in (
            {"put": [NewToken("vault")]},
            {"take": [1]},
            {"move": [Move(1, "open")]},
            {"move": [Move(2, "vault")]},
            {"changes": [TokenChange("data.n", 2, token=1)]},
        )
    ]
    asked += [
        ("put_back", {"place": "open"}),
        ("put_back", {"token": 3, "place": "vault"}),
        ("summon", {"place": "vault"}),
    ]
    for kind, payload in asked:
        stage = Stage(guarded_net, tokens)
        stage.wake()
        before = stage.marking
        stranger = stage.ask(kind, {"subject": "bob", "roles": ["operator"]}, **payload)
        assert stranger.result["error"]["code"] == "forbidden", (kind, payload)
        assert "ask for one of the roles keeper" in stranger.result["error"]["message"]
        assert stage.marking == before
        keeper = stage.ask(kind, {"subject": "ada", "roles": ["keeper"]}, **payload)
        if kind == "summon":
            assert keeper.result["error"]["message"] == "no agent runs on the tokens of vault"
        else:
            assert keeper.state is CommandState.APPLIED, keeper.result


def test_what_a_firing_holds_changes_only_if_it_may_be_cancelled() -> None:
    stage = Stage(net(), [("draft", {"text": "x"})], review=acting())
    stage.wake()
    refused = ask(stage, move=[Move(1, "waiting")])
    assert refused.state is CommandState.REFUSED
    assert "held by firing 1 of review, which is running" in refused.result["error"]["message"]
    # One that cannot be done cancels nothing.
    refused = ask(stage, changes=[TokenChange("data.text", "too long a text")], cancel_firings=True)
    assert refused.result["error"]["code"] == "token_refused"
    assert stage.case.firings[1].state is FiringState.RUNNING
    applied = ask(stage, changes=[TokenChange("data.text", "y")], cancel_firings=True)
    assert applied.result == {"put": [], "taken": [], "changed": [1], "cancelled": [1]}
    assert stage.case.firings[1].state is FiringState.CANCELLED
    assert stage.case.firings[2].request["inputs"] == {"text": "y"}, "it begins anew with what was changed"
    assert stage.kinds[-3:] == ["firing_cancelled", "tokens_changed", "firing_begun"]


@pytest.mark.parametrize(
    ("wanted", "code", "said"),
    [
        ({"take": [9]}, "conflict", "no token 9; its tokens are 1 in waiting, 2 in aside"),
        ({"move": [Move(1, "nowhere")]}, "invalid_request", "no place 'nowhere'"),
        ({"put": [NewToken("aside")]}, "conflict", "aside takes 1"),
        ({"move": [Move(1, "aside")]}, "conflict", "aside takes 1"),
        ({"put": [NewToken("draft", {"text": "too long"})]}, "token_refused", "Short"),
        ({"take": [1], "changes": [TokenChange("data.x", 1, token=1)]}, "invalid_request", "token 1 is taken"),
        ({"changes": [TokenChange("data.x", 1)]}, "invalid_request", "name one, or its place"),
        ({"take": [2], "put": [NewToken("aside"), NewToken("aside")]}, "conflict", "aside takes 1"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(wanted: dict[str, Any], code: str, said: str) -> None:
    stage = Stage(net(), [("waiting", {}), ("aside", {})])
    stage.wake()
    before = (dict(stage.case.tokens), stage.case.row)
    result = ask(stage, **wanted)
    assert (result.state, result.result["error"]["code"]) == (CommandState.REFUSED, code)
    assert said in result.result["error"]["message"]
    assert (stage.case.tokens, stage.case.row) == before


def test_a_case_may_end_by_it_and_then_takes_no_more() -> None:
    for name, status in (("done", CaseStatus.COMPLETED), ("ruined", CaseStatus.FAILED)):
        stage = Stage(net(), [("waiting", {})])
        stage.wake()
        assert ask(stage, move=[Move(1, name)]).state is CommandState.APPLIED
        assert stage.case.row.status is status
    stage = Stage(net(), [("waiting", {})])
    stage.wake()
    result = stage.ask("modify", reason="x")
    assert result.state is CommandState.REFUSED and "no 'put'" in result.result["error"]["message"]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({}, "nothing is to change"),
        ({"take": [1], "reason": " "}, "needs a reason"),
        ({"take": [1, 1]}, "token 1 is taken or moved twice"),
        ({"take": [1], "move": [Move(1, "a")]}, "taken or moved twice"),
        ({"put": [NewToken("a")] * (MOST_CHANGES + 1)}, "1,000 changes"),
        ({"put": [NewToken("a", {"x": "\0"})]}, "NUL"),
    ],
)
def test_what_makes_no_sense_is_not_asked(wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        Modification(**{"reason": "x", **wanted}).as_payload()


HELD = """
workflow: held
places: {open: {initial: true}, checked: {}, done: {terminal: true}}
transitions:
  check: {from_places: open, to_place: checked, action: {type: human, title: Check it}}
  close: {from_places: checked, to_place: done, trigger: {type: manual}}
"""


def test_the_command(circuit: Command, tmp_path: Path) -> None:
    file = tmp_path / "held.yaml"
    file.write_text(HELD)
    case = circuit("run", file, "--set", "data.n=1", "--json").json["case_id"]
    refused = circuit("modify", case, "--move", "1:checked", "--reason", "in a hurry", "--json")
    assert (refused.code, refused.json["result"]["error"]["code"]) == (1, "conflict")
    assert "suspended" in refused.json["result"]["error"]["message"]
    words = ("--move", "1:checked", "--put", 'checked={"n": 2}', "--put", "checked", "--set", "1:data.n=7")
    done = circuit("modify", case, *words, "--cancel-firings", "--reason", "in a hurry", "--json")
    assert (done.code, done.json["result"]["put"], done.json["status"]) == (0, [2, 3], "waiting")
    assert "tokens changed by local: open -> 3 x checked (in a hurry)" in circuit("show", case).out
    assert circuit("fsck").code == 0
    for words, said in (
        (["--reason", "x"], "nothing is to change"),
        (["--take", "1"], "--reason"),
        (["--move", "x:y", "--reason", "x"], "is no move"),
        (["--put", "=1", "--reason", "x"], "names no place"),
        (["--put", "a=[1]", "--reason", "x"], "JSON object"),
    ):
        outcome = circuit("modify", case, *words)
        assert outcome.code == 2 and said in outcome.err


async def test_who_may_and_only_once(database_url: str) -> None:
    async with Circuit.open(database_url) as opened:
        await opened.load(HELD)
        case = await opened.start("held", {})
        await opened.wait(case)
        wanted = Modification("why not", put=[NewToken("checked")])
        key = opened.key(case)
        with pytest.raises(Forbidden):
            await opened.commands.modify(key, wanted, principal=Principal("v", key.tenant, frozenset({"viewer"})))
        operator = Principal("ada", key.tenant, frozenset({"operator"}))
        for _ in range(2):
            outcome = await opened.commands.modify(key, wanted, principal=operator, idempotency_key="once")
            assert outcome.result["put"] == [2]
        assert (await opened.case(case)).marking == {"open": 1, "checked": 1}
        moved = Modification("on", move=[Move(1, "checked")], cancel_firings=True)
        await opened.commands.modify(key, moved, principal=operator)
        assert (await opened.case(case)).marking == {"checked": 2}
        # What it waited for is not there any more.
        assert (await opened.tasks(case_id=case)) == []
    assert (await inspect_at(database_url)).clean
