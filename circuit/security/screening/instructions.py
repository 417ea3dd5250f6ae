"""Instructions in data: texts that speak to a model, plain or as base64 and as hexadecimal digits.

What is found is phrases that nobody says to people. Nobody can find all of them, and a text that asks in its own words
for what it wants is not found: what a model may do at most is for policies to say.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from circuit.security.pattern import matcher
from circuit.security.screening.found import INSTRUCTIONS, Found
from circuit.security.screening.lookalikes import Folded, fold
from circuit.security.screening.phrases import PHRASES

MOST = 20
"""How many are told of one text."""
_CODED = re.compile(r"[A-Za-z0-9+/_-]{28,}(?:\r?\n[A-Za-z0-9+/_-]+)*={0,2}")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+")
_LONGEST_CODED = 65_536
"""Characters of one coded text that are looked at."""
_LEAST_TEXT = 0.9
_ESCAPE_OR_TEXT = re.compile(r"\\p?.|[^\\]+")


@cache
def _phrases() -> Any:
    return matcher("|".join(f"(?:{_ESCAPE_OR_TEXT.sub(_folded, phrase)})" for phrase in PHRASES))


def _folded(piece: re.Match[str]) -> str:
    return piece[0] if piece[0].startswith("\\") else fold(piece[0])


def instructions(text: str) -> list[Found]:
    """The instructions in `text`, in their order."""
    found = list(_plain(text))
    for match in _CODED.finditer(text):
        if len(found) >= MOST:
            break
        way, said = _decoded(match[0])
        if said and (inner := next(_plain(said), None)) is not None:
            found.append(Found(INSTRUCTIONS, *match.span(), inner.words, 1, way))
    return sorted(found, key=lambda one: one.start)[:MOST]


def _plain(text: str) -> Iterator[Found]:
    folded = Folded(text)
    content = folded.text.encode("utf-8", "replace")
    spans: list[int] = []
    at = place = 0
    for match in _phrases().finditer(content):
        begin, end = match.span()
        place += len(content[at:begin].decode("utf-8", "replace"))
        spans += (place, place + len(content[begin:end].decode("utf-8", "replace")) - 1)
        at = begin
        if len(spans) >= 2 * MOST:
            break
    whole = folded.places(spans)
    for begin, last in zip(whole[::2], whole[1::2], strict=True):
        words = text[begin : last + 1]
        blank = len(words) - len(words.lstrip())
        yield Found(INSTRUCTIONS, begin + blank, last + 1, words[blank:])


def _decoded(coded: str) -> tuple[str, str]:
    """The text that letters and digits stand for, if they stand for one, and how it is coded."""
    packed = "".join(coded[:_LONGEST_CODED].split())
    if _HEX.fullmatch(packed):
        return "hexadecimal", _text(bytes.fromhex(packed))
    packed = packed.rstrip("=").replace("-", "+").replace("_", "/")
    packed = packed[: len(packed) - (len(packed) % 4 == 1)]
    try:
        return "base64", _text(base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True))
    except (ValueError, binascii.Error):
        return "base64", ""


def _text(content: bytes) -> str:
    """`content` as text; nothing where it is none."""
    try:
        said = content.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(content) - 3:
            return ""
        said = content[: error.start].decode("utf-8")
    readable = sum(one.isprintable() or one.isspace() for one in said)
    return said if said and readable >= _LEAST_TEXT * len(said) else ""
