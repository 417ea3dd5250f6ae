"""Payloads as rows hold them: what is large in one is cut out of it, and stands there by its hash.

A value that takes more than `LIMIT` bytes of JSON keeps its shape. The strings, lists and objects in it that are large
themselves leave a null behind, and are named, each with the path to its place:

    {"$artefacts": [[HASH, "document"]], "document": null, "title": "A report"}

What stays is what SQL and people look for. A value that is no object, or that has a key `$artefacts` of its own, is
wrapped, so that nothing that a user writes can be taken for a reference:

    {"$artefacts": {"in": [[HASH]], "value": null}}

An artefact holds plain JSON and never a reference. Its hash is over the bytes of that JSON. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import orjson

LIMIT = 8 * 1024
"""How many bytes of JSON a payload may have in a row of its own."""
MARK = "$artefacts"
DEEPEST_LOOK = 8
"""So far below its structure a value is looked into for what is large; what lies deeper goes as a whole."""

Path = tuple[str | int, ...]


class Artefact(NamedTuple):
    """A large value. `text` is its JSON."""

    hash: str
    text: str
    size: int

    @classmethod
    def of(cls, encoded: bytes) -> Artefact:
        return cls(hashlib.sha256(encoded).hexdigest(), encoded.decode(), len(encoded))


class Shape(NamedTuple):
    """How much of a payload is structure, which stays where it is however large: lists and objects in fewer than
    `depth` others. What lies under one of the keys `payloads` is none from there on."""

    depth: int = 0
    payloads: frozenset[str] = frozenset()


PLAIN = Shape()
"""A payload of which nobody knows the structure."""
METADATA = Shape(2)
EVENT = Shape(3)
REQUEST = Shape(2, frozenset({"inputs", "form"}))
WAIT = Shape(1)
STEP = Shape(1)
"""What a step recorded, if it is an object: SQL adds up what the answers of models cost."""


class Cut(NamedTuple):
    """A payload as its row holds it, and what was cut out of it."""

    stored: Any
    artefacts: Sequence[Artefact]


def plain(value: Any, encoded: bytes) -> bool:
    """Whether a value, of which this is the JSON, is stored as it is."""
    return len(encoded) <= LIMIT and not (type(value) is dict and MARK in value)


def cut(value: Any, encoded: bytes, shape: Shape = PLAIN) -> Cut:
    """What is stored for a value that is not `plain`."""
    found: list[tuple[Path, Artefact]] = []
    rest = _rest(value, encoded, (), shape.depth, shape, found) if len(encoded) > LIMIT else value
    named = [[artefact.hash, *path] for path, artefact in found]
    artefacts = [artefact for _, artefact in found]
    if isinstance(rest, dict) and MARK not in rest and named:
        return Cut({MARK: named, **cast("dict[str, Any]", rest)}, artefacts)
    if not named and not (isinstance(rest, dict) and MARK in rest):
        # It is large, but nothing in it is.
        return Cut(value, ())
    return Cut({MARK: {"in": named, "value": rest}}, artefacts)


def _rest(value: Any, encoded: bytes, path: Path, depth: int, shape: Shape, found: list[tuple[Path, Artefact]]) -> Any:
    """What of a large value stays in its place; what does not is `found`."""
    before = len(found)
    if isinstance(value, dict | list) and len(path) < depth + DEEPEST_LOOK:
        inner = cast("dict[str, Any] | list[Any]", value)
        rest: Any = inner.copy()
        left = len(encoded)
        for key, one in list(inner.items() if isinstance(inner, dict) else enumerate(inner)):
            if not isinstance(one, str | dict | list):
                continue
            size = orjson.dumps(cast("Any", one))
            if len(size) > LIMIT:
                below = 0 if key in shape.payloads else depth
                rest[key] = _rest(one, size, (*path, key), below, shape, found)
                left -= len(size)
        if left <= LIMIT or len(path) < depth:
            return rest
    elif len(path) < depth:
        return value
    del found[before:]
    found.append((path, Artefact.of(encoded)))
    return None


def references(stored: Any) -> list[list[Any]]:
    """What a payload of a row refers to: each hash with the path to its place. None, where it is plain."""
    mark = _mark(stored)
    return [] if mark is None else mark[0]


def marked(stored: Any) -> bool:
    """Whether a payload of a row is another than its value."""
    return _mark(stored) is not None


def filled(stored: Any, content: Callable[[str], Any]) -> Any:
    """The value of a payload, of which `content` gives what belongs to a hash."""
    mark = _mark(stored)
    if mark is None:
        return stored
    named, value = mark
    for name, *path in named:
        if not path:
            return content(name)
        place = value
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = content(name)
    return value


def _mark(stored: Any) -> tuple[list[list[Any]], Any] | None:
    """The references of a payload and what they belong into; None for what is not marked, or marked by a user in a
    release that knew of no marks."""
    if type(stored) is not dict or MARK not in stored:
        return None
    row = cast("dict[str, Any]", stored)
    mark = row[MARK]
    if isinstance(mark, list) and mark:
        named, value = cast("list[Any]", mark), {key: one for key, one in row.items() if key != MARK}
    elif isinstance(mark, dict) and len(row) == 1 and cast("dict[str, Any]", mark).keys() == {"in", "value"}:
        named, value = cast("Mapping[str, Any]", mark)["in"], cast("Mapping[str, Any]", mark)["value"]
        if not isinstance(named, list):
            return None
    else:
        return None
    entries = cast("list[Any]", named)
    return (entries, value) if all(_names(one) for one in entries) else None


def _names(entry: Any) -> bool:
    if not isinstance(entry, list) or not entry:
        return False
    name = cast("list[Any]", entry)[0]
    return isinstance(name, str) and len(name) == 64 and all(sign in "0123456789abcdef" for sign in name)
