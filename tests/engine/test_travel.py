"""Time travel: a case as it was, a fork from there, and how two cases differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuit.app import Circuit
from circuit.engine.audit.inspection import inspect_at
from circuit.engine.token_change import TokenChange
from circuit.errors import Conflict, Forbidden, InvalidRequest, NotFound, TokenRefused
from circuit.security.principal import Principal
from tests.cli.commanding import Command
from tests.cli.conftest import bare, circuit

__all__ = ["bare", "circuit"]

WORKFLOW = """
workflow: letters
colours:
  Letter: {type: object, properties: {tone: {type: string, maxLength: 10}}}
places:
  asked: {initial: true, colour: Letter}
  drafted: {colour: Letter}
  noted: {}
  sent: {terminal: true}
  filed: {terminal: true}
agents:
  writer: {llm_provider: {type: scripted, model: one, responses: ["Dear Ada"]}}
  reader: {llm_provider: {type: scripted, model: two, responses: ["read"]}}
place_agents:
  - {place_id: drafted, agent_id: reader, output_mapping: {data.read: text}}
transitions:
  write:
    from_places: [asked]
    to_places: [drafted, noted]
    agent_execution: {agent_id: writer, output_mapping: {to.drafted.data.text: text}}
  file: {from_places: [noted], to_place: filed}
  send:
    from_places: [drafted]
    to_place: sent
    trigger: {type: manual}
"""


async def executed(opened: Circuit, case: str) -> list[tuple[str, str | None]]:
    return [(one.transition, one.descriptor.get("model")) for one in (await opened.case(case)).executions]


async def test_a_case_as_it_was_and_forks_from_there(database_url: str) -> None:
    async with Circuit.open(database_url) as opened:
        await opened.load(WORKFLOW)
        case = await opened.start("letters", {"tone": "warm"})
        first = await opened.wait(case)
        history = {event.seq: event for event in first.history}
        begun = next(seq for seq, one in history.items() if one.kind == "firing_begun")
        written = next(seq for seq, one in history.items() if one.kind == "transition_fired")

        was = await opened.at(case, 1)
        assert (was.marking, was.tokens[0].data, was.last) == ({"asked": 1}, {"tone": "warm"}, len(history))
        during = await opened.at(case, begun)
        assert during.tokens[0].execution_id == f"{case}.1"
        assert [(one.transition, one.state.value) for one in during.firings] == [("write", "running")]
        after = await opened.at(case, written)
        assert after.marking == {"drafted": 1, "noted": 1}
        assert after.fired == {"write": 1}
        now = await opened.at(case)
        assert [(t.id, t.version, t.data, t.entered_at) for t in now.tokens] == [
            (t.id, t.version, t.data, t.entered_at) for t in first.tokens
        ]
        for wrong in (0, len(history) + 1):
            with pytest.raises(InvalidRequest, match=f"1 to {len(history)}"):
                await opened.at(case, wrong)

        # What was done by then is not done again: neither the writer, nor the reader, who ran on the token as it lies.
        late = await opened.fork(case)
        view = await opened.wait(late)
        assert (view.status.value, view.executions, view.marking) == ("waiting", [], {"drafted": 1, "filed": 1})
        assert [token.id.rpartition(".")[2] for token in view.tokens] == [
            token.id.rpartition(".")[2] for token in first.tokens
        ]
        assert [event.kind for event in view.history] == ["case_started"]
        assert view.history[0].as_dict()["origin"] == {"case_id": case, "seq": len(history)}
        # What ran then begins anew, and what had not begun is done.
        early = await opened.fork(
            case,
            begun,
            changes=[TokenChange("data.tone", "cold")],
            models={"writer": {"type": "scripted", "model": "other", "options": {"responses": ["Sir"]}}},
        )
        view = await opened.wait(early)
        assert await executed(opened, early) == [("write", "other"), ("reader@drafted", "two")]
        drafted = next(token for token in view.tokens if token.place == "drafted")
        assert drafted.data == {"tone": "cold", "text": "Sir", "read": "read"}
        await opened.fire(early, "send")
        assert (await opened.wait(early)).status.value == "completed"
        assert (await opened.case(case)).history == first.history, "the origin is not touched"

        # A fork of a fork, and of a case that was cancelled.
        again = await opened.fork(early, 1)
        assert (await opened.wait(again)).marking == {"drafted": 1, "filed": 1}
        await opened.cancel(case)
        undone = await opened.wait(await opened.fork(case))
        assert (undone.status.value, undone.marking) == ("waiting", {"drafted": 1, "filed": 1})
        found = await opened.diff(case, early)
        assert found.marking == {"drafted": (1, 0), "sent": (0, 1)}
        assert {(one.path, one.first, one.second) for one in found.values if None not in one.tokens} == {
            ("data.tone", "warm", "cold"),
            ("data.text", "Dear Ada", "Sir"),
        }
        assert [(one.same, list(one.second)) for one in found.path if "send" in one.second] == [(False, ["send"])]
        assert (found.first.cost.executions, found.second.cost.executions) == (2, 2)
        assert not found.same
        same = await opened.diff(late, late)
        assert same.same and same.marking == {} and same.values == []
        assert list(same.path[0].first) == list(found.first.path), "a fork went the way of its origin"
        with pytest.raises(NotFound):
            await opened.diff(case, "0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11")
    report = await inspect_at(database_url)
    assert (report.clean, [str(fault) for fault in report.faults]) == (True, [])


async def test_what_cannot_be_forked_is_refused_and_asked_twice_it_is_made_once(database_url: str) -> None:
    async with Circuit.open(database_url, worker=False) as opened:
        await opened.load(WORKFLOW)
        case = await opened.start("letters", {"tone": "warm"})
        key, me = opened.key(case), opened.principal
        for changes, error, said in (
            (
                [TokenChange("data.tone", "x", token=7)],
                InvalidRequest,
                "no token 7 is there; the tokens are 1 in asked",
            ),
            ([TokenChange("data.tone", "x", place="sent")], InvalidRequest, "no token lies in 'sent'"),
            ([TokenChange("place", "sent")], InvalidRequest, "begins with 'data.'"),
            ([TokenChange("data.tone", "much too long")], TokenRefused, "colour Letter"),
        ):
            with pytest.raises(error, match=said):
                await opened.travel.fork(key, principal=me, changes=changes)
        with pytest.raises(Forbidden):
            await opened.travel.fork(key, principal=Principal("v", me.tenant, frozenset({"viewer"})))
        with pytest.raises(NotFound):
            await opened.travel.fork(key, principal=Principal("v", me.tenant + 1, frozenset({"admin"})))
        with pytest.raises(InvalidRequest, match="`type` and `model`"):
            await opened.travel.fork(key, principal=me, models={"writer": "gpt"})
        once = await opened.travel.fork(key, 1, principal=me, idempotency_key="k")
        assert await opened.travel.fork(key, 1, principal=me, idempotency_key="k") == once
        with pytest.raises(Conflict):
            await opened.travel.fork(once, principal=me, idempotency_key="k")
        await opened.commands.retire("letters", me)
        with pytest.raises(Conflict, match="retired"):
            await opened.travel.fork(key, principal=me)
        assert await opened.travel.fork(key, 1, principal=me, idempotency_key="k") == once


def test_the_commands(circuit: Command, tmp_path: Path) -> None:
    file = tmp_path / "letters.yaml"
    file.write_text(WORKFLOW)
    case = circuit("run", file, "--set", "data.tone=warm", "--json").json["case_id"]
    shown = circuit("show", case, "--at", "2", "--json").json
    assert (shown["at"], shown["marking"], shown["tokens"][0]["held_by"]) == (2, {"asked": 1}, f"{case}.1")
    text = circuit("show", case, "--at", "2").out
    assert "after its event 2 of" in text and f"circuit fork {case} --at 2" in text and "write ran" in text
    assert "has no event 99" in circuit("show", case, "--at", "99").err
    forked = circuit(
        "fork", case, "--at", "1", "--set", "asked:data.tone=cold", "--model", "writer=scripted:x", "--json"
    )
    assert (forked.code, forked.json["status"]) == (3, "waiting")
    fork = forked.json["case_id"]
    assert f"as a fork of case {case} after its event 1" in circuit("show", fork).out
    different = circuit("diff", case, fork)
    assert different.code == 1
    assert "a fork of case" in different.out and "data.tone" in different.out and "both: write, file" in different.out
    assert circuit("diff", case, case, "--json").json["same"]
    drawn = tmp_path / "case.svg"
    assert circuit("draw", "--case", case, "--at", "3", "--output", drawn).code == 0
    picture = drawn.read_text()
    assert "1 firing" in picture and "drafted" in picture
    assert "1 firing" not in circuit("draw", "--case", case, "--at", "1").out
    assert "give a FILE, or --case" in circuit("draw", file, "--case", case).err
    assert "drawn as svg" in circuit("draw", "--case", case, "--format", "dot").err
    assert circuit("fork", case, "--set", "data.tone=x").err.count("name one, or its place") == 1
    assert "no agent 'nobody'" in circuit("fork", case, "--model", "nobody=scripted:x").err


TALKING = """
workflow: talk
places: {asked: {initial: true}, said: {}, over: {terminal: true}}
agents:
  speaker: {conversation: case, llm_provider: {type: scripted, model: one, responses: ["yes", "no"]}}
transitions:
  speak: {from_places: asked, to_place: said, agent_execution: {agent_id: speaker}}
  ask: {from_places: said, to_place: asked, trigger: {type: manual}}
  end: {from_places: said, to_place: over, trigger: {type: manual}}
"""


async def test_a_fork_goes_on_with_what_agents_had_said_by_then(database_url: str) -> None:
    async with Circuit.open(database_url) as opened:
        await opened.load(TALKING)
        case = await opened.start("talk", {})
        once = (await opened.wait(case)).history[-1].seq
        await opened.fire(case, "ask")
        await opened.wait(case)
        me = opened.principal

        async def said(about: str) -> list[int]:
            found = await opened.conversations.list(me, case=opened.key(about).case)
            return [one.messages for one in found]

        [twice] = await said(case)
        early, late = await opened.fork(case, once), await opened.fork(case)
        assert await said(early) == [twice // 2] and await said(late) == [twice]
        assert await said(await opened.fork(case, 1)) == []
        await opened.fire(early, "ask")
        await opened.wait(early)
        assert await said(early) == [twice] and await said(case) == [twice]
