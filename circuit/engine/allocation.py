"""Who of those that wait gets what of the shared places of a workflow: a pure decision, in the order of asking.

All or nothing: a firing that needs several resources gets all of them at once, so that no two wait for each other.
And nobody is passed over: once one cannot be served, what it needs is kept for it, and those behind it get only what it
does not need.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from circuit.storage.resources import Wanted


def allocate(free: Mapping[str, int], waiting: Iterable[Wanted]) -> list[Wanted]:
    """The requests that are granted now. `free` is what is not held (less than nothing where a capacity was lowered);
    `waiting` comes in the order in which it was asked for. A place that is not in `free` has nothing."""
    left = dict(free)
    kept: set[str] = set()
    granted: list[Wanted] = []
    for request in waiting:
        fits = all(left.get(place, 0) >= amount for place, amount in request.amounts.items())
        if fits and kept.isdisjoint(request.amounts):
            for place, amount in request.amounts.items():
                left[place] -= amount
            granted.append(request)
        else:
            kept.update(request.amounts)
    return granted
