"""The structure of a coloured Petri net: places, transitions and the arcs between them.

A `Net` is immutable and knows, for each place, which transitions look at it, so that after a firing only those
need another look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from circuit.net.colour import Colour
    from circuit.net.guard import Guard
    from circuit.net.mapping import InputMapping, OutputData, OutputMapping
    from circuit.net.reception import Reception
    from circuit.net.timing import Timing


def _derived() -> Any:
    """A field that the constructor does not take: it is computed once from the others."""
    return field(init=False, repr=False, compare=False)


def _derive(instance: object, name: str, value: object) -> None:
    object.__setattr__(instance, name, value)


class Mode(StrEnum):
    """What an input arc does with the tokens that it binds."""

    CONSUME = "consume"
    READ = "read"
    REFRESH = "refresh"


class Trigger(StrEnum):
    """Who fires a transition: nobody but itself, a person, a message, time, or an agent that is done with a token of a
    place."""

    AUTO = "auto"
    MANUAL = "manual"
    MESSAGE = "message"
    TIMER = "timer"
    AGENT = "agent"


class Merge(StrEnum):
    """What a join does where its inputs give different values to one key: refuse to fire; let the last arc win; merge
    objects key by key, the last arc winning below; or list all the values of that key, in the order of the arcs.

    Equal values never conflict, so that a key which all inputs agree on is not made a list.
    """

    REFUSE = "refuse"
    LAST = "last"
    DEEP = "deep"
    LIST = "list"


@dataclass(frozen=True, slots=True)
class Place:
    """Holds tokens of one colour. `capacity` counts tokens that lie there and room that is reserved."""

    name: str
    colour: Colour | None = None
    capacity: int | None = None
    initial: bool = False
    terminal: bool = False
    failed: bool = False
    dead_letter: bool = False


@dataclass(frozen=True, slots=True)
class InputArc:
    place: str
    weight: int = 1
    mode: Mode = Mode.CONSUME


@dataclass(frozen=True, slots=True)
class OutputArc:
    """`data`, where given, computes the data of the produced token; else the inputs' data is merged."""

    place: str
    weight: int = 1
    data: OutputData | None = None


@dataclass(frozen=True, slots=True)
class Manual:
    """What a manual transition asks of the person who fires it."""

    form: Colour | None = None
    roles: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Transition:
    """`acting` transitions perform an action between begin and complete; the others are immediate and pure. `timing`
    says when bound tokens may be taken, `then` what a refresh fires with its token when it is done.

    Derived: `keeps_identity` says whether the one token that goes in is the one that comes out; `produced` is how many
    tokens come out; `refresh` says that its one token is neither reserved nor moved, and is patched where it lies if it
    still lies there unchanged; `demand` is how many free tokens the arcs ask of each place in all, since no token is
    bound by two arcs; `single` is the place of the only arc, where one token of any kind is all that is asked.
    """

    name: str
    inputs: tuple[InputArc, ...]
    outputs: tuple[OutputArc, ...]
    guard: Guard | None = None
    priority: int = 0
    trigger: Trigger = Trigger.AUTO
    manual: Manual | None = None
    reception: Reception | None = None
    acting: bool = False
    timing: Timing | None = None
    then: str | None = None
    merge: Merge = Merge.REFUSE
    input_mapping: InputMapping | None = None
    output_mapping: OutputMapping | None = None
    on_failure: str | None = None
    consumes: tuple[InputArc, ...] = _derived()
    reads: tuple[InputArc, ...] = _derived()
    refresh: bool = _derived()
    keeps_identity: bool = _derived()
    produced: int = _derived()
    demand: tuple[tuple[str, int], ...] = _derived()
    single: str | None = _derived()

    def __post_init__(self) -> None:
        consumes = tuple(arc for arc in self.inputs if arc.mode is not Mode.READ)
        consumed = sum(arc.weight for arc in consumes)
        demand: dict[str, int] = {}
        for arc in self.inputs:
            demand[arc.place] = demand.get(arc.place, 0) + arc.weight
        _derive(self, "consumes", consumes)
        _derive(self, "reads", tuple(arc for arc in self.inputs if arc.mode is Mode.READ))
        produced = sum(arc.weight for arc in self.outputs)
        plain = consumed == 1 and len(self.inputs) == 1 and self.guard is None and self.timing is None
        _derive(self, "refresh", any(arc.mode is Mode.REFRESH for arc in self.inputs))
        _derive(self, "keeps_identity", consumed == 1 and produced == 1)
        _derive(self, "produced", produced)
        _derive(self, "demand", tuple(demand.items()))
        _derive(self, "single", self.inputs[0].place if plain else None)


class Room(NamedTuple):
    """What a transition asks of a place with a capacity: room for `extra` tokens more than it takes from there."""

    place: str
    extra: int
    capacity: int


@dataclass(frozen=True, slots=True)
class Net:
    """A net whose names are known to be good: the compiler checks them before it builds one.

    Derived: `rooms` says what room each transition must find and reserve; `ranks` puts the automatic transitions in
    order of choice (immediate before acting, then by priority; equals share a rank); `affects` names, for each
    transition, the automatic ones that a firing of it may enable or disable by the tokens that it moves or reserves;
    `counting` are those whose guard reads `case`, and so may change its mind without any token moving; `failing` are
    the places in which a case fails; `interrupting` are the timers that take what a firing holds, `receiving` the
    transitions that messages fire, in the order in which they get one.
    """

    name: str
    places: Mapping[str, Place]
    transitions: Mapping[str, Transition]
    touching: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    rooms: Mapping[str, tuple[Room, ...]] = _derived()
    ranks: Mapping[str, int] = _derived()
    affects: Mapping[str, tuple[str, ...]] = _derived()
    counting: frozenset[str] = _derived()
    failing: tuple[str, ...] = _derived()
    interrupting: tuple[str, ...] = _derived()
    receiving: tuple[str, ...] = _derived()

    def __post_init__(self) -> None:
        interrupting = [one.name for one in self.transitions.values() if getattr(one.timing, "interrupt", False)]
        _derive(self, "interrupting", tuple(interrupting))
        receiving = [one for one in self.transitions.values() if one.reception is not None]
        receiving.sort(key=lambda one: (-one.priority, one.name))
        _derive(self, "receiving", tuple(one.name for one in receiving))
        _derive(self, "rooms", {name: self._rooms_of(one) for name, one in self.transitions.items()})
        automatic = [one for one in self.transitions.values() if one.trigger in (Trigger.AUTO, Trigger.TIMER)]
        order = sorted({(one.acting, -one.priority) for one in automatic})
        _derive(self, "ranks", {one.name: order.index((one.acting, -one.priority)) for one in automatic})
        _derive(self, "affects", {name: self._affected_by(one) for name, one in self.transitions.items()})
        counting = [one.name for one in automatic if one.guard is not None and "case" in one.guard.needs]
        _derive(self, "counting", frozenset(counting))
        _derive(self, "failing", tuple(sorted(place.name for place in self.places.values() if place.failed)))

    @classmethod
    def build(cls, name: str, places: Sequence[Place], transitions: Sequence[Transition]) -> Net:
        """A net of these parts, with the transitions that each place touches worked out."""
        touching: dict[str, list[str]] = {place.name: [] for place in places}
        for transition in transitions:
            names = [arc.place for arc in transition.inputs] + [arc.place for arc in transition.outputs]
            if transition.on_failure:
                names.append(transition.on_failure)
            for place in dict.fromkeys(names):
                touching[place].append(transition.name)
        return cls(
            name,
            {place.name: place for place in places},
            {transition.name: transition for transition in transitions},
            {place: tuple(names) for place, names in touching.items()},
        )

    @property
    def initial_place(self) -> Place | None:
        """Where a new case puts its token, if the net says so."""
        return next((place for place in self.places.values() if place.initial), None)

    def _affected_by(self, transition: Transition) -> tuple[str, ...]:
        changed = [arc.place for arc in transition.consumes] + [arc.place for arc in transition.outputs]
        if transition.on_failure is not None:
            changed.append(transition.on_failure)
        looking = [transition.name]
        for place in changed:
            # Who only produces into a place looks at it for room, and there is room where there is no capacity.
            roomy = self.places[place].capacity is None
            looking += [
                name
                for name in self.touching.get(place, ())
                if not roomy or any(arc.place == place for arc in self.transitions[name].inputs)
            ]
        return tuple(name for name in dict.fromkeys(looking) if name in self.ranks)

    def _rooms_of(self, transition: Transition) -> tuple[Room, ...]:
        taken: dict[str, int] = {}
        for arc in transition.consumes:
            taken[arc.place] = taken.get(arc.place, 0) + arc.weight
        produced: dict[str, int] = {}
        for arc in transition.outputs:
            produced[arc.place] = produced.get(arc.place, 0) + arc.weight
        failure = transition.on_failure if transition.acting else None
        if failure is not None:
            # A firing ends in its targets or in `on_failure`, never in both, so the larger of the two is enough.
            produced[failure] = max(produced.get(failure, 0), sum(taken.values()))
        rooms: list[Room] = []
        for name, count in produced.items():
            capacity, extra = self.places[name].capacity, count - taken.get(name, 0)
            if capacity is not None and extra > 0:
                rooms.append(Room(name, extra, capacity))
        return tuple(rooms)
