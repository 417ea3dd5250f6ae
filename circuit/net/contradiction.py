"""Schemas that nothing satisfies, as far as they show it themselves.

What is found is certain; what is not found may be a contradiction all the same (a pattern that no text has, say). A
schema is looked at as the conjunction of itself, its `allOf` and what it refers to, type by type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import jsonschema_rs
import orjson

TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
_MOST_PARTS = 2_000
_DEEPEST = 20
_BOUNDS = {
    "string": ("minLength", "maxLength", "characters"),
    "array": ("minItems", "maxItems", "items"),
    "object": ("minProperties", "maxProperties", "properties"),
}
_QUIET = {"title", "description", "default", "examples", "$comment", "$id", "$schema", "$anchor", "deprecated"}
_SPLIT = ("allOf", "anyOf", "oneOf", "$ref")

Part = Mapping[str, Any]


def contradiction(schema: Any) -> str | None:
    """Why nothing satisfies `schema`, which is a JSON Schema; None where something may."""
    return _Look(schema).why([schema], "")


class _Look:
    """One look at a schema, bounded: a schema that refers to itself has no end."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._left = _MOST_PARTS
        self._deep = 0
        # Within a part that has an address of its own, references mean something else.
        self._refers = orjson.dumps(root).count(b'"$id"') <= (isinstance(root, Mapping) and "$id" in root)

    def why(self, schemas: Iterable[Any], path: str) -> str | None:
        """Why nothing satisfies all of `schemas`, which stand at `path`."""
        self._deep += 1
        try:
            return self._why(schemas, path) if self._deep <= _DEEPEST else None
        finally:
            self._deep -= 1

    def _why(self, schemas: Iterable[Any], path: str) -> str | None:
        parts: list[Part] = []
        for part in self._conjuncts(schemas):
            if part is False:
                return _told(path, "nothing is allowed there")
            if isinstance(part, Mapping):
                parts.append(cast("Part", part))
        if self._left <= 0:
            return None
        plain = [{key: value for key, value in part.items() if key not in _SPLIT} for part in parts]
        for part in parts:
            if "not" in part and _takes_all(part["not"]):
                return _told(path, "`not` leaves nothing out")
            for key in ("anyOf", "oneOf"):
                if part.get(key) and all(reasons := [self.why([way, *plain], path) for way in part[key]]):
                    return reasons[0]
        if (listed := _listed(parts)) is not None:
            fits = any(all(_fits(value, part) for part in plain) for value in listed)
            return None if fits else _told(path, "none of the values that it lists fits the rest")
        types = _types(parts)
        reasons = [self._of_type(kind, parts, path) for kind in types]
        if not types:
            return _told(path, "no type is left")
        return reasons[-1] if all(reasons) else None

    def _conjuncts(self, schemas: Iterable[Any]) -> Iterator[Any]:
        """All that must hold at once: the schemas, their `allOf`, and what they refer to."""
        pending = list(schemas)
        seen: set[int] = set()
        while pending and self._left > 0:
            schema = pending.pop(0)
            if id(schema) in seen:
                continue
            seen.add(id(schema))
            self._left -= 1
            yield schema
            if not isinstance(schema, Mapping):
                continue
            fields = cast("Part", schema)
            pending += fields.get("allOf") or ()
            if self._refers and isinstance(fields.get("$ref"), str):
                target = _target(fields["$ref"], self._root)
                pending += [] if target is None else [target]

    def _of_type(self, kind: str, parts: Sequence[Part], path: str) -> str | None:
        """Why no value of one type satisfies all `parts`."""
        if kind in ("integer", "number"):
            return _number(parts, path, whole=kind == "integer")
        if kind in _BOUNDS:
            least, most, what = _BOUNDS[kind]
            low, high = _largest(parts, least), _smallest(parts, most)
            if low is not None and high is not None and low > high:
                return _told(path, f"it asks for {low:g} {what} at least and {high:g} at most")
        if kind == "object":
            return self._object(parts, path)
        needed = kind == "array" and (_largest(parts, "minItems") or 0) > 0
        if needed and not any("prefixItems" in part for part in parts):
            return self.why([part["items"] for part in parts if "items" in part], f"{path}[]")
        return None

    def _object(self, parts: Sequence[Part], path: str) -> str | None:
        needed = list(dict.fromkeys(name for part in parts for name in part.get("required") or ()))
        most = _smallest(parts, "maxProperties")
        if most is not None and len(needed) > most:
            return _told(path, f"it requires {len(needed)} properties and allows {most:g}")
        for name in needed:
            found: list[Any] = []
            for part in parts:
                known: Part = part.get("properties") or {}
                if name in known:
                    found.append(known[name])
                elif part.get("additionalProperties") is False and "patternProperties" not in part:
                    return _told(path, f"it requires {name!r} and allows no such property")
            if found and (why := self.why(found, f"{path}.{name}" if path else name)):
                return why
        return None


def _told(path: str, why: str) -> str:
    return f"{path}: {why}" if path else why


def _target(reference: str, root: Any) -> Any:
    """What a reference within the schema itself means; None where it is another one, or means nothing."""
    if not reference.startswith("#"):
        return None
    found: Any = root
    for step in reference[1:].split("/")[1:]:
        if not isinstance(found, Mapping):
            return None
        found = cast("Part", found).get(step.replace("~1", "/").replace("~0", "~"))
    return found


def _takes_all(schema: Any) -> bool:
    return schema is True or (isinstance(schema, Mapping) and not set(cast("Part", schema)) - _QUIET)


def _listed(parts: Iterable[Part]) -> list[Any] | None:
    """The values that the first `const` or `enum` lists."""
    for part in parts:
        if "const" in part:
            return [part["const"]]
        if isinstance(part.get("enum"), list):
            return part["enum"]
    return None


def _fits(value: Any, part: Part) -> bool:
    """Whether `value` fits; also where that cannot be said, as with references."""
    try:
        return jsonschema_rs.validator_for(dict(part), offline=True).is_valid(value)
    except Exception:
        return True


def _types(parts: Iterable[Part]) -> list[str]:
    """The types that all parts allow. An integer is a number too."""
    left: list[str] = list(TYPES)
    for part in parts:
        if "type" in part:
            given: Any = part["type"]
            named: list[str] = [given] if isinstance(given, str) else list(given)
            allowed = {*named, *(("integer",) if "number" in named else ())}
            left = [kind for kind in left if kind in allowed]
    return left


def _number(parts: Sequence[Part], path: str, *, whole: bool) -> str | None:
    low, high = _largest(parts, "minimum"), _smallest(parts, "maximum")
    above, below = _largest(parts, "exclusiveMinimum"), _smallest(parts, "exclusiveMaximum")
    floor = max((value for value in (low, above) if value is not None), default=None)
    roof = min((value for value in (high, below) if value is not None), default=None)
    if floor is None or roof is None:
        return None
    shut = floor == roof and (floor == above or roof == below)
    between = whole and floor == above and roof == below and float(floor).is_integer() and roof - floor <= 1
    if floor > roof or shut or between:
        return _told(path, f"no {'integer' if whole else 'number'} is between {floor:g} and {roof:g} as it asks")
    return None


def _largest(parts: Iterable[Part], key: str) -> float | None:
    return max(_numbers(parts, key), default=None)


def _smallest(parts: Iterable[Part], key: str) -> float | None:
    return min(_numbers(parts, key), default=None)


def _numbers(parts: Iterable[Part], key: str) -> list[float]:
    return [part[key] for part in parts if isinstance(part.get(key), int | float) and not isinstance(part[key], bool)]
