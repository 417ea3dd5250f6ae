"""What the shape of a reachability graph says: what leads where, and where a run ends up for good."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import replace

from circuit.net.analysis.exploration import Graph


def leading_to(graph: Graph, goals: Iterable[int]) -> bytearray:
    """For each state 1 where a goal can be reached from it, else 0. The graph must be complete."""
    count = len(graph)
    offsets, targets = graph.offsets, graph.targets
    begins = array("Q", bytes(8 * (count + 1)))
    for target in targets:
        begins[target + 1] += 1
    for state in range(count):
        begins[state + 1] += begins[state]
    at = array("Q", begins)
    sources = array("I", bytes(4 * len(targets)))
    for state in range(count):
        for edge in range(offsets[state], offsets[state + 1]):
            target = targets[edge]
            sources[at[target]] = state
            at[target] += 1
    found = bytearray(count)
    pending = list(goals)
    for goal in pending:
        found[goal] = 1
    while pending:
        state = pending.pop()
        for source in sources[begins[state] : begins[state + 1]]:
            if not found[source]:
                found[source] = 1
                pending.append(source)
    return found


def components(graph: Graph) -> tuple[array[int], int]:
    """For each state the number of its strongly connected component, and how many there are (Tarjan's algorithm).

    A component has a smaller number than those from which it can be reached. The graph must be complete.
    """
    count = len(graph)
    offsets, targets = graph.offsets, graph.targets
    order = array("I", bytes(4 * count))
    low = array("I", bytes(4 * count))
    of = array("q", [-1]) * count
    stack: list[int] = []
    number, found = 1, 0
    work: list[tuple[int, int]] = []
    for root in range(count):
        if order[root]:
            continue
        work.append((root, offsets[root]))
        order[root] = low[root] = number
        number += 1
        stack.append(root)
        while work:
            state, edge = work.pop()
            last = offsets[state + 1]
            while edge < last:
                target = targets[edge]
                edge += 1
                if not order[target]:
                    work.append((state, edge))
                    state, edge, last = target, offsets[target], offsets[target + 1]
                    order[state] = low[state] = number
                    number += 1
                    stack.append(state)
                elif of[target] < 0:
                    low[state] = min(low[state], order[target])
            if low[state] == order[state]:
                while True:
                    member = stack.pop()
                    of[member] = found
                    if member == state:
                        break
                found += 1
            if work:
                above = work[-1][0]
                low[above] = min(low[above], low[state])
    return of, found


def ends(graph: Graph, of: array[int], count: int) -> list[int]:
    """The components that no run leaves, each by its state that is nearest to the initial one, nearest first."""
    leaves = bytearray(count)
    first = array("q", [-1]) * count
    for state in range(len(graph)):
        component = of[state]
        if first[component] < 0:
            first[component] = state
        if not leaves[component]:
            leaves[component] = any(of[target] != component for target in graph.successors(state))
    return sorted(first[component] for component in range(count) if not leaves[component])


def without(graph: Graph, numbers: set[int]) -> Graph:
    """The same states without the edges of these transitions. The way to each state is still that of all edges."""
    offsets, targets, labels = array("Q", [0]), array("I"), array(graph.labels.typecode)
    for state in range(graph.explored):
        for edge in range(graph.offsets[state], graph.offsets[state + 1]):
            if graph.labels[edge] not in numbers:
                targets.append(graph.targets[edge])
                labels.append(graph.labels[edge])
        offsets.append(len(targets))
    return replace(graph, offsets=offsets, targets=targets, labels=labels)
