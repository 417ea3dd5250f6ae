"""Why a transition does not fire, and runs of a whole net in memory."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from nets import CASE, NOW, World, token, worlds

from circuit.errors import ActionFailed
from circuit.net.binding import first_binding
from circuit.net.diagnosis import ReasonKind, why
from circuit.net.firing import begin
from circuit.net.guard import Guard, Rule
from circuit.net.mapping import InputMapping, OutputMapping
from circuit.net.marking import Marking
from circuit.net.simulation import Simulation
from circuit.net.structure import InputArc, Manual, Merge, Mode, Net, OutputArc, Place, Transition, Trigger


def net_of(part: Transition, **capacities: int) -> Net:
    names = {arc.place for arc in (*part.inputs, *part.outputs)}
    return Net.build("n", [Place(name, capacity=capacities.get(name)) for name in sorted(names)], [part])


def reasons(part: Transition, *tokens: Any, blocked: Any = frozenset(), **capacities: int) -> list[tuple]:
    found = why(net_of(part, **capacities), Marking(tokens), part.name, CASE, NOW, blocked)
    assert not found.enabled
    return [(reason.kind, reason.subject, reason.have, reason.need) for reason in found.reasons]


JOIN = Transition("join", (InputArc("a", 2), InputArc("b", 1, Mode.READ)), (OutputArc("z", 2),))
NAMED = Guard((Rule.parse({"id": "named", "field_equals": {"field": "data.name", "value": "x"}}),))
STEP = Transition("step", (InputArc("a"),), (OutputArc("z"),), guard=NAMED)


def test_every_arc_and_place_that_lacks_something_is_told() -> None:
    assert reasons(JOIN, token(1, "a"), token(2, "z"), z=3) == [
        (ReasonKind.TOKENS, "a", 1, 2),
        (ReasonKind.TOKENS, "b", 0, 1),
    ]
    assert reasons(JOIN, token(1, "a"), token(2, "z"), z=2) == [
        (ReasonKind.TOKENS, "a", 1, 2),
        (ReasonKind.TOKENS, "b", 0, 1),
        (ReasonKind.CAPACITY, "z", 1, 2),
    ]


def test_tokens_that_are_reserved_or_come_later() -> None:
    later = NOW + timedelta(hours=1)
    found = why(
        net_of(JOIN), Marking([token(1, "a"), token(2, "a", available_at=later), token(3, "b")]), "join", CASE, NOW
    )
    (reason,) = found.reasons
    assert (reason.kind, reason.have, reason.need) == (ReasonKind.TIME, 1, 2) and later.isoformat() in reason.message
    marking = Marking([token(1, "a"), token(2, "a"), token(3, "b")])
    marking.reserve(2, 9)
    (reason,) = why(net_of(JOIN), marking, "join", CASE, NOW).reasons
    assert (reason.kind, reason.have) == (ReasonKind.RESERVED, 1)
    assert reason.message == "a holds 2 tokens, 1 of them reserved by running firings; 2 needed"


def test_room_that_is_reserved_is_told() -> None:
    part = Transition("act", (InputArc("a"),), (OutputArc("z"),), acting=True)
    found, marking = net_of(part, z=1), Marking([token(1, "a"), token(2, "a")])
    binding = first_binding(found, marking, "act", CASE, NOW)
    assert binding is not None
    begin(found, marking, binding, 1)
    (reason,) = why(found, marking, "act", CASE, NOW).reasons
    assert reason.message == "z takes 1, holds 0 tokens and room for 1 is reserved; room for 1 needed"


def test_a_guard_that_is_false_is_told_apart_from_one_without_an_answer() -> None:
    assert reasons(STEP, token(1, "a", {"name": "y"})) == [(ReasonKind.GUARD, "step", None, None)]
    found = why(net_of(STEP), Marking([token(1, "a"), token(2, "a")]), "step", CASE, NOW)
    assert [reason.kind for reason in found.reasons] == [ReasonKind.GUARD_FAULT] * 2
    assert found.reasons[0].message == "named: data.name is missing"
    assert found.reasons[1].message.startswith("2 sets of tokens were tried")


def test_an_open_incident_is_told() -> None:
    plain = Transition("step", (InputArc("a"),), (OutputArc("z"),))
    assert reasons(plain, token(1, "a"), blocked={("step", ((1, 1),))}) == [(ReasonKind.INCIDENT, "step", 1, None)]


def test_the_limit_of_a_search_is_told() -> None:
    part = Transition("join", (InputArc("a"), InputArc("b")), (OutputArc("z"),), guard=NAMED)
    tokens = [token(number, "a" if number < 101 else "b") for number in range(1, 202)]
    assert ReasonKind.BINDING_LIMIT in [kind for kind, *_ in reasons(part, *tokens)]


def test_a_manual_transition_waits_for_somebody() -> None:
    part = Transition(
        "decide",
        (InputArc("a"),),
        (OutputArc("z"),),
        trigger=Trigger.MANUAL,
        manual=Manual(roles=frozenset({"b", "a"})),
    )
    found = why(net_of(part), Marking([token(1, "a")]), "decide", CASE, NOW)
    assert found.enabled
    assert orjson.loads(orjson.dumps(found.as_dict())) == {
        "transition": "decide",
        "enabled": True,
        "reasons": [
            {
                "kind": "person",
                "subject": "decide",
                "have": None,
                "need": None,
                "message": "waits for somebody with the role a or b to fire it",
            }
        ],
    }


@settings(max_examples=80, deadline=None, database=None)
@given(worlds())
def test_a_transition_is_enabled_or_there_is_a_reason(world: World) -> None:
    for name, part in world.net.transitions.items():
        found = why(world.net, world.marking, name, CASE, NOW)
        assert found.enabled == (first_binding(world.net, world.marking, name, CASE, NOW) is not None)
        waits = [ReasonKind.PERSON] if part.trigger is Trigger.MANUAL else []
        assert [reason.kind for reason in found.reasons] == waits if found.enabled else found.reasons
        assert all(reason.message for reason in found.reasons)


# Simulation


def review(attempts: int) -> Net:
    """A review loop: an action judges, and what is sent back comes again, at most `attempts` times."""
    from circuit.expressions.cel import compile_expression

    def when(source: str) -> Guard:
        return Guard((), (compile_expression(source, ("data", "case")),))

    return Net.build(
        "review",
        [Place("submitted", initial=True), Place("reviewed"), Place("approved", terminal=True), Place("dead")],
        [
            Transition(
                "judge",
                (InputArc("submitted"),),
                (OutputArc("reviewed"),),
                acting=True,
                input_mapping=InputMapping.parse({"text": "data.content"}),
                output_mapping=OutputMapping.parse({"data.verdict": "verdict"}),
                on_failure="dead",
            ),
            Transition("approve", (InputArc("reviewed"),), (OutputArc("approved"),), when("data.verdict == 'good'"), 1),
            Transition(
                "again",
                (InputArc("reviewed"),),
                (OutputArc("submitted"),),
                when(f"data.verdict == 'bad' && case.fired.again < {attempts}"),
            ),
        ],
    )


def test_a_run_follows_the_outputs_and_the_counts_of_firings() -> None:
    asked: list[Mapping[str, Any]] = []

    def act(transition: Transition, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        asked.append(inputs)
        return {"verdict": "good" if len(asked) == 3 else "bad"}

    simulation = Simulation(review(5), NOW, act)
    simulation.put("submitted", {"content": "text"})
    steps = simulation.run()
    assert simulation.quiet and asked == [{"text": "text"}] * 3
    assert [step.transition for step in steps] == ["judge", "again", "judge", "again", "judge", "approve"]
    (end,) = simulation.marking.all()
    assert (end.number, end.version, end.place, end.data) == (1, 7, "approved", {"content": "text", "verdict": "good"})
    assert simulation.fired == {"judge": 3, "approve": 1, "again": 2}

    bounded = Simulation(review(2), NOW, lambda transition, inputs: {"verdict": "bad"})
    bounded.put("submitted", {"content": "text"})
    bounded.run()
    assert bounded.quiet and bounded.fired["again"] == 2 and bounded.marking.places() == ["reviewed"]


def test_a_failure_goes_to_on_failure_or_stays_and_is_not_tried_again() -> None:
    def act(transition: Transition, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        raise ActionFailed("broken")

    simulation = Simulation(review(1), NOW, act)
    simulation.put("submitted", {"content": "text"})
    simulation.put("submitted", {"other": "no content to map"})
    steps = simulation.run()
    assert [step.error.code if step.error else None for step in steps] == ["action_failed", "mapping_error"]
    dead, stays = simulation.marking.all()
    assert dead.place == "dead" and dead.metadata["failure"]["message"] == "broken"
    assert stays.place == "submitted" and simulation.marking.reserved_by(stays.number) is None
    assert simulation.quiet and simulation.run() == []


def test_a_net_without_an_end_is_stopped() -> None:
    part = Transition("spin", (InputArc("a"),), (OutputArc("a"),))
    simulation = Simulation(net_of(part), NOW, lambda transition, inputs: {})
    simulation.put("a", {})
    assert len(simulation.run(limit=25)) == 25 and not simulation.quiet


def test_a_join_of_actions_merges_what_it_hands_in() -> None:
    seen: list[Mapping[str, Any]] = []
    part = Transition("join", (InputArc("a"), InputArc("b")), (OutputArc("z"),), acting=True, merge=Merge.LIST)
    simulation = Simulation(net_of(part), NOW, lambda transition, inputs: seen.append(inputs) or {})
    simulation.put("a", {"answer": 1})
    simulation.put("b", {"answer": 2})
    (step,) = simulation.run()
    assert step.effect is not None and seen == [{"answer": [1, 2]}]
    assert simulation.marking.all()[0].data == {"answer": [1, 2]}


@pytest.mark.parametrize("place", ["a", "b"])
def test_numbers_go_on_after_those_that_lie_there(place: str) -> None:
    simulation = Simulation(net_of(JOIN), NOW, lambda transition, inputs: {}, marking=Marking([token(7, place)]))
    assert simulation.put("a", {}).number == 8
