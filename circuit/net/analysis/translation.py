"""From a coloured net to the net that is analysed: guards, data, time, priorities and who fires are left out.

What is left out only ever keeps transitions from firing, so that the analysed net can do all that the workflow can, and
more. The way of failures (`on_failure` and dead-letter places) is left out too, and named.

An action runs between a begin, which reserves tokens and room, and a complete. Mostly that makes no difference, and the
transition is one step. Where a capacity, an inhibit or a reset arc looks at a place of it, the steps are two, with a
hidden place between them, and what such arcs look at is counted beside the free tokens: reserved ones still lie there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from circuit.net.analysis.place_net import PlaceNet, Step, arcs
from circuit.net.structure import Net, Transition


class Effect(StrEnum):
    """What an input arc does to the number of tokens in its place."""

    TAKE = "take"
    LOOK = "look"
    BAR = "bar"
    EMPTY = "empty"
    DRAIN = "drain"
    NOTHING = "nothing"


EFFECTS: Mapping[str, Effect] = {
    "consume": Effect.TAKE,
    "read": Effect.LOOK,
    "inhibit": Effect.BAR,
    "reset": Effect.EMPTY,
    "drain": Effect.DRAIN,
    # The token stays where it is, and other transitions may take it meanwhile.
    "refresh": Effect.NOTHING,
}
"""Each mode of an input arc. A mode that is missing here is an error, never passed over."""

TRIGGERS = frozenset({"auto", "manual", "timer", "message", "agent"})
"""The triggers that are known to mean: may fire once it is enabled, sooner or later, or never."""


@dataclass(frozen=True, slots=True)
class Translated:
    """The net to analyse. `failing` are the transitions whose way of failure is left out, `letters` the dead-letter
    places that are, `split` the transitions that became two steps. `inexact` says in words what the net does not show
    exactly; behaviour is then not decided."""

    net: PlaceNet
    failing: tuple[str, ...] = ()
    letters: tuple[str, ...] = ()
    split: tuple[str, ...] = ()
    inexact: str = ""


@dataclass(slots=True)
class _Draft:
    consumes: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    produces: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    inhibitors: dict[int, int] = field(default_factory=dict[int, int])
    resets: set[int] = field(default_factory=set[int])

    def step(self, name: str) -> Step:
        inhibitors, resets = tuple(sorted(self.inhibitors.items())), tuple(sorted(self.resets))
        return Step(name, arcs(self.consumes), arcs(self.produces), inhibitors, resets)


def translate(net: Net, tokens: Mapping[str, int]) -> Translated:
    """The net to analyse in the stead of `net`, which begins with so many `tokens` in its places."""
    return _Translation(net, tokens).result()


class _Translation:
    def __init__(self, net: Net, tokens: Mapping[str, int]) -> None:
        self.net, self.tokens = net, tokens
        self.letters = {place.name for place in net.places.values() if place.dead_letter}
        # A refresh moves no token: it is left out, and data is taken to be arbitrary anyway.
        self.used = [
            one
            for one in net.transitions.values()
            if not one.refresh and not any(arc.place in self.letters for arc in one.inputs)
        ]
        inputs = [(arc.place, EFFECTS[arc.mode.value]) for one in self.used for arc in one.inputs]
        self.barred = {place for place, effect in inputs if effect is Effect.BAR}
        self.emptied = {place for place, effect in inputs if effect in (Effect.EMPTY, Effect.DRAIN)}
        self.capacities = {p.name: p.capacity for p in net.places.values() if p.capacity is not None}
        looked_at = self.barred | self.emptied | self.capacities.keys()
        self.split = {one.name for one in self.used if one.acting and not looked_at.isdisjoint(self._places_of(one))}
        halved = {place for one in self.used if one.name in self.split for place in self._places_of(one)}
        self.numbers: dict[str, int] = {}
        self.initial: list[int] = []
        self.limits: list[int | None] = []
        self.resting: set[int] = set()
        self.inexact = ""
        for place in net.places.values():
            if place.name not in self.letters:
                direct = None if place.name in halved else place.capacity
                self._place(place.name, tokens.get(place.name, 0), direct, rests=place.terminal)
        for name in [name for name in self.numbers if name in halved]:
            rests = net.places[name].terminal
            if name in self.capacities:
                self._place(f"{name} (room)", tokens.get(name, 0), self.capacities[name], rests=rests)
            if name in self.barred:
                self._place(f"{name} (lying)", tokens.get(name, 0), None, rests=rests)
        for name in sorted(self.split):
            self._place(f"{name} (running)", 0, None, rests=False)

    def _places_of(self, transition: Transition) -> set[str]:
        return {arc.place for arc in (*transition.inputs, *transition.outputs)} - self.letters

    def _place(self, name: str, tokens: int, capacity: int | None, *, rests: bool) -> None:
        number = self.numbers[name] = len(self.numbers)
        self.initial.append(tokens)
        # A start beyond the capacity is refused elsewhere; here it must not hide what else there is to say.
        self.limits.append(capacity if capacity is None else max(capacity, tokens))
        if rests:
            self.resting.add(number)

    def result(self) -> Translated:
        steps = [step for one in self.used for step in self._steps(one)]
        net = PlaceNet(
            self.net.name,
            tuple(self.numbers),
            tuple(steps),
            tuple(self.initial),
            tuple(self.limits),
            resting=frozenset(self.resting),
        )
        failing = tuple(one.name for one in self.used if one.acting and one.on_failure)
        return Translated(net, failing, tuple(sorted(self.letters)), tuple(sorted(self.split)), self.inexact)

    def _steps(self, transition: Transition) -> list[Step]:
        taken: dict[str, int] = {}
        begin, whole = _Draft(), transition.name not in self.split
        for arc in transition.inputs:
            place = self.numbers[arc.place]
            match EFFECTS[arc.mode.value]:
                case Effect.TAKE:
                    begin.consumes.append((place, arc.weight))
                    taken[arc.place] = taken.get(arc.place, 0) + arc.weight
                case Effect.LOOK:
                    begin.consumes.append((place, arc.weight))
                    begin.produces.append((place, arc.weight))
                case Effect.BAR:
                    lying = self.numbers.get(f"{arc.place} (lying)", place)
                    begin.inhibitors[lying] = min(arc.weight, begin.inhibitors.get(lying, arc.weight))
                case Effect.EMPTY:
                    self._empty(transition, arc.place, begin)
                case Effect.DRAIN:
                    begin.consumes.append((place, 1))
                    self._empty(transition, arc.place, begin)
                case Effect.NOTHING:
                    pass
        made: dict[str, int] = {}
        for arc in transition.outputs:
            if arc.place not in self.letters:
                made[arc.place] = made.get(arc.place, 0) + arc.weight
        end = begin if whole else _Draft()
        for name, count in made.items():
            end.produces.append((self.numbers[name], count))
        for name in {**taken, **made}:
            self._count(name, made.get(name, 0), taken.get(name, 0), begin, end)
        if whole:
            return [begin.step(transition.name)]
        running = self.numbers[f"{transition.name} (running)"]
        begin.produces.append((running, 1))
        end.consumes.append((running, 1))
        return [begin.step(f"{transition.name} (begin)"), end.step(f"{transition.name} (complete)")]

    def _count(self, name: str, made: int, taken: int, begin: _Draft, end: _Draft) -> None:
        """Keep what lies in a place, and what room is reserved there, counted beside its free tokens."""
        room, lying = self.numbers.get(f"{name} (room)"), self.numbers.get(f"{name} (lying)")
        extra = made - taken
        if room is not None:
            if extra > 0:
                begin.produces.append((room, extra))
            elif extra < 0:
                end.consumes.append((room, -extra))
        if lying is not None:
            end.consumes.append((lying, taken))
            end.produces.append((lying, made))
            end.consumes, end.produces = _nonzero(end.consumes), _nonzero(end.produces)

    def _empty(self, transition: Transition, name: str, draft: _Draft) -> None:
        """A reset takes reserved tokens too, and the firings that hold them are cancelled."""
        draft.resets.add(self.numbers[name])
        for counter in (f"{name} (room)", f"{name} (lying)"):
            if counter in self.numbers:
                draft.resets.add(self.numbers[counter])
        for one in self.used:
            holds = [arc.place for arc in one.inputs if EFFECTS[arc.mode.value] in (Effect.TAKE, Effect.DRAIN)]
            if one.name in self.split and name in holds:
                draft.resets.add(self.numbers[f"{one.name} (running)"])
                counted = any(f"{arc.place} (room)" in self.numbers for arc in one.outputs)
                if set(holds) != {name} or counted:
                    self.inexact = (
                        f"{transition.name} resets {name} and so cancels {one.name}, which gives other tokens or"
                        " reserved room back; the analysed net cannot say how much"
                    )


def _nonzero(weights: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(place, weight) for place, weight in weights if weight]
