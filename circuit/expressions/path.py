"""Dotted paths into JSON values: `data.review.score`, `data.items.0.name`.

A segment is a key of an object, or, where the value is a list, an index that counts from 0. A path never raises
when it leads nowhere: it gives `MISSING`, because whether that matters is for the reader to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

from circuit.expressions.value import is_list, is_object, kind

MAX_SEGMENTS = 64
_SEGMENT = re.compile(r"[^\W\d][\w-]*|0|[1-9]\d{0,8}")


class Missing(Enum):
    """The type of `MISSING`."""

    MISSING = "missing"

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING: Final = Missing.MISSING
MissingType: TypeAlias = Literal[Missing.MISSING]


@dataclass(frozen=True, slots=True)
class Path:
    """A parsed path. `str(path)` is its text."""

    segments: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Path:
        """The path that `text` spells. Raises `ValueError` with what is wrong with it."""
        if not text:
            raise ValueError("a path must not be empty")
        segments = tuple(text.split("."))
        if len(segments) > MAX_SEGMENTS:
            raise ValueError(f"path has {len(segments)} segments; at most {MAX_SEGMENTS} are allowed")
        for segment in segments:
            if _SEGMENT.fullmatch(segment):
                continue
            if not segment:
                raise ValueError(f"path {text!r} has an empty segment")
            if "[" in segment:
                raise ValueError(f"path {text!r}: write a list index as a segment, as in items.0.name")
            raise ValueError(
                f"path {text!r}: {segment!r} is neither a name (letters, digits, _ and -) nor a list index"
            )
        return cls(segments)

    def get(self, root: Mapping[str, Any]) -> Any:
        """What lies at this path under `root`, or `MISSING`."""
        value: Any = root
        for segment in self.segments:
            if is_object(value):
                value = value.get(segment, MISSING)
                if value is MISSING:
                    return MISSING
            elif is_list(value):
                index = _index(segment)
                if index is None or index >= len(value):
                    return MISSING
                value = value[index]
            else:
                return MISSING
        return value

    def __str__(self) -> str:
        return ".".join(self.segments)


def assign(root: Mapping[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """A copy of `root` that has `value` at `path`; `root` itself, and what it shares with others, stay as they are.

    Objects on the way are made where there are none (or a null). In a list, an index may name an element or the
    place after the last one. Raises `ValueError` where the path runs into a value that is neither object nor list.
    """
    return _assigned(root, path, 0, value)


def _assigned(container: Any, path: Path, depth: int, value: Any) -> Any:
    if depth == len(path.segments):
        return value
    segment = path.segments[depth]
    if container is None or container is MISSING:
        return {segment: _assigned(MISSING, path, depth + 1, value)}
    if is_object(container):
        copy = dict(container)
        copy[segment] = _assigned(copy.get(segment, MISSING), path, depth + 1, value)
        return copy
    if is_list(container):
        items = list(container)
        index = _index(segment)
        if index is None or index > len(items):
            raise ValueError(f"{path}: {segment!r} is not an index of a list of {len(items)}")
        if index == len(items):
            items.append(_assigned(MISSING, path, depth + 1, value))
        else:
            items[index] = _assigned(items[index], path, depth + 1, value)
        return items
    passed = ".".join(path.segments[:depth])
    raise ValueError(f"{path}: {passed} is {kind(container)}, not an object")


def _index(segment: str) -> int | None:
    return int(segment) if segment.isdigit() else None
