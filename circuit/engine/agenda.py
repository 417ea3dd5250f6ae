"""Which automatic transition of a case fires next, looked at again only where something changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from circuit.net.binding import Binding, Blocked, first_binding
from circuit.net.marking import Marking
from circuit.net.structure import Net, Transition


class Agenda:
    """Keeps the first binding of each automatic transition until one of its places changes.

    A guard that reads `case` (the counts of firings) may change its mind without any token moving: such transitions
    are looked at again after every firing.
    """

    def __init__(self, net: Net) -> None:
        self._net = net
        self._stale: set[str] = set(net.ranks)
        self._counting = frozenset(name for name in net.ranks if counts_firings(net.transitions[name]))
        self._found: dict[str, Binding] = {}

    def changed(self, places: Iterable[str]) -> None:
        """Tokens came, went or were reserved in these places."""
        touching = self._net.touching
        for place in places:
            for name in touching[place]:
                if name in self._net.ranks:
                    self._found.pop(name, None)
                    self._stale.add(name)

    def counted(self) -> None:
        """A transition fired: guards that count firings may decide otherwise now."""
        for name in self._counting:
            self._found.pop(name, None)
            self._stale.add(name)

    def everything(self) -> None:
        """Look at every transition again: what blocked one may be gone."""
        self._found.clear()
        self._stale |= self._net.ranks.keys()

    def next(self, marking: Marking, case: Mapping[str, Any], now: datetime, blocked: Blocked) -> Binding | None:
        """The binding that fires next, or None if nothing is enabled."""
        net = self._net
        for name in self._stale:
            binding = first_binding(net, marking, name, case, now, blocked=blocked)
            if binding is not None:
                self._found[name] = binding
        self._stale.clear()
        if not self._found:
            return None
        if len(self._found) == 1:
            return next(iter(self._found.values()))
        ranks = net.ranks
        return min(
            self._found.values(), key=lambda binding: (ranks[binding.transition], binding.numbers, binding.transition)
        )


def counts_firings(transition: Transition) -> bool:
    """Whether the guard of `transition` reads `case`, and so may change its mind without any token moving."""
    return transition.guard is not None and "case" in transition.guard.needs
