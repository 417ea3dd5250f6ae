"""The rank theorem: whether a free-choice workflow net is sound, by linear algebra alone, however many markings it has.

A free-choice net is well-formed (live and bounded for some marking) exactly where it is connected, has a positive
invariant of places and one of transitions, and the rank of its incidence matrix is one less than its number of
clusters (Campos, Chiola, Silva; Desel, Esparza). A well-formed one is live and bounded for a marking exactly where that
leaves no siphon empty. A workflow net is sound exactly where it is live and bounded once its end is joined to its
beginning.

In a well-formed net the two invariants can be chosen equal inside each cluster, which leaves one unknown a cluster.
"""

from __future__ import annotations

from dataclasses import replace

from circuit.net.analysis.invariants import Row, incidence, nullspace, rank
from circuit.net.analysis.place_net import PlaceNet, Step
from circuit.net.analysis.shape import free_choice, workflow_net
from circuit.net.analysis.siphons import largest_siphon


def sound_by_rank(net: PlaceNet) -> bool:
    """Whether the theorem shows that `net` is sound. That it does not is no proof of the contrary."""
    shape = workflow_net(net)
    if not shape.proven or not _ordinary(net) or not free_choice(net).proven:
        return False
    first, last = net.places.index(shape.witness["first"]), net.places.index(shape.witness["last"])
    start = tuple(int(place == first) for place in range(len(net.places)))
    end = tuple(int(place == last) for place in range(len(net.places)))
    if net.initial != start or (net.finals and end not in net.finals) or (not net.finals and last not in net.resting):
        return False
    closed = replace(net, steps=(*net.steps, Step("again", ((last, 1),), ((first, 1),))))
    return _well_formed(closed) and not largest_siphon(closed, [p for p, tokens in enumerate(start) if not tokens])


def _ordinary(net: PlaceNet) -> bool:
    return all(weight == 1 for step in net.steps for _, weight in (*step.consumes, *step.produces))


def _well_formed(net: PlaceNet) -> bool:
    clusters: dict[tuple[tuple[int, int], ...], int] = {}
    for step in net.steps:
        clusters.setdefault(step.consumes, len(clusters))
    of_step = [clusters[step.consumes] for step in net.steps]
    of_place = {place: cluster for preset, cluster in clusters.items() for place, _ in preset}
    if len(of_place) < len(net.places) or any(not step.consumes or not step.produces for step in net.steps):
        return False
    matrix = incidence(net)
    flow = [_gathered(row, of_step) for row in matrix]
    weights: list[Row] = [{} for _ in net.steps]
    for place, row in enumerate(matrix):
        for number, change in row.items():
            cluster = of_place[place]
            weights[number][cluster] = weights[number].get(cluster, 0) + change
    return rank(matrix) == len(clusters) - 1 and _positive(flow, len(clusters)) and _positive(weights, len(clusters))


def _gathered(row: Row, of_step: list[int]) -> Row:
    found: Row = {}
    for number, change in row.items():
        found[of_step[number]] = found.get(of_step[number], 0) + change
    return found


def _positive(rows: list[Row], width: int) -> bool:
    """Whether the equations have one solution up to a factor, and it is positive throughout."""
    basis = nullspace([{key: value for key, value in row.items() if value} for row in rows], width)
    if len(basis) != 1 or len(basis[0]) != width:
        return False
    values = basis[0].values()
    return all(value > 0 for value in values) or all(value < 0 for value in values)
