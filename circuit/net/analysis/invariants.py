"""Linear algebra over whole numbers: invariants of places and of transitions, and the rank of the incidence matrix.

A place invariant weighs places so that no transition changes the weighted sum of tokens; where all weights are at least
0, it bounds the places in it. A transition invariant counts transitions so that firing them so often changes nothing.
Resets have no place in this: with them there are no invariants here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, lcm

from circuit.net.analysis.place_net import PlaceNet

Row = dict[int, int]
"""A sparse vector."""

_MOST_SEMIFLOWS = 1_500
_MOST_WORK = 2_000_000


@dataclass(frozen=True, slots=True)
class Semiflows:
    """The smallest invariants without negative weights; `complete` says that these are all."""

    rows: list[Row]
    complete: bool

    def covered(self) -> set[int]:
        """The places or transitions that have a weight in one of them."""
        return {index for row in self.rows for index in row}


def incidence(net: PlaceNet) -> list[Row]:
    """For each place, by how much each transition changes it."""
    rows: list[Row] = [{} for _ in net.places]
    for number, step in enumerate(net.steps):
        for place, weight in step.produces:
            rows[place][number] = rows[place].get(number, 0) + weight
        for place, weight in step.consumes:
            rows[place][number] = rows[place].get(number, 0) - weight
    return [{key: value for key, value in row.items() if value} for row in rows]


def transposed(rows: Sequence[Row], width: int) -> list[Row]:
    """The matrix with rows and columns exchanged."""
    columns: list[Row] = [{} for _ in range(width)]
    for index, row in enumerate(rows):
        for key, value in row.items():
            columns[key][index] = value
    return columns


def rank(rows: Sequence[Row]) -> int:
    """The exact rank of a matrix of whole numbers (elimination without fractions)."""
    pivots: dict[int, Row] = {}
    for row in rows:
        rest = dict(row)
        while rest:
            key = min(rest)
            pivot = pivots.get(key)
            if pivot is None:
                pivots[key] = _reduced(rest)
                break
            rest = _combined(rest, pivot, key)
    return len(pivots)


def nullspace(rows: Sequence[Row], width: int) -> list[Row]:
    """A basis, in whole numbers, of the vectors of `width` that all of these rows multiply to 0."""
    pivots: dict[int, Row] = {}
    for row in rows:
        rest = dict(row)
        for key in sorted(pivots):
            if key in rest:
                rest = _combined(rest, pivots[key], key)
        if rest:
            key = min(rest)
            rest = _reduced(rest)
            for other, pivot in pivots.items():
                if key in pivot:
                    pivots[other] = _combined(pivot, rest, key)
            pivots[key] = rest
    basis: list[Row] = []
    for free in range(width):
        if free in pivots:
            continue
        touched = {key: pivot for key, pivot in pivots.items() if free in pivot}
        scale = lcm(*(pivot[key] for key, pivot in touched.items())) if touched else 1
        basis.append({free: scale} | {key: -pivot[free] * (scale // pivot[key]) for key, pivot in touched.items()})
    return [_reduced(row) for row in basis]


def place_semiflows(net: PlaceNet) -> Semiflows:
    """The smallest place invariants without negative weights (Farkas' algorithm, given up where they are too many)."""
    return _semiflows(incidence(net), len(net.steps))


def transition_semiflows(net: PlaceNet) -> Semiflows:
    """The smallest transition invariants."""
    return _semiflows(transposed(incidence(net), len(net.steps)), len(net.places))


def _semiflows(matrix: list[Row], width: int) -> Semiflows:
    """All y ≥ 0 with smallest support and y·matrix = 0."""
    table: list[tuple[Row, Row]] = [(dict(row), {index: 1}) for index, row in enumerate(matrix)]
    work = 0
    columns = set(range(width))
    while columns:
        counts: dict[int, list[int]] = {}
        for row, _ in table:
            for key, value in row.items():
                if key in columns:
                    counts.setdefault(key, [0, 0])[value > 0] += 1
        if not counts:
            break
        column = min(counts, key=lambda key: counts[key][0] * counts[key][1] - sum(counts[key]))
        columns.discard(column)
        up = [entry for entry in table if entry[0].get(column, 0) > 0]
        down = [entry for entry in table if entry[0].get(column, 0) < 0]
        table = [entry for entry in table if not entry[0].get(column, 0)]
        work += len(up) * len(down) * (len(table) + 1)
        if work > _MOST_WORK or len(table) + len(up) * len(down) > _MOST_SEMIFLOWS:
            return Semiflows([], False)
        for row, weights in up:
            for other, others in down:
                a, b = row[column], -other[column]
                table.append(_normal(_sum(row, b, other, a), _sum(weights, b, others, a)))
        table = _smallest(table)
    return Semiflows([weights for row, weights in table if not row], True)


def _smallest(table: list[tuple[Row, Row]]) -> list[tuple[Row, Row]]:
    """Without those whose support holds another's."""
    kept: list[tuple[Row, Row]] = []
    for entry in sorted(table, key=lambda entry: len(entry[1])):
        support = entry[1].keys()
        if not any(other[1].keys() <= support for other in kept):
            kept.append(entry)
    return kept


def _sum(row: Row, factor: int, other: Row, times: int) -> Row:
    found = {key: value * factor for key, value in row.items()}
    for key, value in other.items():
        total = found.get(key, 0) + value * times
        if total:
            found[key] = total
        else:
            found.pop(key, None)
    return found


def _normal(row: Row, weights: Row) -> tuple[Row, Row]:
    divisor = gcd(*row.values(), *weights.values())
    if divisor > 1:
        return {key: value // divisor for key, value in row.items()}, {
            key: value // divisor for key, value in weights.items()
        }
    return row, weights


def _reduced(row: Row) -> Row:
    divisor = gcd(*row.values())
    return {key: value // divisor for key, value in row.items()} if divisor > 1 else row


def _combined(row: Row, pivot: Row, key: int) -> Row:
    """The row without `key`, by adding a multiple of the pivot."""
    a, b = row[key], pivot[key]
    divisor = gcd(a, b)
    return _reduced(_sum(row, b // divisor, pivot, -(a // divisor)))
