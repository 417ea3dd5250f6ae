"""Finds runs of immediate firings that only repeat themselves.

Immediate firings are pure: if a case comes back to a marking that it had in the same run, with the same counts in
every guard that counts, it will come back for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import orjson

from circuit.net.marking import Marking, Token
from circuit.net.structure import Net

PATIENCE = 100
"""Immediate firings in one run before markings are compared: most runs are short, and comparing costs."""


class LivelockWatch:
    """Remembers the markings of one run of immediate firings, each as the sum of what its tokens weigh, so that a
    firing costs what it moves and not what lies in the case."""

    def __init__(self, net: Net) -> None:
        self._counting = bool(net.counting)
        self._length = 0
        self._seen: set[tuple[int, tuple[int, ...]]] = set()
        self._weight: int | None = None

    def begin(self) -> None:
        """A new run begins: something from outside came, or an action ended."""
        self._length = 0
        self._seen.clear()
        self._weight = None

    def repeats(self, marking: Marking, fired: Mapping[str, int]) -> bool:
        """Whether this run had this marking before. Token ids do not count, nor do versions: guards cannot see them
        grow, and a loop gives new ones each time round."""
        self._length += 1
        if self._length < PATIENCE:
            return False
        if self._weight is None:
            self._weight = _weight_of(marking.all())
        state = (self._weight, tuple(fired.values()) if self._counting else ())
        if state in self._seen:
            return True
        self._seen.add(state)
        return False

    def moved(self, taken: Iterable[Token], made: Iterable[Token]) -> None:
        """A firing of the run took these tokens and made those."""
        if self._weight is not None:
            self._weight += _weight_of(made) - _weight_of(taken)

    def forget(self) -> None:
        """The marking may have changed in another way: it is weighed anew."""
        self._weight = None


def _weight_of(tokens: Iterable[Token]) -> int:
    # The hash of one string of bytes: that of a tuple is made of its parts' so simply that sums of it meet.
    return sum(hash(orjson.dumps([token.place, token.data, token.metadata])) for token in tokens)
