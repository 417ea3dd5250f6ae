"""A completion predicate: the case ends when it holds, and the analysis says what that means for the net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from circuit.definition import load_workflow
from circuit.definition.proof import prove
from circuit.errors import DefinitionError
from circuit.net.analysis.limits import Limits
from circuit.testing import running

PANEL = """
workflow: panel
places: {{asked: {{initial: true}}, open: {{}}, answers: {{}}}}
complete_when: "{when}"
transitions:
  ask: {{from_places: asked, to_places: [{{place: open, weight: 3}}]}}
  answer:
    from_places: open
    to_place: answers
    action: {{type: human, title: Answer, form: {{type: object}}, output_mapping: {{data.good: good}}}}
"""
LOSE = "  lose: {from_places: answers, to_place: lost, trigger: {type: manual}}\n"
ENOUGH = "size(tokens.answers) >= 2"
GOOD = "tokens.answers.exists(t, t.data.good)"


def panel(when: str) -> str:
    return PANEL.format(when=when)


async def test_the_case_ends_when_it_holds_and_what_still_runs_is_cancelled() -> None:
    async with running(panel(ENOUGH)) as run:
        await run.settle()
        assert run.status == "waiting"
        await run.complete("answer", {"good": False})
        assert run.status == "waiting" and run.places() == {"open": 2, "answers": 1}
        await run.complete("answer", {"good": False})
        assert run.status == "completed" and run.places() == {"open": 1, "answers": 2}
        assert run.waits() == {}


async def test_it_may_look_at_data_and_where_it_has_no_answer_it_does_not_hold() -> None:
    for given, status in (([{"good": False}, {"good": True}], "completed"), ([{"bad": 1}] * 3, "stuck")):
        async with running(
            panel(GOOD).replace("{data.good: good}", "{data.good: {path: good, optional: true}}")
        ) as run:
            await run.settle()
            for answer in given:
                await run.complete("answer", answer)
            assert run.status == status


async def test_a_place_with_a_bad_end_outweighs_it() -> None:
    lost = panel(ENOUGH).replace("answers: {}", "answers: {}, lost: {terminal: true, outcome: failed}")
    async with running(lost + LOSE) as run:
        await run.complete("answer", {"good": False})
        await run.fire("lose")
        assert run.status == "failed"


def verdicts(when: str) -> Mapping[str, Any]:
    wanted = ("soundness", "deadlock_freedom", "boundedness", "dead_transitions")
    return prove(load_workflow(panel(when)), Limits(lambda: 0.0, states=20_000), wanted).verdicts


@pytest.mark.parametrize(
    ("when", "soundness", "dead"),
    [
        (ENOUGH, "proven", "proven"),
        ("tokens.answers.size() > 1", "proven", "proven"),
        ("size(tokens['answers']) == 3 && size(tokens.open) == 0", "proven", "proven"),
        ("size(tokens.answers) >= 4", "violated", "violated"),
        # A case may be complete on the way; the net that is analysed goes on from there.
        ("size(tokens.answers) == 2 || size(tokens.answers) > 5", "unknown", "proven"),
        (GOOD, "unknown", "proven"),
        ("case.fired.answer > 1", "unknown", "proven"),
    ],
)
def test_what_counts_tokens_is_decided_and_what_asks_for_more_is_not(when: str, soundness: str, dead: str) -> None:
    found = verdicts(when)
    assert found["soundness"].answer.value == soundness, found["soundness"]
    assert found["dead_transitions"].answer.value == dead
    assert found["boundedness"].proven
    assert not found["soundness"].unknown or "complete_when" in found["soundness"].reason


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("size(tokens.answrs) >= 2", "there is no place 'answrs'"),
        ("data.enough", "data means nothing here"),
        ("size(tokens.answers)", "not true or false"),
        ("case.fired.ansver > 1", "there is no transition 'ansver'"),
        ("size(", "not a valid expression"),
    ],
)
def test_a_predicate_that_means_nothing_is_a_fault(when: str, message: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        load_workflow(panel(when))
    assert [fault.line for fault in refused.value.faults] == [4]
    assert message in refused.value.faults[0].message
