"""Where the nodes of a drawing lie and which way its edges go: layers from left to right.

The library does the layout (Sugiyama's: layers, few crossings, straight long edges). It wants a graph without cycles,
and ends the whole process where it gets another; so edges that lead back, as seen from where tokens lie at the
beginning, are turned round before and turned back after.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fast_sugiyama import from_edges

Point = tuple[float, float]
Edge = tuple[int, int]

_BEND = 0.45
"""How much room a passing edge takes, where a node takes 1."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Layer and row of each node, both from 0, and the points that each edge passes on its way, its ends included."""

    points: dict[int, Point]
    ways: dict[Edge, tuple[Point, ...]]
    layers: int
    rows: float


def layered(count: int, edges: Iterable[Edge], first: Sequence[int]) -> Layout:
    """A layout of `count` nodes, with the nodes `first` as far to the left as the edges allow."""
    wanted = [edge for edge in dict.fromkeys(edges) if edge[0] != edge[1]]
    back = _leading_back(count, wanted, first)
    forward = list(dict.fromkeys((b, a) if (a, b) in back else (a, b) for a, b in wanted))
    points: dict[int, Point] = {}
    ways: dict[Edge, tuple[Point, ...]] = {}
    top, layers = 0.0, 0
    for part in _connected(forward):
        found, passed = _drawn(part)
        points |= {node: (x, y + top) for node, (x, y) in found.items()}
        ways |= {edge: tuple((x, y + top) for x, y in way) for edge, way in passed.items()}
        top += max(y for way in (*passed.values(), tuple(found.values())) for _, y in way) + 1
        layers = max(layers, round(max(x for x, _ in found.values())) + 1)
    for node in range(count):
        if node not in points:
            points[node] = (0.0, top)
            top += 1
            layers = max(layers, 1)
    for edge in wanted:
        if edge in back:
            ways[edge] = tuple(reversed(ways[edge[1], edge[0]]))
    return Layout(points, {edge: ways[edge] for edge in wanted}, layers, max(top, 1.0))


def _drawn(edges: Sequence[Edge]) -> tuple[dict[int, Point], dict[Edge, tuple[Point, ...]]]:
    """The points of the nodes of a connected graph without cycles, and the ways of its edges.

    The library numbers the bends of edges after the nodes, so the nodes that it sees are numbered without gaps.
    """
    seen = sorted({node for edge in edges for node in edge})
    number = {node: index for index, node in enumerate(seen)}
    [(positions, _, height, chains)] = from_edges(
        [(number[source], number[target]) for source, target in edges],
        vertex_spacing=1,
        dummy_vertices=True,
        dummy_size=_BEND,
        check_layout=False,
    )
    left = min(x for _, (x, _) in positions)
    found: dict[int, Point] = {int(node): (height - y, x - left) for node, (x, y) in positions}
    following: dict[int, list[int]] = {}
    for source, target in chains or ():
        following.setdefault(int(source), []).append(int(target))
    ways: dict[Edge, tuple[Point, ...]] = {}
    for source in range(len(seen)):
        for step in following.get(source, ()):
            chain = [source, step]
            while chain[-1] >= len(seen):
                chain.append(following[chain[-1]][0])
            ways[seen[source], seen[chain[-1]]] = tuple(found[node] for node in chain)
    return {node: found[index] for index, node in enumerate(seen)}, ways


def _connected(edges: Sequence[Edge]) -> list[list[Edge]]:
    """The edges by the connected part of the graph that they lie in."""
    leader: dict[int, int] = {}

    def of(node: int) -> int:
        while leader.setdefault(node, node) != node:
            leader[node] = leader[leader[node]]
            node = leader[node]
        return node

    for source, target in edges:
        leader[of(source)] = of(target)
    parts: dict[int, list[Edge]] = {}
    for edge in edges:
        parts.setdefault(of(edge[0]), []).append(edge)
    return list(parts.values())


def _leading_back(count: int, edges: Sequence[Edge], first: Sequence[int]) -> set[Edge]:
    """Edges that close a cycle in a walk in depth from `first`, then from nodes that no edge leads to, then others."""
    following: list[list[int]] = [[] for _ in range(count)]
    entered = bytearray(count)
    for source, target in edges:
        following[source].append(target)
        entered[target] = 1
    order = [*first, *(node for node in range(count) if not entered[node]), *range(count)]
    state = bytearray(count)
    back: set[Edge] = set()
    for root in order:
        if state[root]:
            continue
        state[root] = 1
        work = [(root, iter(following[root]))]
        while work:
            node, rest = work[-1]
            target = next(rest, None)
            if target is None:
                state[node] = 2
                work.pop()
            elif state[target] == 1:
                back.add((node, target))
            elif not state[target]:
                state[target] = 1
                work.append((target, iter(following[target])))
    return back
