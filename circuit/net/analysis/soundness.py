"""Whether a net is sound: bounded, a final marking within reach from each reachable one, no dead transition.

The net is reduced first; most nets of business processes are then so small that their few markings can be looked at.
Where they are not, a shortest way into a marking that neither moves nor ends is looked for with stubborn sets, and the
theorems on free-choice nets are tried. Every trace is lifted back and run on the original net before it counts.
"""

from __future__ import annotations

from collections.abc import Sequence

from circuit.net.analysis.components import leading_to
from circuit.net.analysis.exploration import Graph, Pump, explore
from circuit.net.analysis.limits import Limits
from circuit.net.analysis.place_net import PlaceNet
from circuit.net.analysis.rank_theorem import sound_by_rank
from circuit.net.analysis.reduction import Reduced, Run, flat, reduce_net
from circuit.net.analysis.stubborn import dead_markings
from circuit.net.analysis.verdict import Verdict, proven, unknown, violated
from circuit.net.analysis.walk import walk_to_dead

_REDUCED = "structural reduction and exploration"
_FIRST_LOOK = 3_000
_DEADLOCK_LOOK = 20_000


def soundness(net: PlaceNet, limits: Limits) -> Verdict:
    """The verdict on the soundness of `net`."""
    reduced = reduce_net(net)
    if reduced.stranded:
        return _dead(net, reduced.stranded, limits, "structural reduction")
    graph = explore(reduced.net, limits.meter(states=_FIRST_LOOK))
    if not graph.complete and graph.pump is None:
        if sound_by_rank(net):
            return proven("rank theorem of free-choice nets")
        meter = limits.meter(seconds=limits.seconds / 8)
        met = walk_to_dead(reduced.net, lambda marking: not reduced.net.is_final(marking), meter)
        if met is not None:
            return _lost(net, reduced.lift(met), "structural reduction and random walks")
        stuck = dead_markings(
            reduced.net, limits.meter(states=_DEADLOCK_LOOK), lambda marking: not reduced.net.is_final(marking)
        )
        if stuck.halted:
            return _lost(net, reduced.lift(stuck.trace(stuck.dead()[-1])), "structural reduction and stubborn sets")
        graph = explore(reduced.net, limits.meter())
    if graph.pump is not None:
        return _unbounded(net, reduced, graph.pump)
    if not graph.complete:
        return unknown(_REDUCED, graph.stopped)
    return _explored(net, reduced, graph, limits)


def finals(graph: Graph) -> list[int]:
    """The states whose markings are final."""
    net, packing = graph.net, graph.packing
    if net.finals:
        wanted = {packing.pack(marking) for marking in net.finals}
        return [state for state, packed in enumerate(graph.packed) if packed in wanted]
    mask = packing.mask(place for place in range(len(net.places)) if place not in net.resting)
    return [state for state, packed in enumerate(graph.packed) if not packed & mask]


def _explored(net: PlaceNet, reduced: Reduced, graph: Graph, limits: Limits) -> Verdict:
    good = leading_to(graph, finals(graph))
    lost = good.find(0)
    if lost >= 0:
        return _lost(net, reduced.lift(graph.trace(lost)), _REDUCED)
    fired = set(graph.labels)
    dead = [number for number in range(len(reduced.net.steps)) if number not in fired]
    if dead:
        return _dead(net, [reduced.runs[number] for number in dead], limits, _REDUCED)
    return proven(_REDUCED, markings=len(graph), places=len(reduced.net.places), transitions=len(reduced.net.steps))


def _lost(net: PlaceNet, trace: Sequence[int], method: str) -> Verdict:
    """After the trace no final marking can be reached."""
    marking = net.run(trace)
    assert marking is not None, "a lifted trace runs"
    what = "nothing can fire" if net.dead(marking) else "no final marking can be reached"
    return violated(
        method, f"after this trace {what}", net.names(trace), kind="no completion", marking=net.named(marking)
    )


def _unbounded(net: PlaceNet, reduced: Reduced, pump: Pump) -> Verdict:
    prefix, cycle = reduced.lift(pump.prefix), reduced.lift_part(pump.cycle)
    before, after = net.run(prefix), net.run((*prefix, *cycle))
    assert before is not None and after is not None, "a lifted trace runs"
    emptied = {place for number in cycle for place in net.steps[number].resets}
    grows = {
        name: after[place] - before[place]
        for place, name in enumerate(net.places)
        if after[place] > before[place] and place not in emptied
    }
    return violated(
        _REDUCED,
        f"{_listed(list(grows))} can hold more and more tokens: the end of the trace can be repeated for ever",
        net.names((*prefix, *cycle)),
        kind="unbounded",
        repeated=net.names(cycle),
        grows=grows,
    )


def _dead(net: PlaceNet, runs: Sequence[Run], limits: Limits, method: str) -> Verdict:
    """Some transition can never fire, since none of these runs can be gone. Which one it is shows where each that is in
    question is kept as it is: of a run, one transition may well fire after or before others."""
    candidates = {number for run in runs for number in flat(run)}
    while True:
        reduced = reduce_net(net, candidates)
        found = {number for run in reduced.stranded for number in flat(run)}
        if found <= candidates:
            break
        candidates |= found
    if not found:
        graph = explore(reduced.net, limits.meter())
        fired = {number for label in set(graph.labels) for number in flat(reduced.runs[label])}
        found = candidates - fired if graph.complete else set[int]()
    names = [net.steps[number].name for number in sorted(found)]
    if names:
        return violated(method, f"{_listed(names)} can never fire", dead_transitions=names)
    shown = _listed([net.steps[number].name for number in sorted(candidates)])
    return violated(method, f"of {shown}, some can never fire", dead_transitions=[])


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
