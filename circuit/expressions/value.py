"""JSON values: read exactly from text, of which kind they are, and when two are the same."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeGuard

import orjson

_LONG_NUMBER = re.compile(r"\d{19}")


def exact_json(text: str | bytes) -> Any:
    """The JSON value in `text`. Raises `orjson.JSONDecodeError`, which knows line and column.

    orjson makes a float of an integer beyond 64 bits. Here it stays the integer that was written, so that whoever
    cannot store it refuses it, instead of storing another number.
    """
    value = orjson.loads(text)
    if _LONG_NUMBER.search(text if isinstance(text, str) else text.decode()):
        try:
            return json.loads(text)
        except RecursionError:  # nests deeper than anything that is stored
            return value
    return value


def is_object(value: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)


def is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a JSON number: a boolean is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def kind(value: object) -> str:
    """The kind of a JSON value, in words with their article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "an object"


def same(left: object, right: object) -> bool:
    """Whether two JSON values are equal: numbers by value, and a boolean is no number."""
    # A list of what is left to compare instead of recursion: data may be nested deeper than Python's stack.
    pairs: list[tuple[object, object]] = [(left, right)]
    while pairs:
        one, other = pairs.pop()
        if is_object(one):
            if not is_object(other) or one.keys() != other.keys():
                return False
            pairs += [(value, other[key]) for key, value in one.items()]
        elif is_list(one):
            if not is_list(other) or len(one) != len(other):
                return False
            pairs += zip(one, other, strict=True)
        elif isinstance(one, bool) or isinstance(other, bool):
            if one is not other:
                return False
        elif one != other:
            return False
    return True


def key_of(value: object) -> Any:
    """Something that can be hashed and is equal for two JSON values exactly where these are the same."""
    if isinstance(value, bool):
        return ("boolean", value)
    if is_object(value):
        return ("object", frozenset((name, key_of(part)) for name, part in value.items()))
    if is_list(value):
        return ("list", tuple([key_of(part) for part in value]))
    return value
