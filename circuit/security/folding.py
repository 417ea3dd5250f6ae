"""Text as it is compared: the digits of all scripts, letters of full width, dashes and spaces of every kind are those
of ASCII, and escapes as JSON has them are what they stand for."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from functools import cache

from circuit.value import dataclass

# Two escapes may stand for one character, as two halves of UTF-16 do.
_HIGH = r"\\u[dD][89abAB][0-9A-Fa-f]{2}"
_ESCAPE = re.compile(rf"{_HIGH}\\u[dD][c-fC-F][0-9A-Fa-f]{{2}}|\\(?:u[0-9A-Fa-f]{{0,4}}|[^u]|\Z)", re.DOTALL)
_HALF = re.compile(_HIGH)
_ESCAPED = 6
"""How long the escape of a character is by its number."""
_LONGEST_UNFINISHED = 2 * _ESCAPED - 1
_FULL_BACKSLASH = 0xFF3C
_LAST_DIGIT = 0x1FFFF
"""No character that is folded comes after it."""


@dataclass(frozen=True, slots=True)
class Folded:
    """A text, and `plain`, as which it is compared. Of each character of `plain` for which several of the text stand,
    `short` has the place, and `longer` by how much the text is longer up to there."""

    text: str
    plain: str
    short: tuple[int, ...] = ()
    longer: tuple[int, ...] = ()

    def place(self, at: int) -> int:
        """Where in the text that begins which begins at `at` as it is compared."""
        count = bisect_left(self.short, at)
        return at + self.longer[count - 1] if count else at

    def cut(self, start: int, end: int) -> str:
        """The text of what is compared from `start` up to `end`."""
        return self.text[self.place(start) : self.place(end)]

    def behind(self, at: int) -> Folded:
        """What begins at `at`."""
        count = bisect_left(self.short, at)
        gone = self.longer[count - 1] if count else 0
        short = tuple(one - at for one in self.short[count:])
        return Folded(self.text[at + gone :], self.plain[at:], short, tuple(one - gone for one in self.longer[count:]))

    def __add__(self, more: Folded) -> Folded:
        if not self.text:
            return more
        at, by = len(self.plain), self.longer[-1] if self.longer else 0
        short = (*self.short, *(one + at for one in more.short))
        longer = (*self.longer, *(one + by for one in more.longer))
        return Folded(self.text + more.text, self.plain + more.plain, short, longer)


def fold(text: str) -> Folded:
    """`text` as it is compared."""
    plain = text
    if not text.isascii() and _foreign().search(text) is not None:
        plain = _foreign().sub(lambda match: _folded(ord(match[0])), text)
    if "\\" not in text:
        return Folded(text, plain)
    pieces, short, longer = list[str](), list[int](), list[int]()
    behind = length = 0
    for escape in _ESCAPE.finditer(text):
        meant = _meant(escape[0])
        if meant is None:
            continue
        length += escape.start() - behind
        pieces += (plain[behind : escape.start()], meant)
        behind = escape.end()
        short.append(length)
        length += 1
        longer.append(behind - length)
    return Folded(text, "".join((*pieces, plain[behind:])), tuple(short), tuple(longer))


def folded(text: str) -> str:
    """What `text` is compared as."""
    return fold(text).plain


def unfinished(text: str) -> int:
    """How many characters at the end of `text` are no whole character or escape yet, so that they are not folded."""
    half = 1 if "\ud800" <= text[-1:] <= "\udbff" else 0
    if "\\" not in text[-_LONGEST_UNFINISHED - half :]:
        return half
    whole = text[: len(text) - half]
    before = last = None
    for escape in _ESCAPE.finditer(whole):
        before, last = last, escape
    if last is None or last.end() != len(whole):
        return half
    start, written = last.start(), last[0]
    if not _HALF.fullmatch(written):
        if len(written) > 1 and (not written.startswith("\\u") or len(written) >= _ESCAPED):
            return half
        if before is not None and before.end() == start and _HALF.fullmatch(before[0]):
            start = before.start()
    return half + len(whole) - start


@cache
def foldings() -> dict[int, int]:
    """The characters that are compared as others."""
    found = dict.fromkeys(range(0xD800, 0xE000), 0xFFFD)
    for code in range(0x80, _LAST_DIGIT + 1):
        kind = unicodedata.category(chr(code))
        if kind == "Nd":
            found[code] = ord("0") + unicodedata.decimal(chr(code))
        elif kind == "Zs":
            found[code] = ord(" ")
        elif kind == "Pd" or code == 0x2212:
            found[code] = ord("-")
        elif 0xFF01 <= code <= 0xFF5E and code != _FULL_BACKSLASH:
            found[code] = code - 0xFF01 + 0x21
    return found


@cache
def _foreign() -> re.Pattern[str]:
    # A set with characters beyond the first plane is slow to look for; all of theirs are candidates therefore.
    first = "".join(f"\\u{code:04x}" for code in foldings() if code <= 0xFFFF)
    return re.compile(f"[{first}]|[\U00010000-\U0001ffff]")


def _folded(code: int) -> str:
    return chr(foldings().get(code, code))


def _meant(written: str) -> str | None:
    """The character that an escape stands for: a space for those that JSON names by a letter. None for what stays."""
    if len(written) == 2 * _ESCAPED:
        high, low = int(written[2:6], 16), int(written[8:], 16)
        return _folded(0x10000 + ((high & 0x3FF) << 10) + (low & 0x3FF))
    if len(written) == _ESCAPED:
        return _folded(int(written[2:], 16))
    return " " if len(written) == 2 and written[1] in "nrtbf" else None
