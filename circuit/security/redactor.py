"""Redaction: text and JSON without what rules name.

A text that comes in pieces gives the same as the whole: what could still become part of a match is held back, and that
is never more than the longest match.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import orjson

from circuit.security.folding import Folded, fold, unfinished
from circuit.security.rules import Rule

if TYPE_CHECKING:
    from circuit.security.scan import Finding, Matchers

DEEPEST = 200
"""How deep JSON may nest."""
_HUGE = 10**400
"""No number of a card or a person has so many digits, and Python writes not many more."""
LENGTHY = 4096
"""From so many characters on, JSON is redacted apart from an event loop."""
MOST_COUNTED = 200
"""Rules that are counted apart: workflows bring their own."""
OTHERS = "(others)"
"""What those count as that are more."""
MOST_KEPT = 64
"""How many sets of rules are kept compiled."""


def _not_counted(_name: str) -> None:
    """Nobody wants to know how often a rule took something out."""


class Redaction:
    """What some rules do to texts. `counted` hears the name of a rule each time that it takes something out."""

    def __init__(self, matchers: Matchers | None = None, counted: Callable[[str], None] = _not_counted) -> None:
        self._matchers = matchers
        self._counted = counted

    def __bool__(self) -> bool:
        return self._matchers is not None

    @property
    def longest(self) -> int:
        """How many characters of a text that goes on are held back at most."""
        return 0 if self._matchers is None else self._matchers.longest

    def text(self, text: str) -> str:
        """`text` without what the rules match."""
        if self._matchers is None or not text:
            return text
        folded, pieces, at = fold(_joined(text)), list[str](), 0
        for finding in self._findings(folded):
            pieces += (folded.cut(at, finding.start), finding.instead)
            at = finding.end
            self._counted(finding.rule.name)
        return "".join((*pieces, folded.text[folded.place(at) :]))

    def find(self, text: str) -> Iterator[Finding]:
        """What the rules take out of `text`, in its order."""
        folded = fold(text)
        for finding in self._findings(folded):
            yield replace(finding, start=folded.place(finding.start), end=folded.place(finding.end))

    def _findings(self, folded: Folded) -> Iterator[Finding]:
        if self._matchers is None:
            return
        from circuit.security.scan import Scan

        scan, at = Scan(self._matchers, folded), 0
        while (finding := scan.next(at)) is not None:
            yield finding
            at = finding.end

    def value(self, value: Any) -> Any:
        """`value`, which is JSON, without what the rules match in its texts, its keys and its numbers."""
        return self._value(value, 0) if self else value

    def written(self, text: str) -> str:
        """`text`, which is JSON, as JSON still, whatever stands instead of what was taken out."""
        if not self:
            return text
        try:
            said = orjson.loads(text)
        except orjson.JSONDecodeError:
            return self.text(text)
        told = self.value(said)
        return text if told == said else orjson.dumps(told).decode()

    def fields(self, fields: Mapping[str, Any], names: Collection[str] = ()) -> dict[str, Any]:
        """`fields` under their own names, with their values redacted, but those called one of `names`."""
        return {name: value if name in names else self.value(value) for name, value in fields.items()}

    def stream(self) -> TextStream | None:
        """For one text that comes in pieces; None where there are no rules."""
        return None if self._matchers is None else TextStream(self._matchers, self._counted)

    def _value(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bool) or value is None:
            return value
        if isinstance(value, int | float):
            if isinstance(value, int) and not -_HUGE < value < _HUGE:
                return value
            written = str(value)
            said = self.text(written)
            return value if said == written else said
        if depth >= DEEPEST:
            return "[nested too deep]"
        if isinstance(value, Mapping):
            return self._mapping(cast("Mapping[Any, Any]", value), depth)
        if isinstance(value, list | tuple):
            return [self._value(item, depth + 1) for item in cast("Sequence[Any]", value)]
        return value

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for name, item in value.items():
            said = unique = self.text(name) if isinstance(name, str) else name
            number = 2
            while unique in found:
                unique, number = f"{said} {number}", number + 1
            found[unique] = self._value(item, depth + 1)
        return found


class TextStream:
    """A text that comes in pieces: `feed` and `close` give what of it can be told by then."""

    def __init__(self, matchers: Matchers, counted: Callable[[str], None]) -> None:
        self._matchers = matchers
        self._counted = counted
        # The last character that was told and what is held back.
        self._last = fold("")
        self._known = 0
        self._broken = ""

    @property
    def held(self) -> int:
        """How many characters are held back, an escape of JSON counted as the one that it stands for."""
        return len(self._last.plain) - self._known + len(self._broken)

    def feed(self, text: str) -> str:
        """What can be told now that `text` is known."""
        text = _joined(self._broken + text)
        whole = len(text) - unfinished(text)
        self._broken = text[whole:]
        return self._told(text[:whole], final=False)

    def close(self) -> str:
        """The rest. A new text may begin then."""
        text, self._broken = self._broken, ""
        said = self._told(text, final=True)
        self._last, self._known = fold(""), 0
        return said

    def _told(self, text: str, *, final: bool) -> str:
        from circuit.security.scan import Scan

        whole, at = self._last + fold(text), self._known
        length = len(whole.plain)
        if at == length:
            return ""
        pieces, scan = list[str](), Scan(self._matchers, whole)
        limit = length if final else scan.unsure(at)
        while (finding := scan.next(at)) is not None and finding.start < limit:
            pieces += (whole.cut(at, finding.start), finding.instead)
            self._counted(finding.rule.name)
            at = finding.end
            if at > limit:
                limit = scan.unsure(at)
        pieces.append(whole.cut(at, limit))
        known = min(limit, 1)
        self._last, self._known = whole.behind(limit - known), known
        return "".join(pieces)


def _joined(text: str) -> str:
    """Halves of a pair that came apart are one character."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


NOTHING = Redaction()
"""Without any rules."""


class Redactor:
    """By what a process redacts: the rules of its deployment, and beside them those of workflows and agents.

    `key` makes the marks of hashes. `counts` says how often each rule took something out where, and nothing of it;
    `guard` is held while that is counted, where threads redact."""

    def __init__(
        self, rules: Sequence[Rule] = (), key: bytes | None = None, guard: AbstractContextManager[Any] | None = None
    ) -> None:
        self.rules = tuple(rules)
        self._guard = guard or nullcontext()
        self.counts: Counter[tuple[str, str]] = Counter()
        self.key = key
        self._compiled = lru_cache(maxsize=MOST_KEPT)(self._compile)

    def at(self, place: str, more: Sequence[Rule] = ()) -> Redaction:
        """What the rules for this place do, with `more` rules behind those of the deployment."""
        if not self.rules and not more:
            return NOTHING
        return self._compiled(place, tuple(more))

    def _compile(self, place: str, more: tuple[Rule, ...]) -> Redaction:
        rules = [rule for rule in dict.fromkeys((*self.rules, *more)) if place in rule.places]
        return redaction(rules, self.key, lambda name: self._count(place, name)) if rules else NOTHING

    def _count(self, place: str, name: str) -> None:
        with self._guard:
            full = len(self.counts) >= MOST_COUNTED and (place, name) not in self.counts
            self.counts[place, OTHERS if full else name] += 1


def redaction(
    rules: Sequence[Rule], key: bytes | None = None, counted: Callable[[str], None] = _not_counted
) -> Redaction:
    """What these rules do. Raises `PatternFault` where one cannot be used."""
    from circuit.security.scan import Matchers

    return Redaction(Matchers(rules, key) if rules else None, counted)


def conflicts(rules: Sequence[Rule]) -> Iterator[tuple[Rule, Rule]]:
    """Rules whose replacement the rules would change again, each with the rule that would: a text that goes through two
    doors must be what it is behind one. Raises `PatternFault`."""
    key = b"conflict"
    done = redaction(rules, key)
    for rule in rules:
        instead = rule.instead("a", key)
        for finding in done.find(instead):
            if done.text(instead) != instead:
                yield rule, finding.rule


def lengthy(value: Any) -> bool:
    """Whether so much is said in `value`, which is JSON, that it is redacted apart from an event loop."""
    left, found = LENGTHY, [value]
    while found:
        one = found.pop()
        if isinstance(one, str):
            left -= len(one)
        elif isinstance(one, Mapping):
            found += (*cast("Mapping[Any, Any]", one).keys(), *cast("Mapping[Any, Any]", one).values())
        elif isinstance(one, list | tuple):
            found += cast("Sequence[Any]", one)
        left -= 1
        if left <= 0:
            return True
    return False
