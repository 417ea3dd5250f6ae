"""Compensation: what was done is undone, the last first, each once, whatever is lost on the way."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import UUID

import pytest

from circuit.definition import load_workflow
from circuit.engine.action import ActionOutput
from circuit.engine.audit.replay import Replay
from circuit.engine.firings import Start
from circuit.engine.owner import Owner, Step
from circuit.errors import ActionFailed, DefinitionError
from circuit.events import FiringBegun, TransitionFired
from circuit.ids import CaseKey
from circuit.net.marking import Token
from circuit.testing import running
from tests.engine.model import ModelCase

JOURNEY = """
workflow: journey
places:
  asked: {initial: true}
  flown: {}
  housed: {}
  booked: {terminal: true}
  broken: {description: A booking could not be had.}
  given_back: {terminal: true, description: "All is given back, in the reverse order."}
transitions:
  fly:
    from_places: asked
    to_place: flown
    action: {type: function, name: book_flight, output_mapping: {data.flight: booking}}
    on_failure: broken
    compensation: {action: {type: function, name: cancel, input_mapping: {booking: data.produced.flown.flight}}}
  house:
    from_places: flown
    to_place: housed
    action: {type: function, name: book_hotel, output_mapping: {data.hotel: booking}}
    on_failure: broken
    compensation: {action: {type: function, name: cancel, input_mapping: {booking: data.produced.housed.hotel}}}
  drive:
    from_places: housed
    to_place: booked
    action: {type: function, name: book_car, output_mapping: {data.car: booking}}
    on_failure: broken
  call_off:
    from_places: housed
    to_place: given_back
    trigger: {type: manual}
    compensates: all
  give_back:
    from_places: broken
    to_place: given_back
    compensates: all
"""
NOW = datetime(2026, 1, 1, tzinfo=UTC)
BOOKED = {"fly": {"booking": "F1"}, "house": {"booking": "H1"}}
NO_CAR = {**BOOKED, "drive": ActionFailed("no car")}


async def test_it_is_undone_in_the_reverse_order_with_what_was_made() -> None:
    given_back: list[Any] = []
    answers: dict[str, Any] = {**NO_CAR, **dict.fromkeys(("fly~undo", "house~undo"), given_back.append)}
    async with running(JOURNEY, {"to": "Oslo"}, answers=answers) as run:
        await run.settle()
        assert run.status == "completed"
        assert given_back == [{"booking": "H1"}, {"booking": "F1"}]
        [token] = run.tokens("given_back")
        assert token.data == {"to": "Oslo", "flight": "F1", "hotel": "H1"} and "failure" in token.metadata


async def test_nothing_is_undone_where_all_went_well() -> None:
    async with running(JOURNEY, {"to": "Oslo"}, answers={**BOOKED, "drive": {"booking": "C1"}}) as run:
        await run.settle()
        assert run.status == "completed" and run.fired("fly~undo") == 0
        # The token is the one that came in, as of any step with one token in and one out.
        assert run.tokens("booked")[0].number == 1
        records = [(record.metadata["undoes"], record.data) for record in run.tokens("~done")]
        assert records == [
            ("fly", {"consumed": {"asked": {"to": "Oslo"}}, "produced": {"flown": {"to": "Oslo", "flight": "F1"}}}),
            (
                "house",
                {
                    "consumed": {"flown": {"to": "Oslo", "flight": "F1"}},
                    "produced": {"housed": {"to": "Oslo", "flight": "F1", "hotel": "H1"}},
                },
            ),
        ]


async def test_what_fails_to_undo_waits_for_a_person_and_goes_on_after() -> None:
    tries: list[Any] = []

    def cancel(inputs: Any) -> None:
        tries.append(inputs["booking"])
        if len(tries) == 1:
            raise ActionFailed("the hotel does not answer")

    async with running(JOURNEY, answers={**NO_CAR, "fly~undo": cancel, "house~undo": cancel}) as run:
        await run.settle()
        assert run.status == "attention" and run.tokens("given_back") == []
        await run.retry()
        assert run.status == "completed" and tries == ["H1", "H1", "F1"]


SCOPED = """
workflow: scoped
places: {todo: {initial: true}, one: {}, two: {}, more: {}, over: {terminal: true}}
transitions:
  a:
    from_places: todo
    to_places: [{place: one, weight: 2}]
    action: {type: function, name: do, required: false}
    compensation: {action: {type: function, name: undo, input_mapping: {made: data.produced.one}}}
  b: {from_places: [{place: one, weight: 2}], to_place: two, compensation: undo_b, merge: last}
  again: {from_places: two, to_place: more, compensates: b}
  done: {from_places: more, to_places: [over, {place: over, data: {n: "'2'"}}], compensates: [a, b], merge: last}
"""


async def test_only_what_is_named_is_undone_and_a_step_that_did_nothing_is_not() -> None:
    undone: list[Any] = []
    answers: dict[str, Any] = {"a": {"x": 1}, "a~undo": lambda inputs: undone.append(inputs["made"])}
    answers["b~undo"] = lambda inputs: undone.append(sorted(inputs))
    async with running(SCOPED, {"n": 1}, answers=answers) as run:
        await run.settle()
        assert undone == [["consumed", "produced"], [{"n": 1}, {"n": 1}]]
        assert run.status == "completed" and run.places() == {"over": 2} and run.fired("b~undo") == 1
    undone.clear()
    async with running(SCOPED, {"n": 1}, answers={**answers, "a": ActionFailed("not today")}) as run:
        await run.settle()
        assert undone == [["consumed", "produced"]] and run.status == "completed", "a did nothing"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("compensates: all", "cancels: {transitions: [fly]}"), "nothing ever undoes fly"),
        (("compensates: all", "compensates: [fli]"), "there is no transition 'fli'"),
        (("compensates: all", "compensates: drive"), "drive has no compensation"),
        (("data.produced.flown.flight", "data.produced.housed.flight"), "the step has produced no token of 'housed'"),
        (("data.produced.flown.flight", "data.flight"), "of a step there is data.consumed and data.produced"),
        (
            ("{booking: data.produced.flown.flight}", "{b: data.consumed.asked}, output_mapping: {data.x: y}"),
            "no token",
        ),
        (
            ("{action: {type: function, name: cancel, input_mapping: {booking: data.produced.housed.hotel}}}", "{}"),
            "one",
        ),
    ],
)
def test_what_cannot_be_undone_is_a_fault_of_the_file(change: tuple[str, str], message: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        load_workflow(JOURNEY.replace(*change))
    assert any(message in fault.message for fault in refused.value.faults), refused.value.faults


def test_each_step_is_undone_once_whatever_is_lost() -> None:
    """The worker is lost before and after commits, with its actions or without; late results come."""
    workflow = load_workflow(JOURNEY)
    lengths: set[int] = set()
    for seed in range(400):
        case = _driven(workflow, Random(seed))
        told = [event for _, _, event in case.history if isinstance(event, TransitionFired)]
        names = [event.transition for event in told]
        done = [name for name in names if name in ("fly", "house")]
        undone = [name.removesuffix("~undo") for name in names if name.endswith("~undo")]
        assert undone == ([] if "drive" in names else done[::-1]), names
        begun = [event.transition for _, _, event in case.history if isinstance(event, FiringBegun)]
        assert all(begun.count(f"{name}~undo") <= 1 for name in done), "it is one firing, started again"
        replay = Replay(case.key, workflow.net)
        assert [fault for entry in case.history for fault in replay.apply(*entry)] == []
        lengths.add(len(undone))
    assert lengths == {0, 1, 2}


def _driven(workflow: Any, random: Random) -> ModelCase:
    """A case to its end, under workers that are lost."""
    token = Token(1, 1, "asked", {"to": "Oslo"}, {}, NOW)
    case = ModelCase.start(CaseKey(1, UUID(int=1)), "journey", [token], NOW)
    for incarnation in range(1, 1_000):
        case.owner = incarnation
        owner = Owner(workflow, case.state())
        step, pending = owner.wake(NOW), list[Start]()
        while not case.row.status.terminal:
            if random.random() < 0.15:
                break  # Lost before the commit.
            if step.write is not None:
                case.apply(step.write, incarnation)
                pending += step.starts
            if case.row.status.terminal or case.owner is None or not pending or random.random() < 0.25:
                break  # Lost after it.
            step = _ended(owner, pending, random)
        if case.row.status.terminal:
            return case
        if case.owner is not None:
            case.take_over(incarnation, NOW)
    raise AssertionError("the case never ended")


def _ended(owner: Owner, pending: list[Start], random: Random) -> Step:
    call = pending.pop(random.randrange(len(pending))).call
    if call.transition in ("house", "drive") and random.random() < 0.5:
        return owner.failed(call.firing, call.start, ActionFailed("not to be had"), 0, NOW)
    return owner.completed(call.firing, call.start, ActionOutput({"booking": call.transition}), 0, NOW)
