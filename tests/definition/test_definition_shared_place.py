"""Shared places in a workflow file: what may be said of them, and what they are compiled to."""

from __future__ import annotations

from faulty import expect, workflow

from circuit.definition import load_workflow


def test_a_shared_place_holds_no_tokens_and_only_actions_take_from_it() -> None:
    expect(
        workflow(
            places="""
desk: {«shared: true}
press: {shared: true, capacity: 2, «terminal: true, «tokens: [{}], interval: «0}
fine: {shared: true, capacity: 2, interval: 1m}
more: {«interval: 5s}
""",
            transitions="""
«alone: {from_places: [fine], to_place: end, agent_execution: helper}
plain: {from_places: [start, «fine], to_place: end}
odd:
  from_places: [start, «{place: fine, mode: read}, «{place: fine, weight: 3}]
  to_places: [«fine, end]
  on_failure: «fine
  agent_execution: helper
""",
        ),
        "a shared place needs a capacity",
        "terminal means nothing here",
        "tokens means nothing here",
        "longer than nothing",
        "interval belongs to a shared place",
        "the transition has no inputs but shared places",
        "runs no action that could hold anything of it",
        "a firing can only take from it",
        "fine has 2 in all, and this takes 3",
        "given back by itself",
        "a shared place takes no tokens",
    )


def test_a_shared_place_is_no_part_of_the_net() -> None:
    text = workflow(
        places="desk: {shared: true, capacity: 2}\nrate: {shared: true, capacity: 5, interval: 1m}",
        transitions="""
both:
  from_places: [start, desk, {place: rate, weight: 2}]
  to_place: end
  conditions: ["data.x == 1"]
  agent_execution: helper
""",
    )
    made = load_workflow(text, "file.yaml")
    assert set(made.net.places) == {"start", "end"}
    assert made.net.transitions["both"].keeps_identity
    assert made.actions["both"].holds == {"desk": 1, "rate": 2}
    assert {name: (one.capacity, one.interval_seconds) for name, one in made.resources.items()} == {
        "desk": (2, None),
        "rate": (5, 60.0),
    }
