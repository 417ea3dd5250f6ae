"""Makes a net smaller without changing whether it is sound, so that few of its markings have to be looked at.

The rules are those of Berthelot and Murata, with their conditions for nets that also have inhibitor and reset arcs and
capacities: a place that is tested, emptied or limited, or that holds tokens at the end, is left as it is. Each reduced
transition stands for a run of the original net, and each reduced marking is one of the original net's, so that every
trace can be lifted back and be tried there.

What is kept: whether the net is bounded, whether a final marking can be reached from each reachable one, and whether a
transition is dead. Whether a marking without enabled transitions is reached is not kept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from circuit.net.analysis.place_net import Arcs, PlaceNet, Step

Run = int | tuple["Run", "Run"]
"""A transition of the original net, or two runs one after the other."""

_MOST_AT_START = 64
_GROWTH = 2
"""By so many transitions may a place that is removed make the net larger."""


@dataclass(slots=True)
class _Part:
    """A transition of the net that is being reduced."""

    consumes: dict[int, int]
    produces: dict[int, int]
    inhibitors: Arcs
    resets: tuple[int, ...]
    run: Run


@dataclass(slots=True)
class Reduced:
    """The smaller `net`. `start` is what fires first in any case; `runs` are what its transitions stand for.

    `stranded` are runs of which no transition can ever fire, since a place that they need never holds enough: then the
    net is not sound, and the rest was not reduced.
    """

    net: PlaceNet
    start: tuple[Run, ...]
    runs: tuple[Run, ...]
    stranded: tuple[Run, ...] = ()

    def lift(self, trace: Iterable[int]) -> tuple[int, ...]:
        """The run of the original net that a run of the reduced one stands for."""
        found = [number for run in self.start for number in flat(run)]
        for number in trace:
            found.extend(flat(self.runs[number]))
        return tuple(found)

    def lift_part(self, trace: Iterable[int]) -> tuple[int, ...]:
        """The same for a part of a run, which does not begin at the start."""
        return tuple(number for one in trace for number in flat(self.runs[one]))


def flat(run: Run) -> Iterator[int]:
    """The transitions of a run, in order."""
    pending: list[Run] = [run]
    while pending:
        one = pending.pop()
        if isinstance(one, int):
            yield one
        else:
            pending.extend((one[1], one[0]))


def reduce_net(net: PlaceNet, keep: Collection[int] = ()) -> Reduced:
    """The net made as small as the rules make it. The transitions in `keep` stay as they are, each a run by itself."""
    return _Reduction(net, frozenset(keep)).result()


class _Reduction:
    def __init__(self, net: PlaceNet, keep: frozenset[int]) -> None:
        self.net = net
        self.keep = keep
        self.tokens = dict(enumerate(net.initial))
        self.parts: dict[int, _Part] = {}
        self.producers: dict[int, dict[int, int]] = {place: {} for place in self.tokens}
        self.consumers: dict[int, dict[int, int]] = {place: {} for place in self.tokens}
        self.start: list[Run] = []
        self.next = 0
        self.sinks: list[int] = []
        self.watched = self._watched()
        self.fixed = self._fixed()
        for number, step in enumerate(net.steps):
            self.add(_Part(dict(step.consumes), dict(step.produces), step.inhibitors, step.resets, number))

    def _watched(self) -> set[int]:
        """The places whose tokens somebody tests, empties or limits."""
        net = self.net
        found = {place for step in net.steps for place, _ in step.inhibitors}
        found |= {place for step in net.steps for place in step.resets}
        return found | {place for place, capacity in enumerate(net.capacities) if capacity is not None}

    def _fixed(self) -> set[int]:
        """The places that are watched, may hold tokens at the end, or lie beside a transition that is kept."""
        net = self.net
        kept = [net.steps[number] for number in self.keep]
        beside = {place for step in kept for place, _ in (*step.consumes, *step.produces)}
        if net.finals:
            resting = {place for marking in net.finals for place, tokens in enumerate(marking) if tokens}
            return self.watched | beside | resting
        leaving = {place for step in net.steps for place, _ in step.consumes}
        self.sinks = sorted(net.resting - self.watched - leaving)
        return self.watched | beside | net.resting

    def _kept(self, part: _Part) -> bool:
        # A run of several may be nested deeply: it is not looked up.
        return isinstance(part.run, int) and part.run in self.keep

    # Changing the net

    def add(self, part: _Part) -> int:
        number = self.next
        self.next += 1
        self.parts[number] = part
        for place, weight in part.consumes.items():
            self.consumers[place][number] = weight
        for place, weight in part.produces.items():
            self.producers[place][number] = weight
        return number

    def drop(self, number: int) -> None:
        part = self.parts.pop(number)
        for place in part.consumes:
            del self.consumers[place][number]
        for place in part.produces:
            del self.producers[place][number]

    def drop_place(self, place: int) -> None:
        for number in self.producers.pop(place):
            del self.parts[number].produces[place]
        for number in self.consumers.pop(place):
            del self.parts[number].consumes[place]
        del self.tokens[place]

    # The rules

    def result(self) -> Reduced:
        self._merge_sinks()
        stranded: list[int] = []
        changed = True
        while changed and not stranded:
            changed = self._agglomerate()
            stranded = self._stranded()
            if not stranded:
                changed |= self._drop_twins() | self._drop_neutral() | self._drop_twin_places()
        return self._built(stranded)

    def _merge_sinks(self) -> None:
        """All places in which tokens only rest are one."""
        for place in self.sinks[1:]:
            kept = self.sinks[0]
            for number, weight in self.producers[place].items():
                part = self.parts[number]
                part.produces[kept] = part.produces.get(kept, 0) + weight
                self.producers[kept][number] = part.produces[kept]
            self.tokens[kept] += self.tokens[place]
            self.drop_place(place)

    def _stranded(self) -> list[int]:
        """Transitions that need more of a place than it will ever hold."""
        return [
            number
            for place, consumers in self.consumers.items()
            if not self.producers[place]
            for number, weight in consumers.items()
            if weight > self.tokens[place]
        ]

    def _agglomerate(self) -> bool:
        changed = False
        for place in list(self.tokens):
            if place not in self.fixed:
                changed |= self._after(place) or self._before(place)
        return changed

    def _joinable(self, place: int) -> int:
        """The weight that all arcs of the place share; 0 where they do not, or where a transition gives back."""
        producers, consumers = self.producers[place], self.consumers[place]
        if not consumers or producers.keys() & consumers.keys() or not (producers or self.tokens[place]):
            return 0
        weights = {*producers.values(), *consumers.values()}
        if len(weights) > 1 or (len(producers) - 1) * (len(consumers) - 1) > _GROWTH:
            return 0
        return weights.pop()

    def _after(self, place: int) -> bool:
        """What only waits for this place fires at once when a token comes: post-agglomeration.

        No consumer needs anything else, nobody watches what they produce, and one of them produces something (else the
        place could fill without bound, unseen).
        """
        weight = self._joinable(place)
        consumers = self.consumers[place]
        if not weight or self.tokens[place] % weight or (self.tokens[place] and len(consumers) > 1):
            return False
        later = [self.parts[number] for number in consumers]
        if any(
            len(part.consumes) > 1 or part.inhibitors or part.resets or not self.watched.isdisjoint(part.produces)
            for part in later
        ) or not any(part.produces for part in later):
            return False
        count = self.tokens[place] // weight
        if count > _MOST_AT_START:
            return False
        for _ in range(count):
            self.start.append(later[0].run)
            for other, added in later[0].produces.items():
                self.tokens[other] += added
        self._join(place, weight)
        return True

    def _before(self, place: int) -> bool:
        """What only prepares this place waits until its token is taken: pre-agglomeration.

        It produces nothing else, and what it takes nobody else takes, watches or keeps at the end.
        """
        weight = self._joinable(place)
        producers = self.producers[place]
        if not weight or self.tokens[place] or len(producers) != 1:
            return False
        (number,) = producers
        part = self.parts[number]
        if len(part.produces) > 1 or not part.consumes or part.inhibitors or part.resets:
            return False
        if any(other in self.fixed or len(self.consumers[other]) > 1 for other in part.consumes):
            return False
        self._join(place, weight)
        return True

    def _join(self, place: int, weight: int) -> None:
        """Put each producer of the place before each consumer of it, in one transition, and remove the place."""
        earlier, later = list(self.producers[place]), list(self.consumers[place])
        for first in earlier:
            for second in later:
                one, two = self.parts[first], self.parts[second]
                consumes, produces = dict(one.consumes), dict(two.produces)
                for other, count in two.consumes.items():
                    if other != place:
                        consumes[other] = consumes.get(other, 0) + count
                for other, count in one.produces.items():
                    if other != place:
                        produces[other] = produces.get(other, 0) + count
                inhibitors = tuple(sorted({*one.inhibitors, *two.inhibitors}))
                resets = tuple(sorted({*one.resets, *two.resets}))
                self.add(_Part(consumes, produces, inhibitors, resets, (one.run, two.run)))
        for number in (*earlier, *later):
            self.drop(number)
        self.drop_place(place)

    def _drop_twins(self) -> bool:
        """Of transitions that do the same, one is enough."""
        seen: set[tuple[object, ...]] = set()
        twins: list[int] = []
        for number, part in self.parts.items():
            consumes, produces = frozenset(part.consumes.items()), frozenset(part.produces.items())
            key = (consumes, produces, part.inhibitors, part.resets)
            if key in seen and not self._kept(part):
                twins.append(number)
            seen.add(key)
        for number in twins:
            self.drop(number)
        return bool(twins)

    def _drop_neutral(self) -> bool:
        """A transition that changes nothing says nothing, where it is known to fire if the others do."""
        neutral = [
            number
            for number, part in self.parts.items()
            if part.consumes == part.produces and not part.inhibitors and not part.resets and not self._kept(part)
        ]
        changed = False
        for number in neutral:
            if self._fires_with_others(number):
                self.drop(number)
                changed = True
        return changed

    def _fires_with_others(self, number: int) -> bool:
        needs = self.parts[number].consumes
        if all(weight <= self.tokens[place] for place, weight in needs.items()):
            return True
        place = min(needs, key=lambda place: len(self.consumers[place]))
        for other in self.consumers[place]:
            part = self.parts[other]
            if other != number and all(part.consumes.get(at, 0) >= weight for at, weight in needs.items()):
                return True
        if len(needs) > 1:
            return False
        return any(other != number and weight >= needs[place] for other, weight in self.producers[place].items())

    def _drop_twin_places(self) -> bool:
        """Of places that always hold the same, one is enough."""
        seen: set[tuple[object, ...]] = set()
        twins: list[int] = []
        for place, tokens in self.tokens.items():
            if place in self.fixed:
                continue
            producers, consumers = self.producers[place], self.consumers[place]
            key = (frozenset(producers.items()), frozenset(consumers.items()), tokens)
            if key in seen or not (producers or consumers or tokens):
                twins.append(place)
            seen.add(key)
        for place in twins:
            self.drop_place(place)
        return bool(twins)

    # The result

    def _built(self, stranded: list[int]) -> Reduced:
        net = self.net
        places = sorted(self.tokens)
        number = {place: index for index, place in enumerate(places)}

        def renumbered(weights: dict[int, int]) -> Arcs:
            return tuple(sorted((number[place], weight) for place, weight in weights.items()))

        steps = tuple(
            Step(
                f"t{index}",
                renumbered(part.consumes),
                renumbered(part.produces),
                renumbered(dict(part.inhibitors)),
                tuple(sorted(number[place] for place in part.resets)),
            )
            for index, part in self.parts.items()
        )
        reduced = PlaceNet(
            name=net.name,
            places=tuple(net.places[place] for place in places),
            steps=steps,
            initial=tuple(self.tokens[place] for place in places),
            capacities=tuple(net.capacities[place] for place in places),
            finals=tuple(tuple(marking[place] for place in places) for marking in net.finals),
            resting=frozenset(number[place] for place in net.resting if place in number),
        )
        runs = tuple(part.run for part in self.parts.values())
        return Reduced(reduced, tuple(self.start), runs, tuple(self.parts[one].run for one in stranded))
