"""What undoes steps, in terms of the net: transitions with `compensation`, and those that have them undone.

Each completed firing of a step with a compensation leaves a record in `~done`: a token that says which step it was,
what it consumed and what it produced. A transition that `compensates` does what it does and makes a token in
`NAME~undoing`; what it produces waits in hidden places meanwhile. While that token lies there, `NAME~next` takes the
newest record to `~undo`, and `STEP~undo` undoes it, one at a time. When no record is left, `NAME~last` takes the token,
and what waited goes where it belongs. So undoing is firings like all others: durable, in order, each once, seen and
analysed.

No name in a file can hold `~`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

ALL = "all"
"""What a transition compensates that names no steps."""

_DONE = "~done"
_UNDO = "~undo"


def expand(plain: Mapping[str, Any]) -> Mapping[str, Any]:
    """The canonical document with places and transitions in the stead of `compensation` and `compensates`."""
    steps: dict[str, Any] = {
        name: one["compensation"] for name, one in plain["transitions"].items() if "compensation" in one
    }
    if not steps:
        return plain
    places: dict[str, Any] = {**plain["places"], _DONE: {"record": True}, _UNDO: {}}
    transitions: dict[str, Any] = {}
    for name, one in plain["transitions"].items():
        own = {key: value for key, value in one.items() if key not in ("compensation", "compensates")}
        if name in steps:
            own["to_places"] = [*one["to_places"], {"place": _DONE, "weight": 1, "record": True}]
        if "compensates" in one:
            hidden = {arc["place"]: f"{name}~to~{arc['place']}" for arc in one["to_places"]}
            places |= {at: _like(plain["places"].get(place) or {}) for place, at in hidden.items()}
            places[_gate(name)] = {}
            gate = {"place": _gate(name), "weight": 1, "data": {}}
            own |= {"to_places": [*({**arc, "place": hidden[arc["place"]]} for arc in one["to_places"]), gate]}
            own["hidden"] = hidden
            transitions |= dict(_undoing(name, one["compensates"], hidden))
        transitions[name] = own
    for name, what in steps.items():
        arc = {"place": _UNDO, "weight": 1, "mode": "consume", "where": f"token.metadata.undoes == {json.dumps(name)}"}
        transitions[undo_of(name)] = {"from_places": [arc], "to_places": [], "undoes": name, **what}
    return {**plain, "places": places, "transitions": transitions}


def hidden(name: str) -> bool:
    """Whether a place or a transition was made to undo things, and holds more than records."""
    return "~" in name and name != _DONE


def unexpanded(plain: Mapping[str, Any]) -> Mapping[str, Any]:
    """The canonical document as if nothing in it could be undone."""
    words = ("compensation", "compensates")
    transitions = {
        name: {key: value for key, value in one.items() if key not in words}
        for name, one in plain["transitions"].items()
    }
    return {**plain, "transitions": transitions}


def undo_of(step: str) -> str:
    """The transition that undoes a firing of `step`."""
    return f"{step}~undo"


def _gate(name: str) -> str:
    return f"{name}~undoing"


def _like(place: Mapping[str, Any]) -> dict[str, Any]:
    return {"colour": place["colour"]} if "colour" in place else {}


def _undoing(name: str, which: str | list[str], hidden: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """The transitions that see to it that steps are undone once `name` has fired."""
    gate = _gate(name)
    where = {} if which == ALL else {"where": f"token.metadata.undoes in {json.dumps(which)}"}
    idle = {"place": _UNDO, "weight": 1, "mode": "inhibit"}
    yield (
        f"{name}~next",
        {
            "from_places": [
                {"place": _DONE, "weight": 1, "mode": "consume", "order": "newest", **where},
                {"place": gate, "weight": 1, "mode": "read"},
                idle,
            ],
            "to_places": [{"place": _UNDO, "weight": 1}],
        },
    )
    none_left = {"place": _DONE, "weight": 1, "mode": "inhibit", **where}
    yield f"{name}~last", {"from_places": [_taken(gate), none_left, idle], "to_places": []}
    for place, at in hidden.items():
        still = {"place": gate, "weight": 1, "mode": "inhibit"}
        yield (
            f"{name}~to~{place}",
            {"from_places": [_taken(at), still], "to_places": [{"place": place, "weight": 1}]},
        )


def _taken(place: str) -> dict[str, Any]:
    return {"place": place, "weight": 1, "mode": "consume"}
