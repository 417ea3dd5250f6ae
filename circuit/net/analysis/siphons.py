"""Siphons and traps: sets of places that, once empty, stay empty; and that, once marked, stay marked.

A dead marking empties a siphon. Where each siphon holds a trap that is marked at the beginning (the property of
Commoner), none is ever emptied: an ordinary net cannot get stuck, and a free-choice net is live.
"""

from __future__ import annotations

from collections.abc import Iterable

from circuit.net.analysis.place_net import PlaceNet

_MOST_BRANCHES = 200


def largest_siphon(net: PlaceNet, within: Iterable[int]) -> set[int]:
    """The largest siphon inside of these places: whatever puts a token in takes one out."""
    return _closed(net, within, inputs=True)


def largest_trap(net: PlaceNet, within: Iterable[int]) -> set[int]:
    """The largest trap inside of these places: whatever takes a token out puts one in."""
    return _closed(net, within, inputs=False)


def _closed(net: PlaceNet, within: Iterable[int], *, inputs: bool) -> set[int]:
    places = set(within)
    by_place: dict[int, list[int]] = {place: [] for place in places}
    for number, step in enumerate(net.steps):
        for place, _ in step.produces if inputs else step.consumes:
            if place in by_place:
                by_place[place].append(number)
    guards = [{place for place, _ in (step.consumes if inputs else step.produces)} for step in net.steps]
    pending = list(places)
    uses: list[list[int]] = [[] for _ in net.places]
    for number, guard in enumerate(guards):
        for place in guard:
            uses[place].append(number)
    while pending:
        place = pending.pop()
        if place not in places or all(not guards[number].isdisjoint(places) for number in by_place[place]):
            continue
        places.discard(place)
        # Who was guarded by this place may be unguarded now.
        for number in uses[place]:
            if guards[number].isdisjoint(places):
                step = net.steps[number]
                pending.extend(other for other, _ in (step.produces if inputs else step.consumes) if other in places)
    return places


def smallest_siphon(net: PlaceNet, within: set[int]) -> set[int]:
    """A siphon inside of the siphon `within` that holds no smaller one."""
    current = largest_siphon(net, within)
    for place in sorted(current):
        if place in current:
            smaller = largest_siphon(net, current - {place})
            if smaller:
                current = smaller
    return current


def unmarked_siphon(net: PlaceNet) -> tuple[set[int] | None, bool]:
    """A siphon that holds no trap which is marked at the beginning, if there is one; and whether the search was whole.

    The search branches over the places of marked traps, and is given up after some hundreds of branches.
    """
    marked = {place for place, tokens in enumerate(net.initial) if tokens}
    every = largest_siphon(net, range(len(net.places)))
    pending = [every]
    seen: set[frozenset[int]] = set()
    count = 0
    while pending:
        count += 1
        if count > _MOST_BRANCHES:
            return None, False
        siphon = pending.pop()
        if not siphon:
            continue
        trap = largest_trap(net, siphon)
        if trap.isdisjoint(marked):
            return smallest_siphon(net, siphon), True
        # One that holds all of this trap would hold a marked one, so one without lacks a place of it.
        for place in sorted(trap):
            smaller = largest_siphon(net, siphon - {place})
            key = frozenset(smaller)
            if smaller and key not in seen:
                seen.add(key)
                pending.append(smaller)
    return None, True
