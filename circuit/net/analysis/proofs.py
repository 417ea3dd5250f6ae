"""All that is said of a net: one verdict a property, each with the time that it took."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from circuit.errors import InvalidRequest
from circuit.net.analysis.algebra import Algebra
from circuit.net.analysis.behaviour import PROPERTIES, Behaviour
from circuit.net.analysis.limits import Limits
from circuit.net.analysis.place_net import PlaceNet
from circuit.net.analysis.shape import free_choice, reachable_names, workflow_net
from circuit.net.analysis.verdict import Verdict, unknown

BEHAVIOURAL = tuple(PROPERTIES)
STRUCTURAL = ("reachable_names", "free_choice", "workflow_net", "siphons", "place_invariants", "transition_invariants")
EVERY = (*BEHAVIOURAL, *STRUCTURAL)


@dataclass(frozen=True, slots=True)
class Analysis:
    """The verdicts on one net, by the names of the properties."""

    net: PlaceNet
    verdicts: dict[str, Verdict]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """The verdicts as JSON, and what net they are about."""
        net = self.net
        size = {"name": net.name, "places": len(net.places), "transitions": len(net.steps)}
        size |= {"initial_marking": net.named(net.initial)}
        if net.finals:
            size |= {"final_markings": [net.named(marking) for marking in net.finals]}
        verdicts = {name: verdict.as_dict() for name, verdict in self.verdicts.items()}
        return verdicts | {"net": size, "seconds": round(self.seconds, 6)}


def analyse(net: PlaceNet, limits: Limits, only: Collection[str] = ()) -> Analysis:
    """The verdicts on `net`, on those in `only` if any are named. Time beyond the limits makes the rest unknown."""
    strange = [name for name in only if name not in EVERY]
    if strange:
        raise InvalidRequest(f"There is no property {strange[0]!r}; there are {', '.join(EVERY)}.")
    started = limits.now()
    deadline = started + limits.seconds
    behaviour, algebra = Behaviour(net, limits), Algebra(net)
    ways: dict[str, Callable[[], Verdict]] = {
        name: (lambda of=of: of(behaviour)) for name, of in PROPERTIES.items()
    } | {
        "reachable_names": lambda: reachable_names(net),
        "free_choice": lambda: free_choice(net),
        "workflow_net": lambda: workflow_net(net),
        "siphons": algebra.siphons,
        "place_invariants": algebra.place_invariants,
        "transition_invariants": algebra.transition_invariants,
    }
    verdicts: dict[str, Verdict] = {}
    wanted = [name for name in (*STRUCTURAL, *BEHAVIOURAL) if not only or name in only]
    for name in wanted:
        begun = limits.now()
        if begun >= deadline:
            verdicts[name] = unknown("none", f"the time limit of {limits.seconds:g} s is reached")
            continue
        # One that is not decided leaves half of the time to those that come after it.
        share = 1 if name == wanted[-1] else 2
        behaviour.limits = replace(limits, seconds=(deadline - begun) / share)
        verdict = ways[name]()
        verdicts[name] = verdict.timed(limits.now() - begun)
    verdicts = {name: verdicts[name] for name in EVERY if name in verdicts}
    return Analysis(net, verdicts, limits.now() - started)
