"""Whether a net that stands in its initial marking can always come to an end: from each marking that it can reach, a
final one can be reached. Less than soundness: transitions that have had their time may be dead.
"""

from __future__ import annotations

from dataclasses import replace

from circuit.net.analysis.components import leading_to
from circuit.net.analysis.exploration import explore
from circuit.net.analysis.limits import Limits
from circuit.net.analysis.place_net import PlaceNet
from circuit.net.analysis.reduction import reduce_net
from circuit.net.analysis.soundness import finals
from circuit.net.analysis.verdict import Verdict, proven, unknown, violated

METHOD = "structural reduction and exploration"


def completion(net: PlaceNet, limits: Limits) -> Verdict:
    """The verdict on the option to complete of `net`."""
    living = _living(net)
    reduced = reduce_net(living)
    graph = explore(living if reduced.stranded else reduced.net, limits.meter())
    if graph.pump is not None:
        return unknown(METHOD, "some place can hold more and more tokens, so that there is no end of markings")
    if not graph.complete:
        return unknown(METHOD, graph.stopped)
    lost = leading_to(graph, finals(graph)).find(0)
    if lost < 0:
        return proven(METHOD, markings=len(graph))
    trace = graph.trace(lost) if reduced.stranded else reduced.lift(graph.trace(lost))
    marking = living.run(trace)
    assert marking is not None, "a lifted trace runs"
    what = "nothing can fire" if living.dead(marking) else "no final marking can be reached"
    where = f"after {', '.join(living.names(trace))} " if trace else ""
    return violated(METHOD, f"{where}{what}", living.names(trace), marking=living.named(marking))


def _living(net: PlaceNet) -> PlaceNet:
    """The net without the transitions that never have what they need, as those that a case has left behind."""
    fed: set[int] = set()
    living: set[int] = set()
    waiting = dict(enumerate(net.steps))
    while waiting:
        ready = [
            number
            for number, step in waiting.items()
            if all(place in fed or net.initial[place] >= weight for place, weight in step.consumes)
        ]
        if not ready:
            break
        for number in ready:
            living.add(number)
            fed |= {place for place, _ in waiting.pop(number).produces}
    return replace(net, steps=tuple(step for number, step in enumerate(net.steps) if number in living))
