"""Random workflows for the simulation: the same net once for the engine and once, as plain data, for the oracle."""

from __future__ import annotations

from random import Random
from typing import Any

from circuit.definition.workflow import ActionSpec, RetryPolicy, Workflow
from circuit.net.guard import Guard, Rule
from circuit.net.mapping import OutputMapping
from circuit.net.structure import InputArc, Manual, Merge, Mode, Net, OutputArc, Place, Transition, Trigger
from circuit.net.timing import Missed, Rhythm, Timer, Timing

Shape = dict[str, Any]


def random_shape(random: Random) -> Shape:
    """A net as plain data. Most end; those that would not are cut off by the simulation's bound."""
    count = random.randint(3, 7)
    names = [f"p{index}" for index in range(count)]
    places: dict[str, Any] = {}
    for index, name in enumerate(names):
        places[name] = {
            "capacity": random.choice([None, None, None, random.randint(1, 3)]) if index else None,
            "terminal": index == count - 1 or (index > 1 and random.random() < 0.15),
            "failed": False,
            "dead_letter": False,
        }
    places["dead"] = {"capacity": None, "terminal": False, "failed": False, "dead_letter": True}
    if random.random() < 0.2:
        places["ruin"] = {"capacity": None, "terminal": True, "failed": True, "dead_letter": False}
    transitions = {f"t{index}": _transition(random, places, f"p{index}") for index in range(random.randint(2, 6))}
    if random.random() < 0.3:
        for index in range(random.choice([1, 1, 2])):
            transitions[f"r{index}"] = _place_agent(random, places, transitions)
    return {"places": places, "transitions": transitions}


def _place_agent(random: Random, places: Shape, transitions: Shape) -> Shape:
    """An agent that runs on the tokens of a place; sometimes it names a transition that takes them then."""
    place = random.choice([name for name, one in places.items() if not one["terminal"] and not one["dead_letter"]])
    takers = [name for name, one in transitions.items() if "refresh" not in one and _takes(one, place)]
    then = random.choice(takers) if takers and random.random() < 0.4 else None
    if then is not None:
        transitions[then]["called"] = True
    interval = random.choice([None, None, 1.0, 4.0])
    return {
        "consume": [(place, 1)],
        "read": [],
        "produce": [(place, 1)],
        "priority": 0,
        "acting": True,
        "manual": False,
        "on_failure": None,
        "above": random.choice([None, None, random.randint(0, 9)]),
        "required": True,
        "attempts": random.randint(1, 2),
        "holds": {},
        "after": None,
        "then": then,
        "refresh": {
            "delay": random.choice([0.0, 0.0, 0.5, 2.0]),
            "interval": interval,
            "most": random.randint(1, 3) if interval is not None else None,
            "missed": random.choice(["skip", "once", "all"]),
        },
    }


def _takes(part: Shape, place: str) -> bool:
    return not part["manual"] and part["after"] is None and any(name == place for name, _ in part["consume"])


def _transition(random: Random, places: Shape, near: str) -> Shape:
    """A transition, more often than not one that takes from `near`, so that the parts of a net hang together."""
    sources = [name for name, place in places.items() if not place["terminal"] and not place["dead_letter"]]
    targets = [name for name in places if name != "dead"]
    consume = random.sample(sources, min(len(sources), random.choice([1, 1, 1, 2])))
    if near in sources and near not in consume:
        consume[0] = near
    rest = [name for name in sources if name not in consume]
    read = random.sample(rest, 1) if rest and random.random() < 0.15 else []
    produce = random.sample(targets, min(len(targets), random.choice([1, 1, 1, 2, 3])))
    acting = random.random() < 0.45
    manual = random.random() < 0.15
    return {
        "consume": [(name, random.choice([1, 1, 1, 1, 2])) for name in consume],
        "read": [(name, 1) for name in read],
        **_looks(random, places, [name for name in rest if name not in read]),
        "produce": [(name, random.choice([1, 1, 1, 2])) for name in produce],
        "priority": random.choice([0, 0, 0, 5, -5]),
        "acting": acting,
        "manual": manual,
        "on_failure": "dead" if random.random() < 0.4 else None,
        "above": random.choice([None, None, None, random.randint(0, 9)]),
        "required": random.random() < 0.7,
        "attempts": random.randint(1, 3),
        "holds": random.choice([{}, {}, {}, {"desk": 1}, {"desk": 2, "press": 1}]),
        "after": random.choice([0.5, 2.0, 6.0]) if not manual and random.random() < 0.15 else None,
        "called": False,
    }


def _looks(random: Random, places: Shape, rest: list[str]) -> Shape:
    """Arcs that look at a place as a whole: that want it empty, take all of it, or empty it."""
    drain = [(random.choice(rest), 1)] if rest and random.random() < 0.12 else []
    free = [name for name in places if name not in dict(drain) and name != "dead"]
    return {
        "drain": drain,
        "inhibit": [(random.choice(free), random.choice([1, 1, 2]))] if random.random() < 0.12 else [],
        "reset": [random.choice(free)] if random.random() < 0.12 else [],
    }


def single(part: Shape) -> bool:
    """Whether exactly one token is consumed."""
    return sum(weight for _, weight in part["consume"]) == 1 and not part.get("drain")


def build(shape: Shape) -> Workflow:
    """The workflow of a shape. Guards read `data.n` of the lowest consumed token through `tokens`."""
    places = [
        Place(
            name,
            capacity=place["capacity"],
            initial=name == "p0",
            terminal=place["terminal"],
            failed=place["failed"],
            dead_letter=place["dead_letter"],
        )
        for name, place in shape["places"].items()
    ]
    transitions = [_build(name, part) for name, part in shape["transitions"].items()]
    actions = {
        name: ActionSpec(
            "test",
            {},
            required=part["required"],
            retry=RetryPolicy(part["attempts"], backoff_seconds=1.0),
            holds=part["holds"],
        )
        for name, part in shape["transitions"].items()
        if part["acting"]
    }
    net = Net.build("simulated", places, transitions)
    return Workflow("simulated", "Simulated", "", {}, {}, "hash", net, actions, {}, {})


def _build(name: str, part: Shape) -> Transition:
    guard = None
    if part["above"] is not None and single(part):
        guard = Guard((Rule.parse({"field_greater_than": {"field": "data.n", "value": part["above"]}}),), ())
    mode = Mode.REFRESH if "refresh" in part else Mode.CONSUME
    return Transition(
        name,
        tuple(InputArc(place, weight, mode) for place, weight in part["consume"])
        + tuple(InputArc(place, weight, Mode.DRAIN) for place, weight in part.get("drain", ()))
        + tuple(InputArc(place, weight, Mode.READ) for place, weight in part["read"])
        + tuple(InputArc(place, weight, Mode.INHIBIT) for place, weight in part.get("inhibit", ()))
        + tuple(InputArc(place, mode=Mode.RESET) for place in part.get("reset", ())),
        tuple(OutputArc(place, weight) for place, weight in part["produce"]),
        guard=guard,
        priority=part["priority"],
        trigger=_trigger(part),
        timing=_timing(name, part),
        then=part.get("then"),
        manual=Manual() if part["manual"] else None,
        acting=part["acting"],
        merge=Merge.LAST,
        output_mapping=OutputMapping.parse({"data.n": {"path": "n", "optional": True}}) if part["acting"] else None,
        on_failure=part["on_failure"],
    )


def _trigger(part: Shape) -> Trigger:
    if part["manual"]:
        return Trigger.MANUAL
    if part.get("called"):
        return Trigger.AGENT
    return Trigger.TIMER if part.get("after") is not None else Trigger.AUTO


def _timing(name: str, part: Shape) -> Timing | None:
    if "refresh" in part:
        rhythm = part["refresh"]
        return Rhythm(name, rhythm["delay"], rhythm["interval"], None, rhythm["most"], Missed(rhythm["missed"]))
    return Timer(part["after"]) if part.get("after") is not None else None
