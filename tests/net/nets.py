"""Random nets with random markings, once for Circuit and once, as plain data, for the oracle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import reference_net as oracle
from hypothesis import strategies as st

from circuit.expressions.cel import compile_expression
from circuit.net.guard import Guard, Rule
from circuit.net.marking import Marking, Token
from circuit.net.structure import InputArc, Merge, Mode, Net, OutputArc, Place, Transition, Trigger

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CASE: dict[str, Any] = {
    "id": "0195f000-0000-7000-8000-000000000001",
    "workflow_id": "random",
    "started_at": NOW.isoformat(),
    "fired": {},
}
PLACES = ("a", "b", "c", "d")

# Each guard as Circuit knows it, and as a function for the oracle. The last kind has no answer for some tokens.
GUARDS = {
    None: (None, None),
    "rule": (
        Guard((Rule.parse({"field_greater_than": {"field": "data.v", "value": 1}}),)),
        lambda consumed, read: _only(consumed)["data"]["v"] > 1,
    ),
    "cel": (
        Guard((), (compile_expression("data.v % 2 == 0", ("data", "metadata", "tokens", "case")),)),
        lambda consumed, read: _only(consumed)["data"]["v"] % 2 == 0,
    ),
    "faulty": (
        Guard((Rule.parse({"not": {"field_equals": {"field": "data.w", "value": 1}}}),)),
        lambda consumed, read: _only(consumed)["data"]["w"] != 1,
    ),
}


def _only(tokens):
    (token,) = tokens
    return token


@dataclass
class World:
    """The same net and the same marking twice."""

    net: Net
    marking: Marking
    plain_net: dict[str, Any]
    plain: dict[str, Any]


def worlds() -> st.SearchStrategy[World]:
    """Random worlds. Drawn from a seed: drawing every number through Hypothesis takes twenty times as long."""
    return st.integers(0, 2**32 - 1).map(lambda seed: random_world(Random(seed)))


def random_world(random: Random) -> World:
    capacities = {place: random.choice([None, None, None, 2, 4, 6]) for place in PLACES}
    shapes = {f"t{index}": _shape(random) for index in range(random.randint(2, 5))}
    plain = oracle.marking([(random.choice(PLACES), _data(random)) for _ in range(random.randint(3, 10))])
    for token in plain["tokens"].values():
        token["later"] = random.random() < 0.15
    return build(capacities, shapes, plain)


def _shape(random: Random) -> dict[str, Any]:
    return {
        "consume": _arcs(random, random.choice([1, 1, 2])),
        "read": _arcs(random, random.choice([0, 0, 0, 1])),
        "produce": _arcs(random, random.choice([0, 1, 1, 2, 3])),
        "priority": random.choice([0, 0, 1]),
        "acting": random.random() < 0.5,
        "auto": random.random() < 0.7,
        "on_failure": random.choice([None, *PLACES]),
        "guard": random.choice([None, None, None, *GUARDS]),
    }


def _arcs(random: Random, count: int) -> list[tuple[str, int]]:
    return [(place, random.choice([1, 1, 1, 2])) for place in random.sample(PLACES, count)]


def _data(random: Random) -> dict[str, Any]:
    data = {"v": random.randint(0, 3)}
    return data | {"w": random.randint(0, 1)} if random.random() < 0.5 else data


def build(capacities: dict[str, int | None], shapes: dict[str, Any], plain: dict[str, Any]) -> World:
    net = Net.build(
        "random",
        [Place(name, capacity=capacity) for name, capacity in capacities.items()],
        [_transition(name, shape) for name, shape in shapes.items()],
    )
    plain_net = {
        "places": capacities,
        "transitions": {name: shape | {"guard": GUARDS[shape["guard"]][1]} for name, shape in shapes.items()},
    }
    return World(net, Marking(_tokens(plain)), plain_net, plain)


def _transition(name: str, shape: dict[str, Any]) -> Transition:
    inputs = [InputArc(place, weight) for place, weight in shape["consume"]]
    inputs += [InputArc(place, weight, Mode.READ) for place, weight in shape["read"]]
    return Transition(
        name,
        tuple(inputs),
        tuple(OutputArc(place, weight) for place, weight in shape["produce"]),
        guard=GUARDS[shape["guard"]][0],
        priority=shape["priority"],
        trigger=Trigger.AUTO if shape["auto"] else Trigger.MANUAL,
        acting=shape["acting"],
        merge=Merge.LAST,
        on_failure=shape["on_failure"],
    )


def _tokens(plain: dict[str, Any]) -> list[Token]:
    return [
        Token(
            number,
            token["version"],
            token["place"],
            token["data"],
            {},
            NOW,
            NOW + timedelta(hours=1) if token["later"] else None,
        )
        for number, token in plain["tokens"].items()
    ]


def as_plain(marking: Marking) -> dict[int, Any]:
    """The tokens of a marking as the oracle writes them, without what it does not know."""
    return {
        token.number: {
            "place": token.place,
            "version": token.version,
            "data": dict(token.data),
            "later": token.available_at is not None and token.available_at > NOW,
            "entered": round((token.entered_at - NOW).total_seconds() * 1000),
            "runs": {name: (run.count, run.due, run.firing) for name, run in (token.runs or {}).items()},
        }
        for token in marking.all()
    }


def token(number: int, place: str, data: dict[str, Any] | None = None, **changes: Any) -> Token:
    """A token for tests that write theirs out."""
    return replace(Token(number, 1, place, data or {}, {}, NOW), **changes)
