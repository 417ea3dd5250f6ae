"""What kind of JSON value something is, and when two are the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard


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
