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
    from circuit.expressions.cel import Expression
    from circuit.net.colour import Colour
    from circuit.net.guard import Guard
    from circuit.net.mapping import InputMapping, OutputData, OutputMapping
    from circuit.net.reception import Reception
    from circuit.net.scope import ScopePath
    from circuit.net.timing import Timing


def _derived() -> Any:
    """A field that the constructor does not take: it is computed once from the others."""
    return field(init=False, repr=False, compare=False)


def _derive(instance: object, name: str, value: object) -> None:
    object.__setattr__(instance, name, value)


class Mode(StrEnum):
    """What an input arc does: it takes tokens; looks at some; wants fewer than its weight to lie there; takes all that
    are available, its weight at least; empties the place when the transition fires; or patches a token in its place."""

    CONSUME = "consume"
    READ = "read"
    INHIBIT = "inhibit"
    DRAIN = "drain"
    RESET = "reset"
    REFRESH = "refresh"


BINDING = frozenset({Mode.CONSUME, Mode.READ, Mode.DRAIN, Mode.REFRESH})
"""The modes of arcs that bind tokens. The others look at a place as a whole."""


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
    """Holds tokens of one colour. `capacity` counts tokens that lie there and room that is reserved. The tokens of a
    `record` tell what was done."""

    name: str
    colour: Colour | None = None
    capacity: int | None = None
    initial: bool = False
    terminal: bool = False
    failed: bool = False
    dead_letter: bool = False
    ends_case: bool = False
    record: bool = False
    roles: frozenset[str] = frozenset()
    """Of people who may do something with tokens here; none is named: everybody may."""

    @property
    def resting(self) -> bool:
        """Whether a case may be complete while a token lies here: that of a record goes nowhere by itself."""
        return self.terminal or self.record

    @property
    def ending(self) -> bool:
        """Whether a case ends as soon as a token lies here."""
        return self.failed or self.ends_case


@dataclass(frozen=True, slots=True)
class InputArc:
    """`where` says which tokens of the place it means; `correlate` is the path of a key on which all arcs of the
    transition that have one agree; `gather` names the transition of which it takes one token for each element;
    `newest` has it look at the highest token numbers first."""

    place: str
    weight: int = 1
    mode: Mode = Mode.CONSUME
    where: Expression | None = None
    correlate: ScopePath | None = None
    gather: str | None = None
    newest: bool = False

    @property
    def choosy(self) -> bool:
        """Whether it does not take the next token, whichever that is."""
        return self.picky or self.newest

    @property
    def picky(self) -> bool:
        """Whether it does not take any token as well as any other."""
        return self.where is not None or self.correlate is not None or self.gather is not None

    @property
    def several(self) -> bool:
        """Whether how many tokens it takes shows only when it takes them."""
        return self.mode is Mode.DRAIN or self.gather is not None

    @property
    def note(self) -> str:
        """What stands on it in a drawing: how many tokens, and which of them, where that is not plain."""
        parts = ["all"] if self.mode is Mode.DRAIN else []
        parts += ["newest"] if self.newest else []
        parts += [str(self.weight)] if self.weight > 1 else []
        parts += [f"gather {self.gather}"] if self.gather is not None else []
        parts += [f"where {self.where.source}"] if self.where is not None else []
        parts += [f"by {self.correlate}"] if self.correlate is not None else []
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class OutputArc:
    """`data`, where given, computes the data of the produced token; else the inputs' data is merged. With `each`, a
    token is produced for each element of the list that it gives, `most` of them at most. A `record` gets a token that
    tells what the firing consumed and produced."""

    place: str
    weight: int = 1
    data: OutputData | None = None
    each: Expression | None = None
    most: int | None = None
    record: bool = False

    @property
    def note(self) -> str:
        """What stands on it in a drawing."""
        if self.each is not None:
            return f"each of {self.each.source}"
        return str(self.weight) if self.weight > 1 else ""


@dataclass(frozen=True, slots=True)
class Manual:
    """What a manual transition asks of the person who fires it."""

    form: Colour | None = None
    roles: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Transition:
    """`acting` transitions perform an action between begin and complete; the others are immediate and pure. `timing`
    says when bound tokens may be taken, `then` what a refresh fires with its token when it is done.

    `cancels` are the transitions of which the firings are cancelled when it fires, with the tokens that they hold.
    `label` is what it is called by authors: of `from_any`, each choice is a transition of its own with the same label.
    `undoes` names the transition of which it undoes firings.

    Derived: `makes` are the outputs but for the record of what it did, which goes to the place `record`;
    `keeps_identity` says whether the one token that goes in is the one that comes out; `produced` is how many tokens
    come out beside the record; `refresh` says that its one token is neither reserved nor moved, and is patched where it
    lies if it still lies there unchanged; `demand` is how many free tokens the arcs ask of each place in all, since no
    token is bound by two arcs; `single` is the place of the only arc, where one token of any kind is all that is asked;
    `simple` says that any tokens will do, as many as the weights say, each place asked by one arc; `lists` are the
    places whose tokens expressions see as a list, however many there are; `clears` says that firing it takes tokens
    that it does not bind; `fans_out` that how many tokens come out shows only then.
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
    cancels: frozenset[str] = frozenset()
    label: str = ""
    undoes: str = ""
    makes: tuple[OutputArc, ...] = _derived()
    record: str | None = _derived()
    consumes: tuple[InputArc, ...] = _derived()
    reads: tuple[InputArc, ...] = _derived()
    inhibits: tuple[InputArc, ...] = _derived()
    resets: tuple[InputArc, ...] = _derived()
    refresh: bool = _derived()
    keeps_identity: bool = _derived()
    produced: int = _derived()
    demand: tuple[tuple[str, int], ...] = _derived()
    single: str | None = _derived()
    simple: bool = _derived()
    lists: frozenset[str] = _derived()
    clears: bool = _derived()
    fans_out: bool = _derived()

    def __post_init__(self) -> None:
        modes = {mode: tuple(arc for arc in self.inputs if arc.mode is mode) for mode in Mode}
        binding = [arc for arc in self.inputs if arc.mode in BINDING]
        taking = [arc for arc in binding if arc.mode is not Mode.READ]
        # Who gathers comes last: the others tell it of which group, where one of them belongs to it.
        consumes = tuple(sorted(taking, key=lambda arc: arc.gather is not None))
        consumed = sum(arc.weight for arc in consumes)
        demand: dict[str, int] = {}
        for arc in binding:
            # Of a group that was made of an empty list, there is none to take.
            demand[arc.place] = demand.get(arc.place, 0) + (arc.weight if arc.gather is None else 0)
        several = frozenset(arc.place for arc in binding if arc.several)
        makes = tuple(arc for arc in self.outputs if not arc.record)
        fans_out = any(arc.each is not None for arc in makes)
        produced = sum(arc.weight for arc in makes)
        choosy = any(arc.choosy or arc.several for arc in binding)
        plain = consumed == 1 and len(self.inputs) == 1 and self.guard is None and self.timing is None and not choosy
        _derive(self, "makes", makes)
        _derive(self, "record", next((arc.place for arc in self.outputs if arc.record), None))
        _derive(self, "consumes", consumes)
        _derive(self, "reads", modes[Mode.READ])
        _derive(self, "inhibits", modes[Mode.INHIBIT])
        _derive(self, "resets", modes[Mode.RESET])
        _derive(self, "label", self.label or self.name)
        _derive(self, "simple", not choosy and len({arc.place for arc in consumes}) == len(consumes))
        _derive(self, "lists", several)
        _derive(self, "clears", bool(modes[Mode.RESET] or self.cancels))
        _derive(self, "fans_out", fans_out)
        _derive(self, "refresh", bool(modes[Mode.REFRESH]))
        _derive(self, "keeps_identity", consumed == 1 and produced == 1 and not several and not fans_out)
        _derive(self, "produced", produced)
        _derive(self, "demand", tuple(demand.items()))
        _derive(self, "single", self.inputs[0].place if plain else None)


class Room(NamedTuple):
    """What a transition asks of a place with a capacity: room for `extra` tokens more than it takes from there, or for
    so many where it empties the place before."""

    place: str
    extra: int
    capacity: int
    emptied: bool = False


@dataclass(frozen=True, slots=True)
class Net:
    """A net whose names are known to be good: the compiler checks them before it builds one. `complete_when` says when
    a case is complete, where that is not when all tokens lie in terminal places.

    Derived: `rooms` says what room each transition must find and reserve; `ranks` puts the automatic transitions in
    order of choice (immediate before acting, then by priority; equals share a rank); `affects` names, for each
    transition, the automatic ones that a firing of it may enable or disable by the tokens that it moves or reserves;
    `counting` are those whose guard reads `case`, and so may change its mind without any token moving; `ending` are
    the places in which a case ends at once; `interrupting` are the timers that take what a firing holds, `receiving`
    the transitions that messages fire, in the order in which they get one; `labels` names those of each label.
    """

    name: str
    places: Mapping[str, Place]
    transitions: Mapping[str, Transition]
    touching: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    complete_when: Expression | None = None
    rooms: Mapping[str, tuple[Room, ...]] = _derived()
    ranks: Mapping[str, int] = _derived()
    affects: Mapping[str, tuple[str, ...]] = _derived()
    counting: frozenset[str] = _derived()
    ending: tuple[str, ...] = _derived()
    interrupting: tuple[str, ...] = _derived()
    receiving: tuple[str, ...] = _derived()
    labels: Mapping[str, tuple[str, ...]] = _derived()

    def __post_init__(self) -> None:
        interrupting = [one.name for one in self.transitions.values() if getattr(one.timing, "interrupt", False)]
        _derive(self, "interrupting", tuple(interrupting))
        receiving = [one for one in self.transitions.values() if one.reception is not None]
        receiving.sort(key=lambda one: (-one.priority, one.name))
        _derive(self, "receiving", tuple(one.name for one in receiving))
        labels: dict[str, tuple[str, ...]] = {}
        for one in self.transitions.values():
            labels[one.label] = (*labels.get(one.label, ()), one.name)
        _derive(self, "labels", labels)
        _derive(self, "rooms", {name: self._rooms_of(one) for name, one in self.transitions.items()})
        automatic = [one for one in self.transitions.values() if one.trigger in (Trigger.AUTO, Trigger.TIMER)]
        order = sorted({(one.acting, -one.priority) for one in automatic})
        _derive(self, "ranks", {one.name: order.index((one.acting, -one.priority)) for one in automatic})
        _derive(self, "affects", {name: self._affected_by(one) for name, one in self.transitions.items()})
        counting = [one.name for one in automatic if one.guard is not None and "case" in one.guard.needs]
        _derive(self, "counting", frozenset(counting))
        # Where tokens come into several at once, failing outweighs the rest.
        ending = sorted((not place.failed, place.name) for place in self.places.values() if place.ending)
        _derive(self, "ending", tuple(name for _, name in ending))

    @classmethod
    def build(
        cls,
        name: str,
        places: Sequence[Place],
        transitions: Sequence[Transition],
        complete_when: Expression | None = None,
    ) -> Net:
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
            complete_when,
        )

    @property
    def initial_place(self) -> Place | None:
        """Where a new case puts its token, if the net says so."""
        return next((place for place in self.places.values() if place.initial), None)

    def named(self, name: str) -> tuple[Transition, ...]:
        """The transition of this name, or all that have it for a label; none where there is none."""
        return tuple(self.transitions[one] for one in self.labels.get(name, (name,)) if one in self.transitions)

    def _affected_by(self, transition: Transition) -> tuple[str, ...]:
        changed = [arc.place for arc in (*transition.consumes, *transition.resets, *transition.outputs)]
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
            # How many tokens a group has is not known here; no room is saved for less than it needs.
            taken[arc.place] = taken.get(arc.place, 0) + (arc.weight if arc.gather is None else 0)
        produced: dict[str, int] = {}
        for arc in transition.outputs:
            count = arc.weight if arc.each is None else arc.most or 0
            produced[arc.place] = produced.get(arc.place, 0) + count
        failure = transition.on_failure if transition.acting else None
        if failure is not None:
            # A firing ends in its targets or in `on_failure`, never in both, so the larger of the two is enough.
            produced[failure] = max(produced.get(failure, 0), sum(taken.values()))
        cleared = {arc.place for arc in transition.resets if not arc.picky}
        rooms: list[Room] = []
        for name, count in produced.items():
            emptied = name in cleared
            capacity, extra = self.places[name].capacity, count - (0 if emptied else taken.get(name, 0))
            if capacity is not None and extra > 0:
                rooms.append(Room(name, extra, capacity, emptied))
        return tuple(rooms)
