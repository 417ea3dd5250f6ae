"""What the drawing of a net says without firing anything: free choice, workflow nets, names that nothing reaches."""

from __future__ import annotations

from collections.abc import Iterable

from circuit.net.analysis.place_net import Arcs, PlaceNet
from circuit.net.analysis.verdict import Verdict, proven, violated

_METHOD = "structure"


def free_choice(net: PlaceNet) -> Verdict:
    """Whether transitions that compete for a place need exactly the same: then a choice is free of what else happens.

    This is the extended form (equal presets); the witness says whether the net is free-choice in the narrow sense too.
    """
    if not net.plain:
        return violated(_METHOD, "inhibitor or reset arcs or capacities make choices depend on other places")
    first: dict[int, int] = {}
    for number, step in enumerate(net.steps):
        for place, _ in step.consumes:
            other = first.setdefault(place, number)
            if net.steps[other].consumes != step.consumes:
                names = [net.steps[other].name, step.name]
                reason = (
                    f"{names[0]} and {names[1]} compete for {net.places[place]} and need different things beside it"
                )
                return violated(_METHOD, reason, transitions=names, place=net.places[place])
    sharing = [step.consumes for step in net.steps if len(step.consumes) > 1]
    narrow = len(set(sharing)) == len(sharing)
    return proven(_METHOD, narrow=narrow)


def workflow_net(net: PlaceNet) -> Verdict:
    """Whether the net has one first and one last place, and each node lies on a way from the first to the last."""
    entered = {place for step in net.steps for place, _ in step.produces}
    left = {place for step in net.steps for place, _ in step.consumes}
    sources = [place for place in range(len(net.places)) if place not in entered]
    sinks = [place for place in range(len(net.places)) if place not in left]
    if len(sources) != 1 or len(sinks) != 1:
        counts = f"{_count(len(sources), 'first place')} and {_count(len(sinks), 'last place')}"
        reason = f"it has {counts}; one of each is needed"
        return violated(_METHOD, reason, first=_names(net, sources), last=_names(net, sinks))
    forward = _connected(net, sources[0], forward=True)
    backward = _connected(net, sinks[0], forward=False)
    off = [name for name in _nodes(net) if name not in forward or name not in backward]
    if off:
        names = [name for _, name in off]
        reason = f"{_some(names)} {'lies' if len(off) == 1 else 'lie'} on no way from the first place to the last"
        return violated(_METHOD, reason, nodes=names)
    return proven(_METHOD, first=net.places[sources[0]], last=net.places[sinks[0]])


def reachable_names(net: PlaceNet) -> Verdict:
    """Whether each place can get a token and each transition can fire, if only arcs and not numbers counted."""
    marked = {place for place, tokens in enumerate(net.initial) if tokens}
    pending = [number for number, limits in enumerate(net.limits) if all(limit > 0 for _, limit in limits)]
    fired: set[int] = set()
    changed = True
    while changed:
        changed = False
        rest: list[int] = []
        for number in pending:
            step = net.steps[number]
            if all(place in marked for place, _ in step.consumes):
                fired.add(number)
                marked |= {place for place, _ in step.produces}
                changed = True
            else:
                rest.append(number)
        pending = rest
    places = [net.places[place] for place in range(len(net.places)) if place not in marked]
    transitions = [step.name for number, step in enumerate(net.steps) if number not in fired]
    if places or transitions:
        reason = f"nothing leads to {_some([*places, *transitions])}"
        return violated(_METHOD, reason, places=places, transitions=transitions)
    return proven(_METHOD)


def _connected(net: PlaceNet, start: int, *, forward: bool) -> set[tuple[str, str]]:
    """The nodes on the ways from (or to) a place."""
    by_place: list[list[int]] = [[] for _ in net.places]
    for number, step in enumerate(net.steps):
        for place, _ in step.consumes if forward else step.produces:
            by_place[place].append(number)
    places, steps, pending = {start}, set[int](), [start]
    while pending:
        for number in by_place[pending.pop()]:
            if number not in steps:
                steps.add(number)
                ahead: Arcs = net.steps[number].produces if forward else net.steps[number].consumes
                new = {place for place, _ in ahead} - places
                places |= new
                pending.extend(new)
    return {("place", net.places[place]) for place in places} | {("step", net.steps[number].name) for number in steps}


def _nodes(net: PlaceNet) -> list[tuple[str, str]]:
    return [("place", name) for name in net.places] + [("step", step.name) for step in net.steps]


def _names(net: PlaceNet, places: Iterable[int]) -> list[str]:
    return [net.places[place] for place in places]


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
