"""From a coloured net to the net that is analysed: guards, data, time, priorities and who fires are left out.

What is left out only ever keeps transitions from firing, so that the analysed net can do all that the workflow can, and
more. The way of failures (`on_failure` and dead-letter places, and what only they lead to) is left out too, and named:
`failures` has the net with it.

So are the records of what was done: how many there are is taken to be arbitrary.

So are the filters and keys of arcs, but for what resets and drains leave lying: where that depends on them, the net
says so (`inexact`). A transition that makes tokens of the elements of a list becomes a step for each length that the
list may have, with a place that remembers it for the one that gathers them; where the list may be long, a few lengths
stand for all (`sampled`).

An action runs between a begin, which reserves tokens and room, and a complete. Mostly that makes no difference, and the
transition is one step. Where a capacity, an inhibit or a reset arc looks at a place of it, the steps are two, with a
hidden place between them, and what such arcs look at is counted beside the free tokens: reserved ones still lie there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from circuit.net.analysis.failures import led_to_by_failures
from circuit.net.analysis.place_net import PlaceNet, Step, arcs
from circuit.net.completion import Count, counts
from circuit.net.structure import Net, Place, Transition


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
    places and `handling` the transitions that are with it, `split` those that became two steps. `inexact` says in words
    what the net does not show exactly; behaviour is then not decided. `sampled` says of which lists only a few lengths
    are looked at: what goes wrong with them goes wrong, and nothing else is decided. `open_end` says why it is not
    known when a case is complete."""

    net: PlaceNet
    failing: tuple[str, ...] = ()
    letters: tuple[str, ...] = ()
    handling: tuple[str, ...] = ()
    split: tuple[str, ...] = ()
    inexact: str = ""
    sampled: str = ""
    open_end: str = ""


COMPLETE = "~complete"
"""The step by which a case is complete when a predicate says so: no name in a file can hold `~`."""


def transition_of(step: str) -> str:
    """The transition that a step of the analysed net belongs to: no name in a file can hold a blank."""
    return step.partition(" (")[0]


def begins(step: str) -> bool:
    """Whether the transition is enabled where the step is: it is not the second half of one."""
    return not step.partition(" (")[2].startswith("complete")


_LONGEST = 4
"""A list that may have more elements is not looked at in each of its lengths."""
_SAMPLE = 3


@dataclass(slots=True)
class _Draft:
    consumes: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    produces: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    inhibitors: dict[int, int] = field(default_factory=dict[int, int])
    resets: set[int] = field(default_factory=set[int])

    def step(self, name: str) -> Step:
        inhibitors, resets = tuple(sorted(self.inhibitors.items())), tuple(sorted(self.resets))
        return Step(name, arcs(self.consumes), arcs(self.produces), inhibitors, resets)

    def copy(self) -> _Draft:
        return _Draft([*self.consumes], [*self.produces], {**self.inhibitors}, {*self.resets})


def translate(
    net: Net,
    tokens: Mapping[str, int],
    shared: Mapping[str, int] | None = None,
    holds: Mapping[str, Mapping[str, int]] | None = None,
) -> Translated:
    """The net to analyse in the stead of `net`, which begins with so many `tokens` in its places. `shared` are the
    capacities of shared places, `holds` what a firing of a transition takes of them while it runs."""
    return _Translation(net, tokens, shared or {}, holds or {}).result()


class _Translation:
    def __init__(
        self,
        net: Net,
        tokens: Mapping[str, int],
        shared: Mapping[str, int],
        holds: Mapping[str, Mapping[str, int]],
    ) -> None:
        self.net, self.tokens, self.holds = net, tokens, holds
        self.letters = {place.name for place in net.places.values() if place.dead_letter}
        records = {place.name for place in net.places.values() if place.record}
        # A refresh moves no token: it is left out, and data is taken to be arbitrary anyway.
        self.used = [
            one
            for one in net.transitions.values()
            if not one.refresh and not any(arc.place in self.letters for arc in one.inputs)
        ]
        self.handling, lost = led_to_by_failures(net, self.used, tokens)
        self.used = [one for one in self.used if one.name not in self.handling]
        self.apart = self.letters | records | lost
        inputs = [(arc.place, EFFECTS[arc.mode.value]) for one in self.used for arc in one.inputs]
        self.barred = {arc.place for one in self.used for arc in one.inhibits if not arc.picky} - records
        self.counted = self._counted()
        self.barred |= {count.place for alternative in self.counted or () for count in alternative}
        self.emptied = {place for place, effect in inputs if effect in (Effect.EMPTY, Effect.DRAIN)}
        self.capacities = {p.name: p.capacity for p in net.places.values() if p.capacity is not None}
        looked_at = self.barred | self.emptied | self.capacities.keys()
        stopped = {name for one in self.used for name in one.cancels}
        self.split = {
            one.name
            for one in self.used
            if one.acting and (one.name in stopped or one.fans_out or not looked_at.isdisjoint(self._places_of(one)))
        }
        halved = {place for one in self.used if one.name in self.split for place in self._places_of(one)}
        self.numbers: dict[str, int] = {}
        self.initial: list[int] = []
        self.limits: list[int | None] = []
        self.resting: set[int] = set()
        self.inexact = self.sampled = ""
        self.lengths = {one.label: self._lengths(one) for one in self.used if one.fans_out}
        self.gathered = self._gathered()
        for place in net.places.values():
            if place.name not in self.apart:
                direct = None if place.name in halved else place.capacity
                self._place(place.name, tokens.get(place.name, 0), direct, rests=self._rests(place))
        for name in [name for name in self.numbers if name in halved]:
            rests = self._rests(net.places[name])
            if name in self.capacities:
                self._place(f"{name} (room)", tokens.get(name, 0), self.capacities[name], rests=rests)
            if name in self.barred:
                self._place(f"{name} (lying)", tokens.get(name, 0), None, rests=rests)
        for name in sorted(self.split):
            self._place(f"{name} (running)", 0, None, rests=False)
        for label in sorted(self.gathered):
            for length in self.lengths.get(label, ()):
                self._place(f"{label} ({length} elements)", 0, None, rests=True)
        taken = {place for name in self.split for place in holds.get(name, ())}
        for name in sorted(taken):
            self._place(f"{name} (free)", shared[name], None, rests=True)
        if self.counted:
            self._place(COMPLETE, 0, None, rests=True)

    def _rests(self, place: Place) -> bool:
        """Whether a case may be over while a token lies there."""
        return place.terminal if self.net.complete_when is None else place.ending

    def _counted(self) -> tuple[tuple[Count, ...], ...] | None:
        """What the predicate asks of the markings, where it only counts tokens of places that are looked at."""
        self.open_end = ""
        if self.net.complete_when is None:
            return None
        found = counts(self.net.complete_when)
        if found is None:
            self.open_end = (
                "when a case is complete depends on complete_when, which asks for more than counts of tokens"
            )
        elif any(count.place in self.apart for alternative in found for count in alternative):
            self.open_end = "complete_when counts tokens of places that only failures lead to"
        return None if self.open_end else found

    def _completing(self) -> list[Step]:
        """A step for each alternative of the predicate, which leaves nothing that could go on."""
        others = tuple(number for name, number in self.numbers.items() if name != COMPLETE)
        steps: list[Step] = []
        for index, alternative in enumerate(self.counted or (), 1):
            looks = [(self._lying(count.place), count.least) for count in alternative if count.least]
            bars = [(self._lying(count.place), count.below) for count in alternative if count.below is not None]
            produces = [(self.numbers[COMPLETE], 1)]
            steps.append(Step(f"{COMPLETE} ({index})", arcs(looks), arcs(produces), arcs(bars), others))
        return steps

    def _lying(self, place: str) -> int:
        return self.numbers.get(f"{place} (lying)", self.numbers[place])

    def _until_complete(self, step: Step) -> Step:
        """A case that is complete does nothing more. It shows where the predicate is one count that must be reached."""
        [count] = self.counted[0] if self.counted and len(self.counted) == len(self.counted[0]) == 1 else [None]
        if count is None or count.below is not None or not count.least:
            return step
        place, least = self._lying(count.place), count.least
        inhibitors = {**dict(step.inhibitors)}
        inhibitors[place] = min(least, inhibitors.get(place, least))
        return replace(step, inhibitors=tuple(sorted(inhibitors.items())))

    def _lengths(self, transition: Transition) -> range:
        """How many elements the list may have: none only where something else is made beside its tokens."""
        least = 0 if any(arc.each is None for arc in transition.makes) else 1
        most = next(arc.most for arc in transition.makes if arc.each is not None)
        if most is None or most > _LONGEST:
            self.sampled = f"of the list of {transition.label}, lengths up to {_SAMPLE} are looked at"
            most = _SAMPLE
        return range(least, most + 1)

    def _gathered(self) -> set[str]:
        """The labels of transitions whose groups are gathered."""
        places: dict[str, set[str]] = {}
        for one in self.used:
            for arc in one.consumes:
                if arc.gather is not None:
                    places.setdefault(arc.gather, set()).add(arc.place)
        for label, found in places.items():
            if len(found) > 1:
                self.inexact = (
                    f"what {label} makes is gathered in {' and '.join(sorted(found))}: which, depends on data"
                )
        return set(places)

    def _places_of(self, transition: Transition) -> set[str]:
        return {arc.place for arc in (*transition.inputs, *transition.outputs)} - self.apart

    def _place(self, name: str, tokens: int, capacity: int | None, *, rests: bool) -> None:
        number = self.numbers[name] = len(self.numbers)
        self.initial.append(tokens)
        # A start beyond the capacity is refused elsewhere; here it must not hide what else there is to say.
        self.limits.append(capacity if capacity is None else max(capacity, tokens))
        if rests:
            self.resting.add(number)

    def result(self) -> Translated:
        ending = {self.numbers[name] for name in self.net.ending if name in self.numbers}
        steps = [self._until_complete(self._ending(step, ending)) for one in self.used for step in self._steps(one)]
        steps += self._completing()
        net = PlaceNet(
            self.net.name,
            tuple(self.numbers),
            tuple(steps),
            tuple(self.initial),
            tuple(self.limits),
            resting=frozenset(self.resting),
        )
        failing = tuple(one.name for one in self.used if one.acting and one.on_failure)
        letters, handling, split = (tuple(sorted(names)) for names in (self.letters, self.handling, self.split))
        return Translated(net, failing, letters, handling, split, self.inexact, self.sampled, self.open_end)

    def _ending(self, step: Step, ending: set[int]) -> Step:
        """Where a token comes into a place that ends the case, nothing is left that could go on."""
        if ending.isdisjoint(place for place, _ in step.produces):
            return step
        return replace(step, resets=tuple(number for number in range(len(self.numbers)) if number not in self.resting))

    def _steps(self, transition: Transition) -> list[Step]:
        taken: dict[str, int] = {}
        begin, whole = _Draft(), transition.name not in self.split
        end = begin if whole else _Draft()
        for arc in transition.inputs:
            if arc.place in self.apart:
                continue
            place = self.numbers[arc.place]
            match EFFECTS[arc.mode.value]:
                case Effect.TAKE if arc.gather is not None:
                    pass
                case Effect.TAKE:
                    begin.consumes.append((place, arc.weight))
                    taken[arc.place] = taken.get(arc.place, 0) + arc.weight
                case Effect.LOOK:
                    begin.consumes.append((place, arc.weight))
                    begin.produces.append((place, arc.weight))
                case Effect.BAR if arc.picky:
                    # As a guard: what it lets through depends on data.
                    pass
                case Effect.BAR:
                    lying = self.numbers.get(f"{arc.place} (lying)", place)
                    begin.inhibitors[lying] = min(arc.weight, begin.inhibitors.get(lying, arc.weight))
                case Effect.EMPTY:
                    if arc.picky:
                        self.inexact = f"which tokens {transition.name} takes out of {arc.place} depends on their data"
                    self._empty(transition, arc.place, end)
                case Effect.DRAIN:
                    begin.consumes.append((place, arc.weight))
                    begin.resets.add(place)
                    if arc.picky:
                        self.inexact = f"which tokens {transition.name} takes out of {arc.place} depends on their data"
                    elif f"{arc.place} (room)" not in self.numbers and not self._holders(arc.place):
                        # All that lies there is free.
                        begin.resets |= {self.numbers[name] for name in self._counters(arc.place) & self.numbers.keys()}
                    elif not self._counters(arc.place).isdisjoint(self.numbers):
                        self.inexact = f"how many tokens {transition.name} takes out of {arc.place} is not counted"
                case Effect.NOTHING:
                    pass
        made: dict[str, int] = {}
        for arc in transition.outputs:
            if arc.place not in self.apart and arc.each is None:
                made[arc.place] = made.get(arc.place, 0) + arc.weight
        for name in sorted(transition.cancels & self.split):
            self._stop(transition, name, end)
        for name, count in made.items():
            end.produces.append((self.numbers[name], count))
        for name in {**taken, **made}:
            self._count(name, made.get(name, 0), taken.get(name, 0), begin, end)
        if whole:
            begun = self._by_length(transition, begin, gathering=True)
            return [
                last.step(_step_name(transition, "", *lengths, *more))
                for *lengths, draft in begun
                for *more, last in self._by_length(transition, draft, gathering=False)
            ]
        running = self.numbers[f"{transition.name} (running)"]
        begin.produces.append((running, 1))
        end.consumes.append((running, 1))
        for place, amount in self.holds.get(transition.name, {}).items():
            begin.consumes.append((self.numbers[f"{place} (free)"], amount))
            end.produces.append((self.numbers[f"{place} (free)"], amount))
        starts = self._by_length(transition, begin, gathering=True)
        ends = self._by_length(transition, end, gathering=False)
        return [
            *(draft.step(_step_name(transition, "begin", *lengths)) for *lengths, draft in starts),
            *(draft.step(_step_name(transition, "complete", *lengths)) for *lengths, draft in ends),
        ]

    def _by_length(self, transition: Transition, draft: _Draft, *, gathering: bool) -> list[tuple[Any, ...]]:
        """The draft for each number of elements that it gathers, or makes tokens of: (length, draft); or (draft,) where
        there is no list."""
        arcs_of = [arc for arc in transition.consumes if arc.gather is not None] if gathering else []
        label = arcs_of[0].gather if arcs_of else transition.label if not gathering and transition.fans_out else None
        if label is None:
            return [(draft,)]
        found: list[tuple[Any, ...]] = []
        for length in self.lengths.get(label, ()):
            own = draft.copy()
            memory = self.numbers.get(f"{label} ({length} elements)")
            changed = own.consumes if gathering else own.produces
            if memory is not None:
                changed.append((memory, 1))
            places = [arc.place for arc in arcs_of]
            places += [] if gathering else [arc.place for arc in transition.outputs if arc.each is not None]
            if length:
                changed += [(self.numbers[place], length) for place in places if place not in self.letters]
            found.append((length, own))
        return found

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
        if f"{name} (lying)" in self.numbers:
            draft.resets.add(self.numbers[f"{name} (lying)"])
        if f"{name} (room)" in self.numbers:
            self.inexact = f"how much room is left in {name} once {transition.name} has emptied it is not counted"
        for one in self.used:
            if one.name in self.split and name in self._held_by(one):
                self._stop(transition, one.name, draft)
                if self._held_by(one) != {name}:
                    self.inexact = (
                        f"{transition.name} resets {name} and so cancels {one.name}, which gives other tokens back;"
                        " the analysed net cannot say how many"
                    )

    def _stop(self, transition: Transition, name: str, draft: _Draft) -> None:
        """The firings of `name` are cancelled, with the tokens that they hold."""
        draft.resets.add(self.numbers[f"{name} (running)"])
        stopped = self.net.transitions[name]
        counted = {counter for place in self._places_of(stopped) for counter in self._counters(place)}
        counted |= {f"{place} (free)" for place in self.holds.get(name, ())}
        kept = {self.numbers[counter] for counter in counted if counter in self.numbers} - draft.resets
        if name != transition.name and kept:
            self.inexact = (
                f"{transition.name} cancels {name}, which gives back what it had reserved; the analysed net cannot say"
                " how much"
            )

    def _holders(self, place: str) -> list[str]:
        """The transitions whose firings hold tokens of the place while they run."""
        return [one.name for one in self.used if one.name in self.split and place in self._held_by(one)]

    @staticmethod
    def _counters(place: str) -> set[str]:
        return {f"{place} (room)", f"{place} (lying)"}

    @staticmethod
    def _held_by(transition: Transition) -> set[str]:
        return {arc.place for arc in transition.consumes}


def _step_name(transition: Transition, half: str, *lengths: int) -> str:
    parts = ([half] if half else []) + [f"{length} element{'' if length == 1 else 's'}" for length in lengths]
    return f"{transition.name} ({', '.join(parts)})" if parts else transition.name


def _nonzero(weights: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(place, weight) for place, weight in weights if weight]
