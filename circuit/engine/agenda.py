"""Which automatic transition of a case fires next, looked at again only where something changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from circuit.net.binding import Binding, Blocked, first_binding, next_look
from circuit.net.marking import Marking
from circuit.net.structure import Net


class Agenda:
    """Keeps the first binding of each automatic transition until one of its places changes, or the counts of firings
    that its guard reads do."""

    def __init__(self, net: Net) -> None:
        self._net = net
        self._stale: set[str] = set(net.ranks)
        self._found: dict[str, Binding] = {}
        self._later: dict[str, datetime] = {}

    def changed(self, transition: str) -> None:
        """A firing of `transition` moved or reserved its tokens, or gave them back."""
        self._look_again(self._net.affects[transition])

    def counted(self) -> None:
        """A transition fired: guards that count firings may decide otherwise now."""
        if self._net.counting:
            self._look_again(self._net.counting)

    def everything(self) -> None:
        """Look at every transition again: what blocked one may be gone."""
        self._found.clear()
        self._stale |= self._net.ranks.keys()

    @property
    def due_at(self) -> datetime | None:
        """When time alone may enable a transition, as far as the last look could tell."""
        return min(self._later.values(), default=None) if self._later else None

    def next(self, marking: Marking, case: Mapping[str, Any], now: datetime, blocked: Blocked) -> Binding | None:
        """The binding that fires next, or None if nothing is enabled."""
        net = self._net
        if self._later:
            self._stale.update([name for name, at in self._later.items() if at <= now])
        for name in self._stale:
            if self._later:
                self._later.pop(name, None)
            binding = first_binding(net, marking, name, case, now, blocked=blocked)
            if binding is not None:
                self._found[name] = binding
            elif marking.delayed or net.transitions[name].timing is not None:
                at = next_look(net, marking, name, case, now, blocked)
                if at is not None:
                    self._later[name] = at
        self._stale.clear()
        if not self._found:
            return None
        if len(self._found) == 1:
            return next(iter(self._found.values()))
        ranks = net.ranks
        return min(
            self._found.values(), key=lambda binding: (ranks[binding.transition], binding.numbers, binding.transition)
        )

    def _look_again(self, names: Collection[str]) -> None:
        for name in names:
            self._found.pop(name, None)
        self._stale.update(names)
