"""Texts of messages stay texts: no word of theirs becomes a control token of the model.

A chat template makes one text of a conversation, and the tokenizer then takes every control token in it for what it
looks like, whoever wrote it. So each one that stands in a message, or in what a tool says of itself, gets a space
behind its first character before the template sees it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, cast

from circuit.security.screening.tokens import tokens

_FIXED = ("role", "type", "id", "tool_call_id", "name", "image_url", "image")
"""What is no text of anybody, or is no text at all."""
_PARTS = ("messages", "tools")
_MOST_TIMES = 8


class Literal:
    """`special` are the control tokens of a tokenizer; of the `added` ones, which may be ordinary words of it as well,
    those count that look like control tokens, and in what users and tools say only: a model's own words, and its
    author's, may hold them."""

    def __init__(self, special: Iterable[str], added: Iterable[str] = ()) -> None:
        # A word of letters alone stands in ordinary texts: nobody could say it any more.
        known = {one for one in special if len(one) > 1 and not one.isalnum()}
        marks = {one for one in added if one not in known and tokens(one)}
        self._authors = _matcher(known)
        self._others = _matcher(known | marks)

    def body(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A request without control tokens in its texts."""
        if self._others is None:
            return dict(body)
        made = dict(body)
        for part in _PARTS:
            if part in made:
                made[part] = [self._entry(entry, self._others) for entry in made[part] or ()]
        return made

    def _entry(self, entry: Any, matcher: re.Pattern[str]) -> Any:
        if isinstance(entry, Mapping) and entry.get("role") in ("system", "developer", "assistant"):
            return entry if self._authors is None else _value(entry, self._authors)
        return _value(entry, matcher)


def _matcher(words: Iterable[str]) -> re.Pattern[str] | None:
    # The longest first: a token may begin with another one.
    ordered = sorted(words, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None


def _value(value: Any, matcher: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return _text(value, matcher)
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        return {name: item if name in _FIXED else _value(item, matcher) for name, item in fields.items()}
    if isinstance(value, list):
        return [_value(item, matcher) for item in cast("list[Any]", value)]
    return value


def _text(text: str, matcher: re.Pattern[str]) -> str:
    if not text.isascii():
        # Some tokenizers compare what they have brought into this form.
        plain = unicodedata.normalize("NFKC", text)
        text = plain if matcher.search(text) is None and matcher.search(plain) is not None else text
    for _ in range(_MOST_TIMES):
        if matcher.search(text) is None:
            return text
        text = matcher.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
    return matcher.sub("", text)
