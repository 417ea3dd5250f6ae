"""Random workflows for the simulation: the same net once for the engine and once, as plain data, for the oracle."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

from circuit.definition.workflow import ActionSpec, RetryPolicy, Workflow
from circuit.expressions.cel import Expression, compile_expression
from circuit.net.guard import Guard, Rule
from circuit.net.mapping import OutputData, OutputMapping
from circuit.net.reception import Reception
from circuit.net.scope import ScopePath
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
    transitions: dict[str, Any] = {}
    for index in range(random.randint(2, 6)):
        part = _transition(random, places, f"p{index}")
        transitions |= _choices(random, places, f"t{index}", part)
        if random.random() < 0.12:
            transitions |= _list(random, places, index)
    if random.random() < 0.3:
        for index in range(random.choice([1, 1, 2])):
            transitions[f"r{index}"] = _place_agent(random, places, transitions)
    return {"places": places, "transitions": transitions}


def _choices(random: Random, places: Shape, name: str, part: Shape) -> Shape:
    """The transition, or now and then one for each of several places that it takes a token of beside."""
    used = {place for kind in ("consume", "drain", "read") for place, _ in part[kind]}
    rest = [one for one in _sources(places) if one not in used]
    if len(rest) < 2 or random.random() > 0.12:
        waits = single(part) and not part["manual"] and part["after"] is None and random.random() < 0.08
        return {name: {**part, "message": waits}}
    chosen = random.sample(rest, 2)
    return {f"{name}@{place}": {**part, "consume": [*part["consume"], (place, 1)], "label": name} for place in chosen}


def _list(random: Random, places: Shape, index: int) -> Shape:
    """A transition that makes a token of each element of a list, and mostly one that takes all of them together."""
    ticket, parts, after = f"ticket{index}", f"parts{index}", random.choice([name for name in places if name != "dead"])
    source = random.choice(_sources(places))
    rest = {"capacity": None, "terminal": False, "failed": False, "dead_letter": False}
    places |= {ticket: rest, parts: rest}
    split = {**_transition(random, places, source), "consume": [(source, 1)], "produce": [(ticket, 1), (parts, 1)]}
    found = {f"l{index}": {**_without_looks(split), "each": 1}}
    if random.random() < 0.8:
        join = {**_transition(random, places, ticket), "consume": [(ticket, 1), (parts, 1)], "produce": [(after, 1)]}
        found[f"j{index}"] = {**_without_looks(join), "gather": f"l{index}", "above": None}
    return found


def _without_looks(part: Shape) -> Shape:
    return {**part, "read": [], "drain": [], "inhibit": [], "reset": [], "where": {}, "keys": [], "newest": []}


def _sources(places: Shape) -> list[str]:
    return [name for name, place in places.items() if not place["terminal"] and not place["dead_letter"]]


def _place_agent(random: Random, places: Shape, transitions: Shape) -> Shape:
    """An agent that runs on the tokens of a place; sometimes it names a transition that takes them then."""
    place = random.choice([name for name, one in places.items() if not one["terminal"] and not one["dead_letter"]])
    plain = [name for name, one in transitions.items() if "refresh" not in one and "label" not in one]
    takers = [name for name in plain if _takes(transitions[name], place)]
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
        "message": False,
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
    if part["manual"] or part["message"]:
        return False
    return part["after"] is None and any(name == place for name, _ in part["consume"])


def _transition(random: Random, places: Shape, near: str) -> Shape:
    """A transition, more often than not one that takes from `near`, so that the parts of a net hang together."""
    sources = _sources(places)
    targets = [name for name in places if name != "dead"]
    consume = random.sample(sources, min(len(sources), random.choice([1, 1, 1, 2])))
    if near in sources and near not in consume:
        consume[0] = near
    rest = [name for name in sources if name not in consume]
    read = random.sample(rest, 1) if rest and random.random() < 0.15 else []
    produce = random.sample(targets, min(len(targets), random.choice([1, 1, 1, 2, 3])))
    acting = random.random() < 0.45
    manual = random.random() < 0.15
    arcs = {
        "consume": [(name, random.choice([1, 1, 1, 1, 2])) for name in consume],
        "read": [(name, 1) for name in read],
        **_looks(random, places, [name for name in rest if name not in read]),
    }
    return {
        **arcs,
        **_choosy(random, arcs),
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
        "message": False,
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


def _choosy(random: Random, arcs: Shape) -> Shape:
    """Arcs that mean only some of the tokens, that agree on a key, or that look at the newest first."""
    every = [(kind, position) for kind, found in arcs.items() for position in range(len(found))]
    others = every[1:]
    return {
        "where": {arc: random.randint(0, 6) for arc in every if random.random() < 0.08},
        "keys": [every[0], *random.sample(others, random.randint(0, len(others)))] if random.random() < 0.12 else [],
        "newest": [arc for arc in every if arc[0] == "consume" and random.random() < 0.06],
    }


def single(part: Shape) -> bool:
    """Whether exactly one token is consumed."""
    return sum(weight for _, weight in part["consume"]) == 1 and not part.get("drain")


ELEMENTS = "[0, 1, 2].filter(i, i < data.n % 4)"
"""The list of which a transition makes tokens: `elements` says the same."""


def elements(data: Shape) -> list[Shape]:
    """The data of the tokens that are made of a token with this data."""
    return [{"n": index, "k": data["k"]} for index in range(data["n"] % 4)]


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
    weights = {"consume": mode, "drain": Mode.DRAIN, "read": Mode.READ, "inhibit": Mode.INHIBIT}
    arcs = [
        _arc(part, kind, position, InputArc(place, weight, of))
        for kind, of in weights.items()
        for position, (place, weight) in enumerate(part.get(kind, ()))
    ]
    arcs += [
        _arc(part, "reset", position, InputArc(place, mode=Mode.RESET))
        for position, place in enumerate(part.get("reset", ()))
    ]
    return Transition(
        name,
        tuple(arcs),
        tuple(
            OutputArc(place, weight, _ELEMENT, _LIST, 3) if position == part.get("each") else OutputArc(place, weight)
            for position, (place, weight) in enumerate(part["produce"])
        ),
        guard=guard,
        priority=part["priority"],
        trigger=_trigger(part),
        timing=_timing(name, part),
        then=part.get("then"),
        manual=Manual() if part["manual"] else None,
        reception=Reception(name, (_KEY,)) if part.get("message") else None,
        acting=part["acting"],
        merge=Merge.LAST,
        output_mapping=OutputMapping.parse({"data.n": {"path": "n", "optional": True}}) if part["acting"] else None,
        on_failure=part["on_failure"],
        label=part.get("label", ""),
    )


_LIST = compile_expression(ELEMENTS, ("data", "metadata", "tokens", "case"))
_ELEMENT = OutputData.parse({"n": "item", "k": "data.k"}, ("data", "metadata", "tokens", "case", "item", "index"))
_KEY = ScopePath.parse("data.k")


@cache
def _over(least: int) -> Expression:
    return compile_expression(f"token.data.n > {least}", ("token",))


def _arc(part: Shape, kind: str, position: int, arc: InputArc) -> InputArc:
    """The arc, with what it says of the tokens that it means."""
    this = (kind, position)
    least = part.get("where", {}).get(this)
    gather = part.get("gather") if kind == "consume" and position == len(part["consume"]) - 1 else None
    return replace(
        arc,
        where=None if least is None else _over(least),
        correlate=_KEY if this in part.get("keys", ()) else None,
        gather=gather,
        newest=this in part.get("newest", ()),
    )


def _trigger(part: Shape) -> Trigger:
    if part["manual"]:
        return Trigger.MANUAL
    if part.get("message"):
        return Trigger.MESSAGE
    if part.get("called"):
        return Trigger.AGENT
    return Trigger.TIMER if part.get("after") is not None else Trigger.AUTO


def _timing(name: str, part: Shape) -> Timing | None:
    if "refresh" in part:
        rhythm = part["refresh"]
        return Rhythm(name, rhythm["delay"], rhythm["interval"], None, rhythm["most"], Missed(rhythm["missed"]))
    return Timer(part["after"]) if part.get("after") is not None else None
