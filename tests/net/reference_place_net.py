"""An oracle for place/transition nets: every property straight from its definition, by listing all markings.

It shares no code with the analysis: markings are plain lists, arcs are read off the net anew. Where there are more
than `MOST` markings it has no answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from circuit.net.analysis.place_net import PlaceNet

MOST = 600

Marking = tuple[int, ...]


def enabled(net: PlaceNet, index: int, marking: Marking) -> Marking | None:
    """The marking after the transition; None where it may not fire."""
    step = net.steps[index]
    if any(marking[place] >= count for place, count in step.inhibitors):
        return None
    after = list(marking)
    for place, weight in step.consumes:
        after[place] -= weight
    if min(after, default=0) < 0:
        return None
    for place in step.resets:
        after[place] = 0
    for place, weight in step.produces:
        after[place] += weight
    for place, capacity in enumerate(net.capacities):
        if capacity is not None and after[place] > capacity and after[place] > marking[place]:
            return None
    return tuple(after)


def final(net: PlaceNet, marking: Marking) -> bool:
    if net.finals:
        return marking in net.finals
    return not any(tokens for place, tokens in enumerate(marking) if place not in net.resting)


@dataclass
class Truth:
    """What holds of a net with finitely many markings."""

    sound: bool
    dead: set[str]
    deadlock: int | None
    """The length of a shortest run to a marking that neither moves nor is final."""
    most: int
    live: bool
    homes: bool


def truth(net: PlaceNet) -> Truth | None:
    """The properties of the net, or None where it has too many markings."""
    edges: dict[Marking, dict[int, Marking]] = {}
    depth = {net.initial: 0}
    layer = [net.initial]
    while layer:
        following: list[Marking] = []
        for marking in layer:
            edges[marking] = {}
            for index in range(len(net.steps)):
                after = enabled(net, index, marking)
                if after is None:
                    continue
                edges[marking][index] = after
                if after not in depth:
                    depth[after] = depth[marking] + 1
                    following.append(after)
        if len(depth) > MOST:
            return None
        layer = following
    reach = {marking: {marking} for marking in edges}
    changed = True
    while changed:
        changed = False
        for marking, out in edges.items():
            wider = reach[marking].union(*(reach[after] for after in out.values())) if out else reach[marking]
            if len(wider) > len(reach[marking]):
                reach[marking] = wider
                changed = True
    fires = {marking: {index for one in reach[marking] for index in edges[one]} for marking in edges}
    everything = set(range(len(net.steps)))
    stuck = [depth[marking] for marking, out in edges.items() if not out and not final(net, marking)]
    dead = everything - fires[net.initial]
    complete = all(any(final(net, one) for one in reach[marking]) for marking in edges)
    return Truth(
        sound=complete and not dead,
        dead={net.steps[index].name for index in dead},
        deadlock=min(stuck, default=None),
        most=max((max(marking, default=0) for marking in edges), default=0),
        live=all(fires[marking] == everything for marking in edges),
        homes=bool(set.intersection(*reach.values())),
    )


def replay(net: PlaceNet, names: list[str]) -> Marking | None:
    """The marking after the transitions of these names; None where one could not fire."""
    numbers = {step.name: index for index, step in enumerate(net.steps)}
    marking: Marking | None = net.initial
    for name in names:
        marking = enabled(net, numbers[name], marking) if marking is not None else None
    return marking
