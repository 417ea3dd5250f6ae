"""The ways that a workflow goes where actions fail for good: what only they lead to, and the net that has them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from circuit.net.structure import Net, OutputArc, Transition


def with_failures(net: Net, failing: Collection[str]) -> Net:
    """The net in which the actions of these transitions may fail for good. Once a token lies in a dead-letter place it
    is a person's turn, whatever lies elsewhere: so far, that is an end."""
    places = [
        replace(one, dead_letter=False, terminal=True, ends_case=True) if one.dead_letter else one
        for one in net.places.values()
    ]
    fails = [
        replace(
            one,
            name=f"{one.name} (fails)",
            label=one.label,
            outputs=(OutputArc(one.on_failure, sum(arc.weight for arc in one.consumes)),),
            on_failure=None,
        )
        for name in failing
        if (one := net.transitions[name]).on_failure is not None
    ]
    return Net.build(net.name, places, [*net.transitions.values(), *fails], net.complete_when)


def led_to_by_failures(net: Net, used: Sequence[Transition], tokens: Mapping[str, int]) -> tuple[set[str], set[str]]:
    """The transitions that nothing but failures leads to, and the places."""
    begun = {name for name, count in tokens.items() if count}
    plain, fed = _fed(used, begun, failing=False)
    reached, fed_by_failures = _fed(used, begun, failing=True)
    left = [one for one in used if one.name not in reached or one.name in plain]
    needed = {arc.place for one in left for arc in (*one.consumes, *one.reads)}
    return reached - plain, fed_by_failures - fed - needed


def _fed(used: Sequence[Transition], begun: set[str], *, failing: bool) -> tuple[set[str], set[str]]:
    """The transitions that may have what they need, with or without what failures lead to, and the places that may hold
    tokens."""
    reached: set[str] = set()
    fed = set(begun)
    changed = True
    while changed:
        changed = False
        for one in used:
            needs = {arc.place for arc in (*one.consumes, *one.reads) if arc.gather is None}
            if one.name in reached or not needs <= fed:
                continue
            changed = True
            reached.add(one.name)
            fed.update(arc.place for arc in one.outputs)
            if failing and one.acting and one.on_failure is not None:
                fed.add(one.on_failure)
    return reached, fed
