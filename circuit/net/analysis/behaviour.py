"""What a net can do and cannot: bounds, deadlocks, dead transitions, liveness, home markings.

Each verdict comes from the cheapest thing that decides it: from soundness, which implies most of the others; from all
reachable markings, where the limits allow to list them; from a part of them that holds every dead one (stubborn sets);
from the tree of Karp and Miller, where there are infinitely many.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from circuit.net.analysis.components import components, ends
from circuit.net.analysis.coverability import Coverability, coverability
from circuit.net.analysis.exploration import Graph, Pump, explore
from circuit.net.analysis.invariants import place_semiflows
from circuit.net.analysis.limits import Limits
from circuit.net.analysis.place_net import PlaceNet
from circuit.net.analysis.soundness import soundness
from circuit.net.analysis.stubborn import dead_markings
from circuit.net.analysis.verdict import Verdict, proven, unknown, violated
from circuit.net.analysis.walk import walk_firing

_EXPLORED = "exploration of all markings"
_STUBBORN = "exploration with stubborn sets"
_SOUND = "follows from soundness"
_INVARIANTS = "place invariants"
_COVER_STATES = 20_000
_COVER_SECONDS = 5.0
_LARGEST = 2_000


class Behaviour:
    """The behavioural properties of one net. What several of them need is computed once, when it is first needed."""

    def __init__(self, net: PlaceNet, limits: Limits) -> None:
        self.net = net
        self.limits = limits

    # What the verdicts are drawn from

    @cached_property
    def soundness(self) -> Verdict:
        return soundness(self.net, self.limits)

    @cached_property
    def graph(self) -> Graph:
        """All markings, or as many as the limits allow."""
        return explore(self.net, self.limits.meter())

    @cached_property
    def stuck(self) -> Graph:
        """A part with all dead markings, or up to the nearest one in which a case may not end."""
        return dead_markings(self.net, self.limits.meter(), lambda marking: not self.net.is_final(marking))

    @cached_property
    def cover(self) -> Coverability | None:
        """The tree of Karp and Miller, for plain nets."""
        meter = self.limits.meter(states=_COVER_STATES, seconds=_COVER_SECONDS)
        return coverability(self.net, meter) if self.net.plain else None

    @cached_property
    def invariant_bounds(self) -> list[int | None]:
        """The most tokens that the place invariants leave each place."""
        net = self.net
        bounds: list[int | None] = [None] * len(net.places)
        if any(step.resets for step in net.steps) or len(net.places) > _LARGEST:
            return bounds
        for row in place_semiflows(net).rows:
            total = sum(weight * net.initial[place] for place, weight in row.items())
            for place, weight in row.items():
                known, bound = bounds[place], total // weight
                bounds[place] = bound if known is None else min(known, bound)
        return bounds

    @property
    def pump(self) -> Pump | None:
        return self.graph.pump

    def _unbounded(self, pump: Pump) -> Verdict:
        names = [self.net.places[place] for place in pump.grows]
        return violated(
            "a run that can be repeated for ever",
            f"{', '.join(names[:3])} can hold more and more tokens: the end of the trace can be repeated for ever",
            self.net.names((*pump.prefix, *pump.cycle)),
            repeated=self.net.names(pump.cycle),
            grows={self.net.places[place]: count for place, count in pump.grows.items()},
        )

    # The verdicts

    def boundedness(self) -> Verdict:
        if self.soundness.proven:
            return proven(_SOUND)
        if self.soundness.witness.get("kind") == "unbounded":
            return self.soundness
        if self.pump is not None:
            return self._unbounded(self.pump)
        if self.graph.complete:
            return proven(_EXPLORED, markings=len(self.graph))
        return proven(_INVARIANTS) if None not in self.invariant_bounds else self._limited()

    def deadlock_freedom(self) -> Verdict:
        """That nothing can fire happens only in final markings. The trace to another one is a shortest."""
        if self.soundness.proven:
            return proven(_SOUND)
        stuck = self.stuck
        if stuck.halted:
            state = stuck.dead()[-1]
            marking = stuck.marking(state)
            trace = self.net.names(stuck.trace(state))
            reason = "after this trace nothing can fire, and a case may not end so"
            return violated(_STUBBORN, reason, trace, marking=self.net.named(marking), shortest=True)
        if stuck.complete:
            return proven(_STUBBORN, markings=len(stuck))
        return unknown(_STUBBORN, stuck.stopped)

    def dead_transitions(self) -> Verdict:
        """That there are none."""
        if self.soundness.proven:
            return proven(_SOUND)
        graph = self.graph
        fired, method = set(graph.labels), _EXPLORED
        if not graph.complete and len(fired) < len(self.net.steps):
            fired |= walk_firing(self.net, self.limits.meter(seconds=self.limits.seconds / 8))
        if not graph.complete and len(fired) < len(self.net.steps):
            cover = self.cover
            if cover is not None:
                fired, method = fired | cover.fired, "the tree of Karp and Miller"
            if len(fired) < len(self.net.steps) and (cover is None or not cover.complete):
                return self._limited()
        dead = [step.name for number, step in enumerate(self.net.steps) if number not in fired]
        if not dead:
            return proven(method)
        names = ", ".join(dead[:3]) + (f" and {len(dead) - 3} more" if len(dead) > 3 else "")
        return violated(method, f"{names} can never fire", transitions=dead)

    def liveness(self) -> Verdict:
        """That each transition can fire again, whatever happened. A workflow that ends is not live, and need not be."""
        stuck = self.stuck
        dead = stuck.dead()
        if dead and self.net.steps:
            marking = self.net.named(stuck.marking(dead[0]))
            trace = self.net.names(stuck.trace(dead[0]))
            return violated(_STUBBORN, "after this trace nothing can fire any more", trace, marking=marking)
        graph = self.graph
        if graph.complete:
            for state, names in self._lost_transitions(graph):
                reason = f"after this trace {', '.join(names[:3])} cannot fire again"
                return violated(_EXPLORED, reason, self.net.names(graph.trace(state)), transitions=names)
            return proven(_EXPLORED, markings=len(graph))
        never = self.dead_transitions()
        if never.violated:
            return violated(never.method, never.reason, **never.witness)
        return self._limited()

    def _lost_transitions(self, graph: Graph) -> list[tuple[int, list[str]]]:
        of, count = components(graph)
        found: list[tuple[int, list[str]]] = []
        labels: dict[int, set[int]] = {of[state]: set() for state in ends(graph, of, count)}
        for state in range(len(graph)):
            if of[state] in labels:
                labels[of[state]].update(graph.labels[graph.offsets[state] : graph.offsets[state + 1]])
        for state in ends(graph, of, count):
            lost = [step.name for number, step in enumerate(self.net.steps) if number not in labels[of[state]]]
            if lost:
                found.append((state, lost))
        return found

    def home_markings(self) -> Verdict:
        """Whether there is a marking that can be reached from every reachable one."""
        if self.soundness.proven and self.stuck.complete and self._finals_are_dead():
            return self._home(self.stuck, self.stuck.dead(), _STUBBORN)
        graph = self.graph
        if graph.complete:
            of, count = components(graph)
            return self._home(graph, ends(graph, of, count), _EXPLORED)
        return self._limited()

    def _home(self, graph: Graph, last: list[int], method: str) -> Verdict:
        if len(last) == 1:
            return proven(method, marking=self.net.named(graph.marking(last[0])))
        markings = [self.net.named(graph.marking(state)) for state in last[:2]]
        reason = "the two markings exclude each other: no run leads from one of them to where the other leads"
        traces = [self.net.names(graph.trace(state)) for state in last[:2]]
        return violated(method, reason, traces[0], markings=markings, traces=traces)

    def _finals_are_dead(self) -> bool:
        net = self.net
        if net.finals:
            return all(net.dead(marking) for marking in net.finals)
        return all(any(place not in net.resting for place, _ in step.consumes) for step in net.steps)

    def k_safeness(self) -> Verdict:
        """The most tokens that any place ever holds: `k` in the witness."""
        graph = self.graph
        if graph.complete:
            bounds = _bounds(graph)
            most = max(bounds, default=0)
            full = {self.net.places[place]: bound for place, bound in enumerate(bounds) if bound > 1}
            return proven(_EXPLORED, k=most, places=full)
        if graph.pump is not None:
            found = self._unbounded(graph.pump)
            cover = self.cover
            if cover is not None and cover.complete:
                places = [self.net.places[place] for place, bound in enumerate(cover.bounds) if bound == float("inf")]
                return violated(found.method, found.reason, found.trace, **found.witness, unbounded=places)
            return found
        bounds = [bound for bound in self.invariant_bounds if bound is not None]
        if len(bounds) == len(self.net.places) and max(bounds) == max(self.net.initial):
            return proven(_INVARIANTS, k=max(bounds))
        return self._limited()

    def _limited(self) -> Verdict:
        reason = self.graph.stopped or "the net has infinitely many markings, and what is known of them does not decide"
        return unknown(_EXPLORED, reason)


def _bounds(graph: Graph) -> list[int]:
    """The most tokens of each place over all markings."""
    if graph.packing.safe:
        union = 0
        for packed in graph.packed:
            union |= packed
        return list(graph.packing.unpack(union))
    bounds = list(graph.marking(0))
    for state in range(len(graph)):
        for place, tokens in enumerate(graph.marking(state)):
            if tokens > bounds[place]:
                bounds[place] = tokens
    return bounds


PROPERTIES: dict[str, Callable[[Behaviour], Verdict]] = {
    "soundness": lambda behaviour: behaviour.soundness,
    "boundedness": Behaviour.boundedness,
    "deadlock_freedom": Behaviour.deadlock_freedom,
    "dead_transitions": Behaviour.dead_transitions,
    "k_safeness": Behaviour.k_safeness,
    "liveness": Behaviour.liveness,
    "home_markings": Behaviour.home_markings,
}
