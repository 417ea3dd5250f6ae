"""Looks through texts for what rules take out of them.

Of what several rules match, that counts which begins first, and of what begins at one place the earlier rule's. What is
known of the end of a text that goes on is where it begins that something could still become part of a match.

All rules are looked for at once, and which one it is that matches is asked of half of them, of half of these, and so
on: what a match costs hardly grows with the number of rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from circuit.security.folding import Folded
from circuit.security.pattern import Pattern, either, ending, matcher
from circuit.security.rules import Rule

_LARGEST_PROGRAM = 100_000
"""Of patterns that are looked for together, in RE2's instructions: what is larger would drive out of memory what RE2
has worked out."""
_NOWHERE = (-1, -1)
_MOST_KNOWN = 1_000
"""Matches of which it is remembered which rule they are of."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule takes out of a text: from `start` up to `end`, and what stands there instead. A scan says places in
    the text as it is compared."""

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
        sizes = [one.programsize for one in self._matchers]
        self.groups = [_Group(patterns[begin:end], begin) for begin, end in _parts(sizes)]

    def candidate(self, rule: int, content: bytes, at: int) -> Any:
        """The first match of the pattern of a rule."""
        return self._matchers[rule].search(content, at)

    def at(self, rule: int, content: bytes, at: int) -> Any:
        """What the pattern of a rule matches right at this place."""
        return self._matchers[rule].match(content, at)

    def unsure(self, content: bytes, at: int) -> int:
        """From where on the end of `content` could become part of a match, behind `at`."""
        return min(int(group.ending.search(content, at).start()) for group in self.groups)


class _Group:
    """Patterns that are looked for together: those of the rules from `begin` on."""

    def __init__(self, patterns: Sequence[Pattern], begin: int) -> None:
        self._patterns = patterns
        self.begin = begin
        self._either = either(patterns)

    @cached_property
    def ending(self) -> Any:
        """What finds where the end of a text begins that could become a match of one."""
        return ending(self._patterns)

    @cached_property
    def _halves(self) -> tuple[_Group, _Group]:
        middle = len(self._patterns) // 2
        return _Group(self._patterns[:middle], self.begin), _Group(self._patterns[middle:], self.begin + middle)

    def search(self, content: bytes, at: int) -> tuple[int, int] | None:
        """Where the first match of any pattern begins and ends."""
        found = self._either.search(content, at)
        return None if found is None else found.span()

    def which(self, content: bytes, at: int) -> int:
        """The first rule that matches at this place, where one does."""
        group = self
        while len(group._patterns) > 1:
            first, second = group._halves
            group = second if first._either.match(content, at) is None else first
        return group.begin


def _parts(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Programs of these sizes, one behind the other, as those that are looked for together."""
    parts, begin, together = list[tuple[int, int]](), 0, 0
    for index, size in enumerate(sizes):
        if index > begin and together + size > _LARGEST_PROGRAM:
            parts.append((begin, index))
            begin, together = index, 0
        together += size
    return [*parts, (begin, len(sizes))]


def compiled(rule: Rule) -> Pattern:
    """The pattern of a rule. Raises `PatternFault`."""
    kind = rule.known
    if kind is None:
        return Pattern.parse(rule.pattern or "")
    return Pattern.parse(kind.pattern, longest=kind.longest)


@dataclass(slots=True)
class Scan:
    """One text that is looked through, for each rule from where it looked last."""

    matchers: Matchers
    folded: Folded
    _text: str = field(init=False)
    _content: bytes = field(init=False)
    _offsets: _Offsets = field(init=False)
    _ahead: list[tuple[int, int] | None] = field(init=False)
    _known: dict[tuple[bytes, bool, bool], int] = field(init=False, default_factory=dict)
    _found: list[Finding | None] = field(init=False)
    _looked: list[bool] = field(init=False)

    def __post_init__(self) -> None:
        self._text = self.folded.plain
        self._content = self._text.encode()
        self._offsets = _Offsets(self._text, self._content)
        self._ahead = [_NOWHERE] * len(self.matchers.groups)
        self._found = [None] * len(self.matchers.rules)
        self._looked = [False] * len(self.matchers.rules)

    def next(self, at: int) -> Finding | None:
        """What is taken out first, from `at` on."""
        first = self._first(self._offsets.byte(at))
        if first is None:
            return None
        (start, end), group = first
        here, index = self._offsets.character(start), self._which(group, start, end)
        counts = self._counts(self.matchers.rules[index], here, self._offsets.character(end))
        while counts <= 0:
            index += 1
            if index == len(self.matchers.rules):
                return self._farther(at, here)
            match = self.matchers.at(index, self._content, start)
            if match is not None:
                counts = self._counts(self.matchers.rules[index], here, self._offsets.character(match.end()))
        return self._finding(self.matchers.rules[index], here, here + counts)

    def _first(self, at: int) -> tuple[tuple[int, int], _Group] | None:
        """Where the first match of any pattern begins and ends, from the byte `at` on, and of which group it is."""
        best: tuple[tuple[int, int], _Group] | None = None
        for index, group in enumerate(self.matchers.groups):
            span = self._ahead[index]
            if span is not None and span[0] < at:
                span = self._ahead[index] = group.search(self._content, at)
            if span is not None and (best is None or span[0] < best[0][0]):
                best = span, group
        return best

    def _which(self, group: _Group, start: int, end: int) -> int:
        """The first rule that matches there. It is the same for equal matches between equal neighbours: a rule sees no
        farther."""
        content = self._content
        seen = content[max(start - 1, 0) : end + 1], start == 0, end == len(content)
        known = self._known.get(seen)
        if known is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            known = self._known[seen] = group.which(content, start)
        return known

    def _farther(self, at: int, here: int) -> Finding | None:
        """What is taken out first where the first that matches, `here`, does not count."""
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
        while at < len(self._text):
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
        text = self._text
        return check(text[start:end], text[max(start - 1, 0) : start], text[end : end + 1])

    def _finding(self, rule: Rule, start: int, end: int) -> Finding:
        return Finding(rule, start, end, rule.instead(self.folded.cut(start, end), self.matchers.key))


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
