"""Finds runs of immediate firings that only repeat themselves.

Immediate firings are pure: if a case comes back to a marking that it had in the same run, with the same counts in
every guard that counts, it will come back for ever.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from circuit.net.marking import Marking
from circuit.net.structure import Net

PATIENCE = 100
"""Immediate firings in one run before markings are compared: most runs are short, and comparing costs."""


class LivelockWatch:
    """Remembers the markings of one run of immediate firings."""

    def __init__(self, net: Net) -> None:
        self._counting = bool(net.counting)
        self._length = 0
        self._seen: set[int] = set()

    def begin(self) -> None:
        """A new run begins: something from outside came, or an action ended."""
        self._length = 0
        self._seen.clear()

    def repeats(self, marking: Marking, fired: Mapping[str, int]) -> bool:
        """Whether this run had this marking before. Token ids do not count, nor do versions: guards cannot see them
        grow, and a loop gives new ones each time round."""
        self._length += 1
        if self._length < PATIENCE:
            return False
        tokens = sorted((token.place, orjson.dumps([token.data, token.metadata])) for token in marking.all())
        state = hash((tuple(tokens), tuple(fired.values()) if self._counting else ()))
        if state in self._seen:
            return True
        self._seen.add(state)
        return False
