"""Characters that people do not see and models read.

Most of them have a use: joiners in Persian, in the scripts of India and in emoji, marks of direction in Hebrew and
Arabic, selectors of variants, places where long words may break. What no text needs is found: Unicode's tag characters
(but in the flags of England, Scotland and Wales), overrides of direction, four invisible characters in a row, two
selectors in a row, characters that Unicode has left without a meaning, and words of Latin letters that are cut up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from circuit.security.screening.found import INVISIBLE, Found

MOST = 20
"""How many places are told one by one."""
_RUN = 4
"""So many in a row stand for nothing that can be read."""
_CUTS = 3
"""So many cuts in Latin words are no accident."""
_TAG = 0xE0000
_BLACK_FLAG = "\U0001f3f4"
_FLAGS = {"".join(chr(_TAG + ord(one)) for one in name) + "\U000e007f" for name in ("gbeng", "gbsct", "gbwls")}
_SELECTORS = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
_NEVER = "\U000e0000-\U000e00ff\U000e01f0-\U000e0fff\u2065\ufff0-\ufffb\u202d\u202e"
_USEFUL = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\U0001d173-\U0001d17a"
)
_RUN_OF_THEM = re.compile(f"[{_USEFUL}{_NEVER}{_SELECTORS}]+")
_ALONE = frozenset("\u00ad\u034f\u061c\u200c\u200d\u200e\u200f\ufe0e\ufe0f\u180b\u180c\u180d\u180e\u180f\u17b4\u17b5")
"""Those that stay where one stands alone."""
_NEVER_ALONE = re.compile(f"[{_NEVER}]")
_TWO_SELECTORS = re.compile(f"[{_SELECTORS}]{{2}}")
EMBEDDING = re.compile("[\u202a\u202b\u2066\u2067]")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]")
_CUTTING = frozenset("\u200b\u200c\u200d\u2060\u2061\u2062\u2063\u2064\ufeff")
_EMOJI = "\ufe0f\u200d"


def runs(text: str) -> Iterator[tuple[int, int]]:
    """Where invisible characters stand in a row, but in flags."""
    if text.isascii():
        return
    for match in _RUN_OF_THEM.finditer(text):
        begin, end = match.span()
        if match[0] not in _FLAGS or text[begin - 1 : begin] != _BLACK_FLAG:
            yield begin, end


def invisible(text: str) -> tuple[list[Found], str]:
    """What is found in `text`, and `text` without it: then all go but those that stand alone and have a use."""
    spans = list(runs(text))
    if not spans:
        return [], text
    cuts = [span for span in spans if _cuts(text, span)]
    bad = [span for span in spans if _is_bad(text[span[0] : span[1]])]
    if len(cuts) >= _CUTS:
        bad += cuts
    if EMBEDDING.search(text) is not None:
        bad += _turning(text, spans)
    if not bad:
        return [], text
    places = sorted(dict.fromkeys(bad))
    found: list[Found] = []
    for begin, end in places[:MOST]:
        run = text[begin:end]
        found.append(Found(INVISIBLE, begin, end, _words(run), len(run), "spelt" if _hidden(run) else ""))
    if rest := places[MOST:]:
        count = sum(end - begin for begin, end in rest)
        found.append(Found(INVISIBLE, rest[0][0], rest[-1][1], "and more", count))
    pieces, at, cutting = list[str](), 0, set(cuts)
    for begin, end in spans:
        pieces.append(text[at:begin])
        run = text[begin:end]
        if run == _EMOJI or (len(run) == 1 and run in _ALONE and (begin, end) not in cutting):
            pieces.append(run)
        at = end
    return found, "".join((*pieces, text[at:]))


def _turning(text: str, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those that turn a line's direction in which nothing is written from right to left."""
    found: list[tuple[int, int]] = []
    at = begin = 0
    for line in text.split("\n"):
        end = begin + len(line)
        plain = EMBEDDING.search(line) is not None and _RIGHT_TO_LEFT.search(line) is None
        while at < len(spans) and spans[at][0] < end:
            if plain and EMBEDDING.search(text, *spans[at]) is not None:
                found.append(spans[at])
            at += 1
        begin = end + 1
    return found


def _is_bad(run: str) -> bool:
    return len(run) >= _RUN or bool(_NEVER_ALONE.search(run)) or bool(_TWO_SELECTORS.search(run))


def _cuts(text: str, span: tuple[int, int]) -> bool:
    """Whether a word of Latin letters is cut here."""
    begin, end = span
    before, after = text[begin - 1 : begin] if begin else "", text[end : end + 1]
    inside = before.isascii() and before.isalpha() and after.isascii() and after.isalpha()
    return inside and all(one in _CUTTING for one in text[begin:end])


def _hidden(run: str) -> str:
    """The text that tag characters or selectors of variants spell, if they spell one."""
    said = "".join(chr(ord(one) - _TAG) for one in run if 0xE0020 <= ord(one) <= 0xE007E)
    if said:
        return said
    codes = bytes(code for one in run if (code := _selected(ord(one))) is not None)
    told = codes.decode("utf-8", "replace")
    return told if len(told) >= _RUN and told.isprintable() and "\ufffd" not in told else ""


def _selected(code: int) -> int | None:
    """The byte for which a selector of a variant stands, where somebody hides bytes in them."""
    if 0xFE00 <= code <= 0xFE0F:
        return code - 0xFE00
    return code - 0xE0100 + 16 if 0xE0100 <= code <= 0xE01EF else None


def _words(run: str) -> str:
    """What a run is, for people: the text that it spells, or its characters by number."""
    if said := _hidden(run):
        return said
    numbers = dict.fromkeys(f"U+{ord(one):04X}" for one in run)
    return " ".join(list(numbers)[:4]) + (" ..." if len(numbers) > 4 else "")
