"""Live cases brought to another version of their workflow: judged, moved by their owners, and what stays says why."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from eventually import eventually

from circuit.app import Circuit
from circuit.cli.migration import print_report
from circuit.cli.terminal import Terminal
from circuit.definition import load_workflow
from circuit.engine.audit.inspection import inspect_at
from circuit.engine.migration import Passage
from circuit.engine.migrator import MigrationReport, Wanted
from circuit.engine.modification import Modification, Move
from circuit.errors import Forbidden, InvalidRequest, NotFound
from circuit.ids import CaseKey
from circuit.net.analysis.completion import completion
from circuit.net.analysis.limits import Limits
from circuit.net.analysis.translation import translate
from circuit.security.principal import Principal
from circuit.storage.records import CommandState, FiringState
from tests.cli.commanding import Command
from tests.cli.conftest import bare, circuit
from tests.engine.test_owner import Stage, acting, review_net

__all__ = ["bare", "circuit"]

FIRST = """
workflow: papers
places:
  draft: {initial: true}
  checked: {}
  review: {}
  gone: {}
  limbo: {}
  done: {terminal: true}
agents:
  reader: {llm_provider: {type: scripted, model: one, responses: ["read"]}}
place_agents:
  - {place_id: review, agent_id: reader, output_mapping: {data.read: text}}
transitions:
  check: {from_places: draft, to_place: checked, action: {type: human, title: Check it}}
  forward: {from_places: checked, to_place: review, priority: 1, trigger: {type: manual}}
  approve: {from_places: review, to_place: done, trigger: {type: manual}}
  lose: {from_places: review, to_place: gone, trigger: {type: manual}}
  stray: {from_places: review, to_place: limbo, trigger: {type: manual}}
  find: {from_places: gone, to_place: done, trigger: {type: manual}}
  free: {from_places: limbo, to_place: done, trigger: {type: manual}}
"""
SECOND = (
    FIRST.replace("  gone: {}\n", "")
    .replace("  lose: {from_places: review, to_place: gone, trigger: {type: manual}}\n", "")
    .replace("  find: {from_places: gone, to_place: done, trigger: {type: manual}}\n", "")
    .replace("  stray: {from_places: review, to_place: limbo, trigger: {type: manual}}\n", "")
    .replace("  free: {from_places: limbo, to_place: done, trigger: {type: manual}}\n", "")
    .replace("review", "assessed")
    .replace("  assessed: {}", "  assessed: {colour: Paper}")
    .replace("places:\n", "colours: {Paper: {type: object, properties: {n: {type: integer}}}}\nplaces:\n", 1)
)
MAP = {"review": "assessed"}


async def standing_at(opened: Circuit, place: str, n: Any = 1) -> str:
    """A case of the first version whose only token lies there."""
    case = await opened.start("papers", {"n": n})
    await opened.wait(case)
    if place != "draft":
        move = Modification("to begin with", move=[Move(1, place)], cancel_firings=True)
        assert (await opened.modify(case, move)).state.value == "applied"
        await opened.wait(case)
    return case


async def migrate(opened: Circuit, **wanted: Any) -> MigrationReport:
    return await opened.migrator.migrate(Wanted("papers", **wanted), principal=opened.principal)


def stay(report: MigrationReport) -> dict[str, str]:
    return {str(key): reason for key, reason in report.stay.items()}


async def test_what_can_go_goes_and_what_stays_says_why(database_url: str) -> None:
    async with Circuit.open(database_url) as opened:
        first = await opened.load(FIRST, allow_unsound=True)
        waiting = await standing_at(opened, "draft")
        renamed = await standing_at(opened, "review")
        text = await standing_at(opened, "review", n="a text")
        gone = await standing_at(opened, "gone")
        limbo = await standing_at(opened, "limbo")
        over = await standing_at(opened, "done")
        second = await opened.load(SECOND, allow_unsound=True)
        histories = {case: (await opened.case(case)).history for case in (waiting, renamed, text, gone, limbo, over)}
        assert [e.transition for e in (await opened.case(renamed)).executions] == ["check", "reader@review"]

        tried = await migrate(opened, places=MAP, dry_run=True)
        assert (tried.cases, tried.moved, tried.left) == (5, 2, 3)
        assert {tuple(one.marking): one.verdict for one in tried.markings} == {
            ("draft",): "proven",
            ("review",): "proven",
            ("gone",): "refused",
            ("limbo",): "violated",
        }
        for case, history in histories.items():
            assert (await opened.case(case)).history == history, "a dry run changes nothing"

        report = await migrate(opened, old=first.hash[:8], new=second.hash[:8], places=MAP)
        assert (report.moved, report.left, report.pending) == (2, 3, 0)
        assert stay(report).keys() == {text, gone, limbo}
        assert "token 1 is no Paper for assessed" in stay(report)[text]
        assert "there is no place gone in the new version" in stay(report)[gone]
        assert "could not always come to an end there: nothing can fire" in stay(report)[limbo]

        # What waited goes on with what it waited for, and what was done is not done again.
        [task] = await opened.tasks(case_id=waiting)
        await opened.complete(task.id, {})
        await opened.fire(waiting, "forward")
        assert (await opened.wait(waiting)).marking == {"assessed": 1}
        view = await opened.wait(renamed)
        assert (view.workflow_hash, view.marking) == (second.hash, {"assessed": 1})
        assert [e.transition for e in view.executions] == ["check", "reader@review"], "the agent of the place had run"
        before, after = (histories[renamed][-1], view.history[-1].as_dict())
        assert before.seq == after["seq"] - 1
        assert (after["kind"], after["from_hash"], after["workflow_hash"], after["principal"]) == (
            "case_migrated",
            first.hash,
            second.hash,
            "local",
        )
        await opened.fire(renamed, "approve")
        assert (await opened.wait(renamed)).status.value == "completed"

        # Again: only what has stayed is looked at, and nothing is asked twice.
        again = await migrate(opened, places=MAP)
        assert (again.moved, stay(again)) == (0, stay(report))
        # The past of a case that was moved, and a fork from before.
        was = await opened.at(renamed, before.seq)
        assert (was.workflow_hash, was.marking) == (first.hash, {"review": 1})
        now = await opened.at(renamed, before.seq + 1)
        assert (now.workflow_hash, now.marking) == (second.hash, {"assessed": 1})
        assert now.tokens[0].entered_at == was.tokens[0].entered_at, "a place of another name is no arrival"
        fork = await opened.wait(await opened.fork(renamed, before.seq))
        assert (fork.workflow_hash, fork.marking, fork.executions) == (first.hash, {"review": 1}, [])
    report = await inspect_at(database_url)
    assert ([str(fault) for fault in report.faults], report.unchecked) == ([], {})


async def test_what_is_under_way_has_to_end_or_begins_anew(database_url: str) -> None:
    changed = FIRST.replace("title: Check it", "title: Check it well")
    async with Circuit.open(database_url) as opened:
        first = await opened.load(FIRST, allow_unsound=True)
        case = await standing_at(opened, "draft")
        await opened.load(changed, allow_unsound=True)
        report = await migrate(opened, old=first.hash)
        assert "waits, and that transition is not the same there" in stay(report)[case]
        report = await migrate(opened, restart=True)
        assert (report.moved, report.left) == (1, 0)
        await opened.wait(case)
        [task] = await opened.tasks(case_id=case)
        assert (task.title, task.id) == ("Check it well", f"{case}.2")
        assert [one.status for one in (await opened.case(case)).executions] == ["cancelled", "suspended"]
    assert (await inspect_at(database_url)).clean


async def test_cases_go_on_while_they_are_judged_and_two_migrate_at_once(database_url: str) -> None:
    """Moved once, by whoever comes first; and back, which is another migration."""
    plain = "\n".join(line for line in FIRST.splitlines() if "reader" not in line and "place_agents" not in line)
    plain = plain.replace("agents:\n", "") + "\n"
    async with Circuit.open(database_url) as opened, Circuit.open(database_url) as other:
        first = await opened.load(plain, allow_unsound=True)
        cases = [await opened.start("papers", {"n": n}) for n in range(16)]
        second = await opened.load(
            plain + "  extra: {from_places: draft, to_place: done, trigger: {type: manual}}\n", allow_unsound=True
        )

        async def move(one: Circuit) -> MigrationReport:
            return await one.migrator.migrate(Wanted("papers"), principal=one.principal)

        reports = await asyncio.gather(move(opened), move(other))
        rest = await migrate(opened)
        assert sum(report.moved for report in reports) + rest.moved >= len(cases)
        for case in cases:
            view = await opened.wait(case)
            assert view.workflow_hash == second.hash
            assert [event.kind for event in view.history].count("case_migrated") == 1
        back = await migrate(opened, new=first.hash, restart=True)
        assert (back.moved, back.left) == (16, 0)
        for case in cases[:3]:
            await opened.wait(case)
    assert (await inspect_at(database_url)).clean


async def test_what_is_not_there_is_said(database_url: str) -> None:
    async with Circuit.open(database_url, worker=False) as opened:
        first = await opened.load(FIRST, allow_unsound=True)
        second = await opened.load(SECOND, allow_unsound=True)
        for wanted, error, said in (
            ({"old": "beef" * 8}, NotFound, "has no version 'beef"),
            ({"old": first.hash[:3]}, NotFound, "has no version"),
            ({"old": second.hash}, InvalidRequest, "already"),
            ({"places": {"nowhere": "done"}}, InvalidRequest, "has a place 'nowhere'"),
            ({"places": {"review": "nowhere"}}, InvalidRequest, "has no place 'nowhere'"),
            ({"new": load_workflow(FIRST.replace("papers", "other"), "x")}, InvalidRequest, "another workflow"),
            (
                {"new": load_workflow(SECOND + "  x: {from_places: draft, to_place: done}\n", "x")},
                NotFound,
                "not published",
            ),
        ):
            with pytest.raises(error, match=said):
                await migrate(opened, **wanted)
        with pytest.raises(NotFound, match="no workflow 'none'"):
            await opened.migrator.migrate(Wanted("none"), principal=opened.principal)
        operator = Principal("o", opened.principal.tenant, frozenset({"operator"}))
        with pytest.raises(Forbidden):
            await opened.migrator.migrate(Wanted("papers"), principal=operator)


def test_the_command(circuit: Command, tmp_path: Path) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(FIRST)
    new.write_text(SECOND)
    loaded = circuit("load", old, "--allow-unsound", "--json").json["hash"]
    case = circuit("run", old, "--set", "data.n=1", "--json").json["case_id"]
    tried = circuit("migrate", "papers", new, "--dry-run", "--map", "review=assessed", "--json")
    assert (tried.code, tried.json["moved"], tried.json["dry_run"]) == (0, 1, True)
    assert circuit("migrate", "papers", new, "--map", "review=assessed").code == 2, "it is not published"
    circuit("load", new, "--allow-unsound")
    # No other worker lives: the command moves the cases itself.
    done = circuit("migrate", f"papers@{loaded[:8]}", "papers")
    assert done.code == 0 and "1 went, 0 stay" in done.out and "draft: 1" in done.out
    assert "moved by local to the version" in circuit("show", case).out
    assert circuit("migrate", "papers", "papers", "--json").json["cases"] == 0
    assert circuit("fsck").code == 0
    mapped = tmp_path / "map.json"
    mapped.write_text('{"review": 7}')
    for words, said in (
        (["papers@", "papers"], "write WORKFLOW@HASH"),
        (["papers", "other"], "do not go to another workflow"),
        (["papers", "papers", "--map", "x"], "maps no place"),
        (["papers", "papers", "--map-file", str(mapped)], "must be a name"),
        (["papers", str(tmp_path / "none.yaml")], "none.yaml"),
    ):
        outcome = circuit("migrate", *words)
        assert outcome.code == 2 and said in outcome.err, outcome


@pytest.mark.parametrize("dry_run", [False, True])
def test_who_moves_cases_is_told_how_the_rest_goes(dry_run: bool, capsys: pytest.CaptureFixture[str]) -> None:
    report = MigrationReport("papers", "0" * 64, dry_run)
    report.leave(CaseKey(1, UUID(int=1)), "firing 1 of review is running")
    print_report(report, Terminal())
    out = capsys.readouterr().out
    assert "firing 1 of review is running" in out
    assert ("the same command again" in out) is not dry_run


def test_an_owner_moves_only_what_it_was_judged_for() -> None:
    stage = Stage(review_net(), [("draft", {"text": "x"})], review=acting())
    [start] = stage.wake().starts
    wanted = {"from": "hash", "to": "new", "seq": 2, "bucket": 3, "places": {"draft": "draft2"}, "restart": [1]}
    for changes, said in (
        ({"seq": 1}, "went on to event 2"),
        ({"from": "another"}, "is on version hash"),
        ({"restart": []}, "firing 1 of review is running"),
        ({"places": None}, "no"),
    ):
        result = stage.ask("migrate", **{**wanted, **changes})
        assert result.state is CommandState.REFUSED and said in result.result["error"]["message"]
        assert stage.case.row.workflow_hash == "hash" and stage.case.firings[1].state is FiringState.RUNNING
    assert stage.ask("migrate", **wanted).state is CommandState.APPLIED
    assert (stage.case.row.workflow_hash, stage.case.row.bucket, stage.case.owner) == ("new", 3, None)
    assert (stage.case.due_at, stage.marking, stage.case.tokens[1][1]) == (stage.now, {"draft2": 1}, None)
    assert stage.kinds[-2:] == ["firing_cancelled", "case_migrated"]
    assert start.call.firing == 1


def test_what_is_refused_has_cancelled_nothing() -> None:
    stage = Stage(review_net(), [("draft", {}), ("draft", {})], review=acting())
    stage.wake()
    wanted = {"from": "hash", "to": "new", "seq": 3, "bucket": 3, "places": {}, "restart": [1]}
    result = stage.ask("migrate", **wanted)
    assert result.state is CommandState.REFUSED and "firing 2 of review is running" in result.result["error"]["message"]
    assert [row.state for row in stage.case.firings.values()] == [FiringState.RUNNING] * 2


@pytest.mark.parametrize(
    ("marking", "answer"),
    [
        ({"draft": 1}, "proven"),
        ({"limbo": 1}, "violated"),
        ({"done": 2}, "proven"),
        ({"draft": 1, "limbo": 1}, "violated"),
    ],
)
def test_completion_is_proven_from_where_a_case_stands(marking: dict[str, int], answer: str) -> None:
    second = load_workflow(SECOND, "second.yaml")
    verdict = completion(translate(second.net, marking).net, Limits(lambda: 0.0))
    assert verdict.answer.value == answer, verdict


def test_what_grows_without_end_and_what_takes_too_long_is_not_decided() -> None:
    grows = load_workflow(
        "workflow: g\nplaces: {a: {initial: true}, b: {}, c: {terminal: true}}\ntransitions:\n"
        "  more: {from_places: a, to_places: [a, b]}\n  end: {from_places: [a, b], to_place: c}\n",
        "g.yaml",
    )
    net = translate(grows.net, {"a": 1}).net
    assert "more and more" in completion(net, Limits(lambda: 0.0)).reason
    assert completion(net, Limits(lambda: 0.0, states=1)).unknown


def test_a_passage_knows_capacities_and_merges() -> None:
    old, new = (
        load_workflow(FIRST, "old.yaml"),
        load_workflow(SECOND.replace("checked: {}", "checked: {capacity: 2}"), "n"),
    )
    passage = Passage(old, new, {"review": "checked", "gone": "checked"})
    assert passage.marking({"review": 1, "gone": 1}) == ({"checked": 2}, [])
    assert "checked takes 2" in passage.marking({"review": 1, "gone": 2})[1][0]
    assert replace(passage, places={}).marking({"review": 1})[1]


ORDER = """
workflow: papers
places: {draft: {initial: true}, paid: {terminal: true}}
transitions:
  pay: {from_places: draft, to_place: paid, trigger: {type: message, message: payment, correlate: data.n}}
"""
BY_HAND = ORDER.replace("{type: message, message: payment, correlate: data.n}", "{type: manual}")


async def test_the_messages_that_a_case_waits_for_are_those_of_its_version(database_url: str) -> None:
    async with Circuit.open(database_url) as opened:
        await opened.load(ORDER)
        cases = [await opened.start("papers", {"n": n}) for n in range(2)]

        async def rest() -> None:
            for case in cases:
                await opened.wait(case)

        await rest()
        await opened.load(BY_HAND)
        assert (await migrate(opened)).moved == 2
        await rest()
        early = await opened.messages.send("payment", {}, principal=opened.principal, key=(0,))
        assert [(await opened.case(case)).status.value for case in cases] == ["waiting"] * 2
        await opened.fire(cases[1], "pay")
        assert (await migrate(opened, new=load_workflow(ORDER, "x"))).moved == 1

        async def taken() -> bool:
            return (await opened.case(cases[0])).status.value == "completed"

        await eventually(taken, what=f"message {early.id}, which had waited for a case, is taken")
    assert (await inspect_at(database_url)).clean


PARENT = """
workflow: binder
places: {begin: {initial: true}, end: {terminal: true}}
transitions:
  run:
    from_places: begin
    to_place: end
    action: {type: subworkflow, workflow: papers, output_mapping: {data.child: case_id}}
"""


async def test_a_child_still_tells_its_parent_and_a_fork_has_none(database_url: str) -> None:
    async with Circuit.open(database_url) as opened:
        await opened.load(BY_HAND)
        await opened.load(PARENT)
        parent = await opened.start("binder", {})

        async def opened_child() -> str | None:
            return next((str(one.key) for one in await opened.cases(workflow_id="papers")), None)

        child = await eventually(opened_child)
        assert child is not None
        await opened.wait(child)
        await opened.load(BY_HAND + "  other: {from_places: draft, to_place: paid, trigger: {type: manual}}\n")
        assert (await migrate(opened)).moved == 1
        await opened.wait(child)
        fork = await opened.wait(await opened.fork(child))
        assert fork.parent is None
        await opened.fire(str(fork.case_id), "other")
        assert (await opened.wait(str(fork.case_id))).status.value == "completed"
        assert (await opened.case(parent)).status.value != "completed", "a fork has nobody to tell"
        await opened.fire(child, "other")
        assert (await opened.wait(parent)).status.value == "completed"
        connection = await asyncpg.connect(database_url)
        needs = await connection.fetchval(
            'SELECT b.requires FROM circuit."case" c JOIN circuit.bucket b USING (bucket) WHERE c.case_id = $1',
            UUID(child),
        )
        await connection.close()
        assert '"subworkflow"' in needs
    assert (await inspect_at(database_url)).clean
