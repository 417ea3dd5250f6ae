"""Looks through texts for what rules take out of them.

Of what several rules match, that counts which begins first, and of what begins at one place the earlier rule's. What is
known of the end of a text that goes on is where it begins that something could still become part of a match.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from circuit.security.pattern import Pattern, either, ending, matcher
from circuit.security.rules import Rule

_LARGEST_PROGRAM = 100_000
"""Of patterns that are looked for together, in RE2's instructions."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule takes out of a text: from `start` up to `end`, and what stands there instead."""

    rule: Rule
    start: int
    end: int
    instead: str


class Matchers:
    """Rules, compiled. Raises `PatternFault` where one cannot be used. `longest` is how much of a text that goes on
    may have to be held back."""

    def __init__(self, rules: Sequence[Rule], key: bytes | None) -> None:
        self.rules = tuple(rules)
        self.key = key
        patterns = [compiled(rule) for rule in rules]
        self.longest = max(pattern.longest for pattern in patterns)
        self._matchers = [matcher(pattern.whole) for pattern in patterns]
        # Small ones are looked for together. What is large would drive out of memory what RE2 has worked out.
        together = len(patterns) > 1 and sum(one.programsize for one in self._matchers) <= _LARGEST_PROGRAM
        self._either = either(patterns) if together else None
        self._endings = [ending(patterns)] if together else [ending([pattern]) for pattern in patterns]

    def candidate(self, rule: int, content: bytes, at: int) -> Any:
        """The first match of the pattern of a rule."""
        return self._matchers[rule].search(content, at)

    def at(self, rule: int, content: bytes, at: int) -> Any:
        """What the pattern of a rule matches right at this place."""
        return self._matchers[rule].match(content, at)

    def first(self, content: bytes, at: int) -> int | None:
        """Where the first match of any pattern begins: `at`, where that is not known, None, where there is none."""
        if self._either is None:
            return at
        found = self._either.search(content, at)
        return None if found is None else int(found.start())

    def unsure(self, content: bytes, at: int) -> int:
        """From where on the end of `content` could become part of a match, behind `at`."""
        return min(int(one.search(content, at).start()) for one in self._endings)


def compiled(rule: Rule) -> Pattern:
    """The pattern of a rule. Raises `PatternFault`."""
    kind = rule.known
    if kind is None:
        return Pattern.parse(rule.pattern or "")
    return Pattern.parse(kind.pattern, longest=kind.longest)


@dataclass(slots=True)
class Scan:
    """One text that is looked through, for each rule from where it looked last; `folded` is how it is compared."""

    matchers: Matchers
    text: str
    folded: str
    _content: bytes = field(init=False)
    _offsets: _Offsets = field(init=False)
    _found: list[Finding | None] = field(init=False)
    _looked: list[bool] = field(init=False)

    def __post_init__(self) -> None:
        self._content = self.folded.encode()
        self._offsets = _Offsets(self.folded, self._content)
        self._found = [None] * len(self.matchers.rules)
        self._looked = [False] * len(self.matchers.rules)

    def next(self, at: int) -> Finding | None:
        """What is taken out first, from `at` on."""
        first = self.matchers.first(self._content, self._offsets.byte(at))
        if first is None:
            return None
        here = self._offsets.character(first)
        for index, rule in enumerate(self.matchers.rules):
            match = self.matchers.at(index, self._content, first)
            if match is not None:
                counts = self._counts(rule, here, self._offsets.character(match.end()))
                if counts > 0:
                    return self._finding(rule, here, here + counts)
        best: Finding | None = None
        for index, rule in enumerate(self.matchers.rules):
            found = self._found[index]
            if not self._looked[index] or (found is not None and found.start < at):
                found = self._found[index] = self._look(index, rule, here)
                self._looked[index] = True
            if found is not None and (best is None or found.start < best.start):
                best = found
        return best

    def unsure(self, at: int) -> int:
        """From where on the text could still become part of a match."""
        return self._offsets.character(self.matchers.unsure(self._content, self._offsets.byte(at)))

    def _look(self, index: int, rule: Rule, at: int) -> Finding | None:
        while at < len(self.folded):
            match = self.matchers.candidate(index, self._content, self._offsets.byte(at))
            if match is None:
                return None
            start, end = self._offsets.character(match.start()), self._offsets.character(match.end())
            counts = self._counts(rule, start, end)
            if counts > 0:
                return self._finding(rule, start, start + counts)
            at = start + max(-counts, 1)
        return None

    def _counts(self, rule: Rule, start: int, end: int) -> int:
        """How much of a candidate counts, as its kind says."""
        check = None if rule.known is None else rule.known.check
        if check is None:
            return end - start
        text = self.folded
        return check(text[start:end], text[max(start - 1, 0) : start], text[end : end + 1])

    def _finding(self, rule: Rule, start: int, end: int) -> Finding:
        return Finding(rule, start, end, rule.instead(self.text[start:end], self.matchers.key))


class _Offsets:
    """Places in a text as places in its UTF-8, and back; they are asked for in nearly their order."""

    def __init__(self, text: str, content: bytes) -> None:
        self._text, self._content = text, content
        self._plain = len(text) == len(content)
        self._known = (0, 0)

    def byte(self, character: int) -> int:
        if self._plain:
            return character
        at, byte = self._known
        if character >= at:
            byte += len(self._text[at:character].encode())
        else:
            byte -= len(self._text[character:at].encode())
        self._known = (character, byte)
        return byte

    def character(self, byte: int) -> int:
        if self._plain:
            return byte
        at, known = self._known
        if byte >= known:
            at += len(self._content[known:byte].decode())
        else:
            at -= len(self._content[byte:known].decode())
        self._known = (at, byte)
        return at
