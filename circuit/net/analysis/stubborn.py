"""Stubborn sets: which of the enabled transitions are enough to reach every marking in which nothing can fire.

A set is stubborn where no transition outside of it can disable, be disabled by, or fail to commute with an enabled one
inside, and where whatever could enable a disabled one inside lies inside too. The first transition of the set in any
run to a dead marking can then be moved to the front: each dead marking is still reached, by a run of the same length.
So the nearest dead marking stays the nearest, and its trace is a shortest one of the whole net.
"""

from __future__ import annotations

from collections.abc import Callable

from circuit.net.analysis.exploration import Choice, Graph, explore
from circuit.net.analysis.limits import Meter
from circuit.net.analysis.packing import Packing
from circuit.net.analysis.place_net import Marking, PlaceNet

_SEEDS = 12


def dead_markings(net: PlaceNet, meter: Meter, enough: Callable[[Marking], bool] | None = None) -> Graph:
    """A part of the reachability graph that holds every reachable marking in which nothing can fire, or, where one is
    `enough`, a nearest such one as the last. That the part is finite does not say that the net is bounded."""
    return explore(net, meter, _Relations(net).choose, pumps=False, enough=enough)


class _Relations:
    """Which transitions of a net have to do with each other."""

    def __init__(self, net: PlaceNet) -> None:
        self.net = net
        places = range(len(net.places))
        taking, giving, needing, limited, touching, emptying = ([0 for _ in places] for _ in range(6))
        for number, step in enumerate(net.steps):
            bit = 1 << number
            consumed, produced = dict(step.consumes), dict(step.produces)
            for place in {*consumed, *produced, *step.resets, *dict(net.limits[number])}:
                change = produced.get(place, 0) - consumed.get(place, 0)
                touching[place] |= bit
                if place in step.resets:
                    emptying[place] |= bit
                if change < 0 or place in step.resets:
                    taking[place] |= bit
                if change > 0 or (place in step.resets and place in produced):
                    giving[place] |= bit
                if place in consumed:
                    needing[place] |= bit
            for place, _ in net.limits[number]:
                limited[place] |= bit
        self.dependent: list[int] = []
        for number, step in enumerate(net.steps):
            bit, found = 1 << number, 0
            for place, _ in step.consumes:
                found |= needing[place] if taking[place] & bit else needing[place] & taking[place]
            for place, _ in step.produces:
                if giving[place] & bit:
                    found |= limited[place]
            for place, _ in net.limits[number]:
                found |= giving[place]
            for place in step.resets:
                found |= touching[place]
            for place in {*dict(step.consumes), *dict(step.produces), *dict(net.limits[number])}:
                found |= emptying[place]
            self.dependent.append(found & ~bit)
        self.lacking = [[(place, giving[place]) for place, _ in step.consumes] for step in net.steps]
        self.barred = [[(place, taking[place]) for place, _ in limits] for limits in net.limits]

    def choose(self, packing: Packing) -> Choice:
        """The choice of a stubborn set with few enabled transitions, for markings that are packed so."""
        net, steps = self.net, packing.steps
        lacking = [
            [
                (packing.guard(place), packing.amount(place, dict(step.consumes)[place]), givers)
                for place, givers in reasons
            ]
            for step, reasons in zip(net.steps, self.lacking, strict=True)
        ]
        barred = [
            [
                (packing.guard(place), packing.amount(place, limit), takers)
                for (place, limit), (_, takers) in zip(limits, reasons, strict=True)
                if packing.holds(place, limit)
            ]
            for limits, reasons in zip(net.limits, self.barred, strict=True)
        ]
        dependent = self.dependent

        def closure(seed: int, marking: int, enabled: int, most: int) -> int:
            """The stubborn set around the seed; cut short where it has `most` enabled transitions or more."""
            found = todo = seed
            while todo:
                low = todo & -todo
                number = low.bit_length() - 1
                todo ^= low
                if enabled & low:
                    added = dependent[number]
                else:
                    added = -1
                    for guard, amount, givers in lacking[number]:
                        if not ((marking | guard) - amount) & guard:
                            new = givers & ~found
                            if added < 0 or new.bit_count() < added.bit_count():
                                added = new
                    for guard, amount, takers in barred[number]:
                        if ((marking | guard) - amount) & guard:
                            new = takers & ~found
                            if added < 0 or new.bit_count() < added.bit_count():
                                added = new
                added &= ~found
                found |= added
                todo |= added
                if (found & enabled).bit_count() >= most:
                    return -1
            return found & enabled

        def choice(marking: int, enabled: int) -> int:
            if enabled & (enabled - 1) == 0:
                return enabled
            best, fewest = enabled, enabled.bit_count()
            rest, tried = enabled, 0
            while rest and tried < _SEEDS:
                seed = rest & -rest
                rest ^= seed
                tried += 1
                found = closure(seed, marking, enabled, fewest)
                if found >= 0:
                    best, fewest = found, found.bit_count()
                    if fewest == 1:
                        break
            return best

        assert len(steps) == len(dependent)
        return choice
