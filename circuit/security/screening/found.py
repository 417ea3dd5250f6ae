"""What is looked for in texts from outside, and what is done about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from circuit.value import dataclass

INVISIBLE = "invisible_characters"
INSTRUCTIONS = "injected_instructions"
TOKENS = "control_tokens"
KINDS: tuple[str, ...] = (INVISIBLE, INSTRUCTIONS, TOKENS)
"""The kinds of what is found, in the order in which one of them refuses a text."""
ACTIONS = ("allow", "warn", "refuse")
"""What can be done about a kind: nothing; make it harmless and tell of it; refuse what holds it."""
DEFAULT = "warn"


@dataclass(frozen=True, slots=True)
class Found:
    """One thing in a text: its kind, where it is (in characters), how many of it there are, and its words. `way` says
    how it was hidden, if it was."""

    kind: str
    start: int
    end: int
    words: str
    count: int = 1
    way: str = ""


class Screening:
    """What is done about each kind. What is not said is what `other` does, and at last `warn`."""

    __slots__ = ("_actions",)

    def __init__(self, said: Mapping[str, str] | None = None, other: Screening | None = None) -> None:
        self._actions: dict[str, str] = dict.fromkeys(KINDS, DEFAULT) if other is None else dict(other.actions)
        self._actions.update(said or {})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Screening) and self._actions == other._actions

    def __hash__(self) -> int:
        return hash(tuple(self._actions.values()))

    def __repr__(self) -> str:
        return f"Screening({dict(self._actions)})"

    @property
    def actions(self) -> Mapping[str, str]:
        """The action for each kind."""
        return self._actions

    def __getitem__(self, kind: str) -> str:
        return self._actions[kind]

    @property
    def sees(self) -> frozenset[str]:
        """The kinds about which something is done."""
        return frozenset(kind for kind, action in self._actions.items() if action != "allow")

    def refused(self, kinds: Mapping[str, Any]) -> str | None:
        """The first of `kinds` that is refused, if one is."""
        return next((kind for kind in KINDS if kind in kinds and self._actions[kind] == "refuse"), None)


class Screener:
    """What a deployment does about each kind where no workflow and no agent says, and how often what was found."""

    def __init__(self, screening: Screening | None = None) -> None:
        self.screening = screening or Screening()
        self.counts: Counter[tuple[str, str]] = Counter()

    def count(self, kind: str, action: str, times: int) -> None:
        self.counts[kind, action] += times
