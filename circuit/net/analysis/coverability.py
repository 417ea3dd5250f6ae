"""What a net without bound can cover: the tree of Karp and Miller, with ω for "as many tokens as you like".

It is finite for every net of places, transitions and weights, and says which places have a bound, and which transitions
can fire at all. Inhibitor and reset arcs and capacities are beyond it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf

from circuit.net.analysis.limits import Meter
from circuit.net.analysis.place_net import PlaceNet

_CHECK_EVERY = 256

Cover = tuple[float, ...]
"""A marking in which a place may hold infinitely many tokens."""


@dataclass(slots=True)
class Coverability:
    """`bounds` of the places (infinite where there is none) and the transitions that can fire, if `complete`."""

    bounds: list[float]
    fired: set[int]
    complete: bool = False
    stopped: str = ""


def coverability(net: PlaceNet, meter: Meter) -> Coverability:
    """The tree of `net`, which must be plain, within what `meter` allows."""
    start: Cover = tuple(float(tokens) for tokens in net.initial)
    found = Coverability(list(start), set())
    parents: list[int] = [-1]
    covers: list[Cover] = [start]
    seen = {start}
    pending = deque([0])
    size = 8 * len(net.places) + 300
    turn = 0
    while pending:
        turn += 1
        if turn % _CHECK_EVERY == 0 and meter.spent("markings with ω", len(covers), len(covers) * size):
            found.stopped = meter.stopped
            return found
        node = pending.popleft()
        cover = covers[node]
        for number, step in enumerate(net.steps):
            if any(cover[place] < weight for place, weight in step.consumes):
                continue
            found.fired.add(number)
            after = list(cover)
            for place, weight in step.consumes:
                after[place] -= weight
            for place, weight in step.produces:
                after[place] += weight
            grown = _accelerated(after, node, covers, parents)
            if grown in seen:
                continue
            seen.add(grown)
            covers.append(grown)
            parents.append(node)
            pending.append(len(covers) - 1)
            found.bounds = [max(pair) for pair in zip(found.bounds, grown, strict=True)]
    found.complete = True
    return found


def _accelerated(after: list[float], node: int, covers: list[Cover], parents: list[int]) -> Cover:
    """Where an ancestor is smaller, the run from it can be repeated: what grew on the way grows for ever."""
    changed = True
    while changed:
        changed = False
        at = node
        while at >= 0:
            before = covers[at]
            if all(small <= large for small, large in zip(before, after, strict=True)):
                for place, small in enumerate(before):
                    if small < after[place] < inf:
                        after[place] = inf
                        changed = True
            at = parents[at]
    return tuple(after)
