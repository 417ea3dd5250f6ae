"""Regular expressions that can be trusted with any text: RE2 runs them, in time that grows with the text alone.

They are written as Python's are, without what takes more than that (back references, looking ahead or behind), and what
they match has a greatest length, so that a stream knows how much it may have to hold back.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from typing import Any

import re2

from circuit.security.folding import foldings
from circuit.value import dataclass

LONGEST_PATTERN = 400
"""Characters of a pattern."""
LONGEST_MATCH = 300
"""Characters that what a pattern matches may have."""
LARGEST = 2_000
"""Characters and sets of characters that own patterns may have together, with each repetition written out. Where RE2
cannot do better it follows all of them at once, in some nanoseconds for each."""
_MEMORY = 32 << 20
_SMALL = 1 << 18
"""What the program of an own pattern may take: it is compiled where others wait."""

_parser: Any = importlib.import_module("re._parser")
# Whole blocks of letters: the exact classes of Unicode are hundreds of ranges each, which no repetition could afford.
_WORD = (
    r"0-9A-Za-z_\x{aa}\x{b5}\x{ba}\x{c0}-\x{d6}\x{d8}-\x{f6}\x{f8}-\x{1fff}\x{2c00}-\x{2dff}\x{3040}-\x{d7ff}"
    r"\x{f900}-\x{fdff}\x{fe70}-\x{fefe}\x{ff66}-\x{ffdc}\x{10000}-\x{1efff}\x{20000}-\x{3ffff}"
)
_SPACE = r"\s\x{0b}\x{1c}-\x{1f}\x{85}\p{Z}"
_SETS = {"DIGIT": "0-9", "WORD": _WORD, "SPACE": _SPACE}
_ANCHORS = {
    "AT_BEGINNING_STRING": r"\A",
    "AT_END_STRING": r"\z",
    "AT_BOUNDARY": r"\b",
    "AT_NON_BOUNDARY": r"\B",
}
_REFUSED = {
    "ASSERT": "looking ahead or behind",
    "ASSERT_NOT": "looking ahead or behind",
    "GROUPREF": "a back reference",
    "GROUPREF_EXISTS": "a condition on a group",
    "POSSESSIVE_REPEAT": "a possessive repetition",
    "ATOMIC_GROUP": "an atomic group",
}


class PatternFault(ValueError):
    """A regular expression that cannot be used, and why."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression for RE2: `whole` matches, and `begun` what could still become a match, both as RE2 writes
    them. `longest` is how many characters a match has at most, `size` how many the pattern has when its repetitions
    are written out."""

    whole: str
    begun: str
    longest: int
    size: int

    @classmethod
    def parse(cls, text: str, *, longest: int | None = None) -> Pattern:
        """The pattern that `text` writes; those that are known are the longer. Raises `PatternFault`."""
        if len(text) > LONGEST_PATTERN:
            raise PatternFault(f"it is longer than {LONGEST_PATTERN} characters")
        try:
            tree = _parser.parse(text)
        except (re.error, OverflowError, RecursionError) as error:
            raise PatternFault(f"it is no regular expression: {error}") from None
        return cls.of(tree, longest)

    @classmethod
    def of(cls, tree: Any, known: int | None) -> Pattern:
        """The pattern of a regular expression that Python has parsed."""
        writer = _Writer(tree.state.flags)
        whole, begun = writer.whole(tree), writer.begun(list(tree))
        longest = LONGEST_MATCH if known is None else known
        least, most = tree.getwidth()
        if most > longest:
            raise PatternFault(
                f"what it matches must end after {longest} characters at most: write {{1,50}} for +, {{0,50}} for *"
            )
        if least == 0:
            raise PatternFault("it matches the empty text")
        pattern = cls(whole, begun, int(most), _size(tree))
        if known is None:
            matcher(pattern.whole, _SMALL)
            ending([pattern], _SMALL)
        return pattern


def matcher(whole: str, memory: int = _MEMORY) -> Any:
    """The compiled form of what RE2 writes so; it is asked for bytes of UTF-8. Raises `PatternFault`."""
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.max_mem = memory
    try:
        return re2.compile(whole.encode(), options)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        told = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise PatternFault(f"it is too large a regular expression: {told[:200]}") from None


def either(patterns: Sequence[Pattern]) -> Any:
    """What finds the first match of any of `patterns`."""
    return matcher("|".join(f"(?:{pattern.whole})" for pattern in patterns))


def ending(patterns: Sequence[Pattern], memory: int = _MEMORY) -> Any:
    """What finds where the end of a text begins that could become a match of one of `patterns`: the end itself, if
    none could."""
    return matcher(rf"(?:{'|'.join(f'(?:{pattern.begun})' for pattern in patterns)})\z", memory)


class _Writer:
    """Writes what Python has parsed for RE2."""

    def __init__(self, flags: int) -> None:
        self._flags = flags

    def whole(self, tree: Any) -> str:
        """What matches as `tree` does."""
        return "".join(self._one(str(name), value) for name, value in tree)

    def begun(self, items: Sequence[tuple[Any, Any]]) -> str:
        """What matches each beginning of what `items` match, the empty one too."""
        written = ""
        for name, value in reversed(items):
            whole, part = self._one(str(name), value), self._part(str(name), value)
            if part and not written:
                written = part
            else:
                written = f"(?:{whole}{written}|{part})" if part else f"(?:{whole}{written})?"
        return written

    def _one(self, name: str, value: Any) -> str:
        if name == "LITERAL":
            return self._cased(_character(value))
        if name == "NOT_LITERAL":
            return self._cased(f"[^{_character(value)}]")
        if name == "ANY":
            return "(?s:.)" if self._flags & re.DOTALL else r"[^\n]"
        if name == "IN":
            return self._cased(_set(value))
        if name == "AT":
            return self._anchor(str(value))
        if name == "BRANCH":
            return f"(?:{'|'.join(self.whole(branch) for branch in value[1])})"
        if name == "SUBPATTERN":
            return f"(?:{self._within(value, self.whole)})"
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            return self._repeated(self.whole(value[2]), value[0], value[1], name == "MIN_REPEAT")
        raise PatternFault(f"{_REFUSED.get(name, name.lower())} is not possible here")

    def _part(self, name: str, value: Any) -> str:
        """What matches the beginnings of one item that has several, or nothing."""
        if name == "BRANCH":
            return f"(?:{'|'.join(self.begun(list(branch)) for branch in value[1])})"
        if name == "SUBPATTERN":
            return f"(?:{self._within(value, lambda tree: self.begun(list(tree)))})"
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            _, most, tree = value
            if most == 0:
                return ""
            inner = list(tree)
            if len(inner) == 1 and not self._part(str(inner[0][0]), inner[0][1]):
                return self._repeated(self.whole(tree), 0, most, False)
            return self._repeated(self.whole(tree), 0, most - 1, False) + self.begun(inner)
        return ""

    def _within(self, value: Any, write: Any) -> str:
        _, added, removed, tree = value
        before = self._flags
        self._flags = (before | added) & ~removed
        try:
            return str(write(tree))
        finally:
            self._flags = before

    def _anchor(self, name: str) -> str:
        if name == "AT_BEGINNING":
            return "(?m:^)" if self._flags & re.MULTILINE else r"\A"
        if name == "AT_END":
            return "(?m:$)" if self._flags & re.MULTILINE else r"\z"
        return _ANCHORS[name]

    def _cased(self, written: str) -> str:
        return f"(?i:{written})" if self._flags & re.IGNORECASE else written

    @staticmethod
    def _repeated(inner: str, least: int, most: Any, lazy: bool) -> str:
        if most == 0:
            return ""
        end = "" if most == _parser.MAXREPEAT else str(int(most))
        return f"(?:{inner}){{{int(least)},{end}}}{'?' if lazy else ''}"


def _size(tree: Any) -> int:
    size = 0
    for name, value in ((str(name), value) for name, value in tree):
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            size += int(value[1]) * _size(value[2])
        elif name == "BRANCH":
            size += sum(map(_size, value[1]))
        elif name == "SUBPATTERN":
            size += _size(value[3])
        elif name != "AT":
            size += 1
    return size


def _character(code: int) -> str:
    return f"\\x{{{code if code < 0x80 else foldings().get(code, code):x}}}"


def _set(items: Sequence[tuple[Any, Any]]) -> str:
    """A set of characters; what is in the complement of a set stands beside it."""
    inside, outside, negated = "", list[str](), False
    for name, value in ((str(name), value) for name, value in items):
        if name == "NEGATE":
            negated = True
        elif name == "LITERAL":
            inside += _character(value)
        elif name == "RANGE":
            inside += f"\\x{{{value[0]:x}}}-\\x{{{value[1]:x}}}"
        else:
            kind = str(value).removeprefix("CATEGORY_")
            if kind.startswith("NOT_"):
                outside.append(_SETS[kind.removeprefix("NOT_")])
            else:
                inside += _SETS[kind]
    if negated and outside:
        raise PatternFault(r"a complement of \D, \S or \W in brackets is not possible here")
    if not outside:
        return f"[{'^' if negated else ''}{inside}]"
    return f"(?:{'|'.join([*([f'[{inside}]'] if inside else []), *(f'[^{one}]' for one in outside)])})"
