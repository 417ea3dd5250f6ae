"""The verdicts that need no firing: invariants, siphons and traps."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from circuit.net.analysis.invariants import Row, Semiflows, place_semiflows, transition_semiflows
from circuit.net.analysis.place_net import PlaceNet, Step
from circuit.net.analysis.shape import workflow_net
from circuit.net.analysis.siphons import largest_trap, unmarked_siphon
from circuit.net.analysis.verdict import Verdict, proven, unknown, violated

_METHOD = "linear algebra"
_SIPHONS = "siphons and traps"
_SHOWN = 50
_LARGEST = 2_000


class Algebra:
    """The structural verdicts of one net. A workflow net is looked at with its end joined to its beginning: open, it
    has no invariants of transitions, and its first place is a siphon that empties."""

    def __init__(self, net: PlaceNet) -> None:
        self.net = net

    @cached_property
    def closed(self) -> PlaceNet:
        shape = workflow_net(self.net)
        if not shape.proven:
            return self.net
        first, last = (self.net.places.index(shape.witness[key]) for key in ("first", "last"))
        return replace(self.net, steps=(*self.net.steps, Step("(again)", ((last, 1),), ((first, 1),))))

    def place_invariants(self) -> Verdict:
        """Whether each place has a weight in an invariant without negative weights, which bounds it."""
        if any(step.resets for step in self.net.steps):
            return unknown(_METHOD, "reset arcs leave nothing invariant")
        if self._large():
            return unknown(_METHOD, f"the net has more than {_LARGEST:,} nodes")
        found = place_semiflows(self.closed)
        return self._verdict(found, self.net.places, "place")

    def transition_invariants(self) -> Verdict:
        """Whether each transition has a weight in an invariant: it can be part of what changes nothing in all."""
        if any(step.resets for step in self.net.steps):
            return unknown(_METHOD, "reset arcs leave nothing invariant")
        if self._large():
            return unknown(_METHOD, f"the net has more than {_LARGEST:,} nodes")
        found = transition_semiflows(self.closed)
        return self._verdict(found, tuple(step.name for step in self.closed.steps), "transition")

    def _verdict(self, found: Semiflows, names: tuple[str, ...], what: str) -> Verdict:
        if not found.complete:
            return unknown(_METHOD, f"there are too many {what} invariants to list them")
        rows = [_named(row, names) for row in found.rows[:_SHOWN]]
        free = [name for index, name in enumerate(names) if index not in found.covered()]
        if free:
            shown = ", ".join(free[:3]) + (f" and {len(free) - 3} more" if len(free) > 3 else "")
            return violated(
                _METHOD, f"no invariant covers {shown}", invariants=rows, count=len(found.rows), uncovered=free
            )
        return proven(_METHOD, invariants=rows, count=len(found.rows))

    def siphons(self) -> Verdict:
        """Whether each siphon holds a trap that is marked at the beginning."""
        net = self.closed
        if self._large():
            return unknown(_SIPHONS, f"the net has more than {_LARGEST:,} nodes")
        if any(step.inhibitors or step.resets for step in net.steps):
            return unknown(_SIPHONS, "inhibitor and reset arcs are beyond siphons and traps")
        siphon, whole = unmarked_siphon(net)
        if siphon is not None:
            names = [net.places[place] for place in sorted(siphon)]
            trap = [net.places[place] for place in sorted(largest_trap(net, siphon))]
            reason = f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}: once empty, it stays empty"
            return violated(_SIPHONS, reason, siphon=names, trap=trap)
        return proven(_SIPHONS) if whole else unknown(_SIPHONS, "there are too many siphons to look at all of them")

    def _large(self) -> bool:
        return len(self.net.places) + len(self.net.steps) > _LARGEST


def _named(row: Row, names: tuple[str, ...]) -> dict[str, int]:
    return {names[index]: weight for index, weight in sorted(row.items())}
