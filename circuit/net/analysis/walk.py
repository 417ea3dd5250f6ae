"""Random walks through a net: a cheap way to meet what goes wrong in many ways, where there are too many markings.

The walks are the same each time, as far as the time goes that they are given. That they find nothing proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from circuit.net.analysis.limits import Meter
from circuit.net.analysis.packing import Packing
from circuit.net.analysis.place_net import Marking, PlaceNet

_BITS = 16


def walk_to_dead(
    net: PlaceNet,
    wanted: Callable[[Marking], bool],
    meter: Meter,
    *,
    walks: int = 60,
    steps: int = 1_500,
    seed: int = 1,
) -> tuple[int, ...] | None:
    """A run to a marking in which nothing can fire and which is `wanted`, if one of the walks came to one."""
    packing = Packing(net, _BITS)
    choose = Random(seed)
    numbered = list(enumerate(packing.steps))
    for _ in range(walks):
        marking, trace = packing.initial, list[int]()
        while len(trace) < steps and meter.left() > 0:
            enabled = [number for number, step in numbered if step.enabled(marking)]
            if not enabled:
                if wanted(packing.unpack(marking)):
                    return tuple(trace)
                break
            number = choose.choice(enabled)
            marking = packing.steps[number].fire(marking)
            if marking & packing.guards:
                break
            trace.append(number)
    return None


def walk_firing(net: PlaceNet, meter: Meter, *, walks: int = 40, steps: int = 1_500, seed: int = 1) -> set[int]:
    """Transitions that were seen to fire; where there is a choice, one that was not yet seen goes first."""
    packing = Packing(net, _BITS)
    choose = Random(seed)
    numbered = list(enumerate(packing.steps))
    fired: set[int] = set()
    for _ in range(walks):
        marking = packing.initial
        for _ in range(steps):
            enabled = [number for number, step in numbered if step.enabled(marking)]
            fresh = [number for number in enabled if number not in fired]
            if not enabled or meter.left() <= 0:
                break
            number = choose.choice(fresh or enabled)
            marking = packing.steps[number].fire(marking)
            if marking & packing.guards:
                break
            fired.add(number)
        if len(fired) == len(numbered):
            break
    return fired
