"""What a drawing shows: nodes and edges with what is written on them, the same for workflows and for PNML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from circuit.net.analysis.place_net import PlaceNet
from circuit.net.drawing import SharedPlace
from circuit.net.marking import Marking
from circuit.net.structure import Net, Transition, Trigger


class EdgeKind(StrEnum):
    PLAIN = "plain"
    READ = "read"
    INHIBIT = "inhibit"
    RESET = "reset"
    HOLD = "hold"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Node:
    """A place or a transition. `notes` stand below its name: what acts, a guard. `tokens` is None where no marking is
    shown; `details` come up when one points at it. A `shared` place holds no tokens but an amount of something."""

    name: str
    label: str
    place: bool
    tokens: int | None = None
    capacity: int | None = None
    final: bool = False
    bad: bool = False
    acting: bool = False
    shared: bool = False
    sign: str = ""
    notes: tuple[str, ...] = ()
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Edge:
    """`note` stands beside it: what it asks for, or its weight."""

    source: int
    target: int
    kind: EdgeKind = EdgeKind.PLAIN
    note: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """Nodes and edges; `heat` says how often each transition fired, `trace` which fired in which order."""

    name: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    first: tuple[int, ...] = ()
    heat: Mapping[str, float] = field(default_factory=dict[str, float])
    trace: Sequence[str] = ()


_KINDS = {
    "read": EdgeKind.READ,
    "refresh": EdgeKind.READ,
    "inhibit": EdgeKind.INHIBIT,
    "reset": EdgeKind.RESET,
}
_LONGEST = 26
_SIGNS = {Trigger.MANUAL.value: "✋", "timer": "⏲", "message": "✉"}


def picture_of_net(
    net: Net,
    marking: Marking | None = None,
    notes: Mapping[str, Sequence[str]] | None = None,
    *,
    heat: Mapping[str, float] | None = None,
    trace: Sequence[str] = (),
    shared: Sequence[SharedPlace] = (),
) -> Picture:
    """The picture of a workflow's net. `notes` says of transitions what acts, or what they undo."""
    nodes = [
        Node(
            place.name,
            place.name,
            True,
            tokens=marking.count(place.name) if marking is not None else None,
            capacity=place.capacity,
            final=place.terminal,
            bad=place.dead_letter or place.failed,
            details=(f"at most {place.capacity} tokens",) if place.capacity is not None else (),
        )
        for place in net.places.values()
    ]
    nodes += [
        Node(one.name, one.name, True, shared=True, notes=(one.note,), details=("shared by all cases", one.note))
        for one in shared
    ]
    number = {place.name: index for index, place in enumerate(nodes)}
    edges: list[Edge] = []
    for transition in net.transitions.values():
        here = len(nodes)
        nodes.append(_transition(transition, (notes or {}).get(transition.name, ())))
        edges += [
            Edge(number[one.name], here, EdgeKind.HOLD, _count(one.held[transition.name]))
            for one in shared
            if transition.name in one.held
        ]
        edges += [
            Edge(number[arc.place], here, _KINDS.get(arc.mode.value, EdgeKind.PLAIN), arc.note)
            for arc in transition.inputs
        ]
        edges += [Edge(here, number[arc.place], EdgeKind.PLAIN, arc.note) for arc in transition.outputs]
        if transition.on_failure:
            edges.append(Edge(here, number[transition.on_failure], EdgeKind.FAILURE))
    first = net.initial_place
    return Picture(
        net.name, tuple(nodes), tuple(edges), (number[first.name],) if first else (), dict(heat or {}), tuple(trace)
    )


def picture_of_place_net(
    net: PlaceNet, *, heat: Mapping[str, float] | None = None, trace: Sequence[str] = ()
) -> Picture:
    """The picture of a place/transition net with its initial marking."""
    nodes = [
        Node(
            name,
            net.labels.get(name, name),
            True,
            tokens=net.initial[place],
            capacity=net.capacities[place],
            final=place in net.resting if not net.finals else any(marking[place] for marking in net.finals),
            details=(name,) if name in net.labels else (),
        )
        for place, name in enumerate(net.places)
    ]
    edges: list[Edge] = []
    for step in net.steps:
        here = len(nodes)
        nodes.append(Node(step.name, net.labels.get(step.name, step.name), False, details=(step.name,)))
        edges += [Edge(place, here, EdgeKind.PLAIN, _count(weight)) for place, weight in step.consumes]
        edges += [Edge(here, place, EdgeKind.PLAIN, _count(weight)) for place, weight in step.produces]
        edges += [Edge(place, here, EdgeKind.INHIBIT, _count(weight)) for place, weight in step.inhibitors]
        edges += [Edge(place, here, EdgeKind.RESET) for place in step.resets]
    first = tuple(place for place, tokens in enumerate(net.initial) if tokens)
    return Picture(net.name, tuple(nodes), tuple(edges), first, dict(heat or {}), tuple(trace))


def _count(weight: int) -> str:
    return str(weight) if weight > 1 else ""


def _transition(transition: Transition, said: Sequence[str]) -> Node:
    guards: list[str] = []
    if transition.guard is not None:
        guards += [str(rule) for rule in transition.guard.rules]
        guards += [condition.source for condition in transition.guard.conditions]
    return Node(
        transition.name,
        transition.name,
        False,
        acting=transition.acting,
        sign="⚙" if transition.acting else _SIGNS.get(transition.trigger.value, ""),
        notes=(*(one[:_LONGEST] for one in said), *guards),
        details=tuple(
            [*said]
            + [f"only if {guard}" for guard in guards]
            + [f"cancels {name}" for name in sorted(transition.cancels)]
        ),
    )
