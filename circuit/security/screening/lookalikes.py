"""Texts as instructions are looked for in them: small letters without accents, and one letter for all that look alike.

Full width, mathematical and circled letters are those of ASCII, letters of Cyrillic and Greek that look like Latin ones
are those, and what nobody sees is nothing. Patterns are folded as texts are.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from itertools import accumulate

from circuit.security.screening.invisible import runs

_ALIKE = dict(
    zip(
        "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u04bb\u0501\u051b\u051d"
        "\u03bf\u03b1\u03b9\u03bd\u03c1\u03c5\u0131\u0261\u0269\u026a\u1d0f",
        "aeopcyxijshdqwoaivpuigiio",
        strict=True,
    )
)
_MARKS = range(0x300, 0x370)
_POINTS = (*range(0x591, 0x5C8), 0x640, *range(0x64B, 0x653), 0x670)
"""Marks of vowels in Hebrew and Arabic, and what makes Arabic words longer."""
_table: dict[int, str | None] = dict.fromkeys((*_MARKS, *_POINTS))
_known: set[str] = set()
"""What each character counts as, of those that were met in texts and have a place in the first plane, or look like
letters of it."""


def fold(text: str) -> str:
    """`text` without what no instruction depends on."""
    new = set(text) - _known
    for one in new:
        if one <= "\uffff" or "\U0001d400" <= one < "\U0001d800" or "\U0001f100" <= one < "\U0001f200":
            _known.add(one)
            _table.setdefault(ord(one), _plain(one))
    return text.translate(_table)


def _plain(character: str) -> str | None:
    bare = "".join(one for one in unicodedata.normalize("NFKD", character) if ord(one) not in _MARKS)
    return "".join(_ALIKE.get(one, one) for one in unicodedata.normalize("NFC", bare).lower()) or None


class Folded:
    """A text, folded: `text`, and where each place of it is in what was folded."""

    __slots__ = ("_runs", "_whole", "text")

    def __init__(self, whole: str) -> None:
        self._whole = whole
        self._runs = list(runs(whole))
        self.text = whole.lower() if whole.isascii() else fold(self._seen())

    def places(self, places: list[int]) -> list[int]:
        """Where these places of the folded text are in the whole one."""
        if not places or self._whole.isascii():
            return places
        seen = self._seen()
        ends = list(accumulate(len(_table.get(ord(one), one) or "") for one in seen))
        gone, pieces = list[int](), list[int]()
        lost = 0
        for begin, end in self._runs:
            gone.append(begin - lost)
            lost += end - begin
            pieces.append(lost)
        found: list[int] = []
        for place in places:
            at = bisect_right(ends, place)
            before = bisect_right(gone, at)
            found.append(min(at + (pieces[before - 1] if before else 0), len(self._whole)))
        return found

    def _seen(self) -> str:
        """What people see of the whole."""
        pieces, at = list[str](), 0
        for begin, end in self._runs:
            pieces.append(self._whole[at:begin])
            at = end
        return "".join((*pieces, self._whole[at:]))
