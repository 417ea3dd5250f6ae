"""Makes up a value that fits a JSON Schema, from a seeded source: the same seed and schema give the same value.

It knows what output schemas are written in: types, `enum`, `const`, bounds, formats, objects, arrays, local
references and combinations. What it cannot aim at (`pattern`, `not`, conditions) it may meet by chance; the result is
validated in any case.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, cast

import jsonschema_rs

TRIES = 50
_DEEPEST = 8
_WORDS = (
    "answer", "clear", "draft", "example", "finding", "good", "idea", "line", "note", "paper", "plan", "point",
    "result", "review", "sample", "short", "source", "step", "summary", "text", "topic", "value", "view", "word",
)  # fmt: skip
_FORMATS = {
    "date": "2026-01-15",
    "time": "09:30:00Z",
    "date-time": "2026-01-15T09:30:00Z",
    "duration": "PT15M",
    "email": "reviewer@example.org",
    "hostname": "example.org",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.org/",
    "uri-reference": "/page",
    "uuid": "0192f0c1-2345-7678-9abc-def012345678",
}


class NoSample(ValueError):
    """No value was found that fits the schema, or the schema is none."""


def sample(schema: Mapping[str, Any], seed: str) -> Any:
    """A value that fits `schema`. Raises `NoSample`."""
    try:
        validator = jsonschema_rs.validator_for(dict(schema), offline=True)
    except (jsonschema_rs.ValidationError, ValueError) as error:
        raise NoSample(f"the schema is not one: {str(error).splitlines()[0]}") from None
    for attempt in range(TRIES):
        source = random.Random(f"{seed}/{attempt}")
        try:
            value = _Sampler(schema, source).value(schema, 0)
        except (NoSample, RecursionError, TypeError, AttributeError, ValueError):
            continue
        if validator.is_valid(value):
            return value
    raise NoSample(f"{TRIES} tries gave no value that fits the schema")


class _Sampler:
    def __init__(self, root: Mapping[str, Any], source: random.Random) -> None:
        self._root = root
        self._source = source

    def value(self, schema: Any, depth: int) -> Any:
        """A value that is meant to fit `schema`."""
        if schema is True or schema == {}:
            return self._words(1)
        if not isinstance(schema, Mapping) or depth > 4 * _DEEPEST:
            raise NoSample("nothing fits")
        node = self._flat(cast("Mapping[str, Any]", schema), depth)
        if "const" in node:
            return node["const"]
        if node.get("enum"):
            return self._source.choice(list(node["enum"]))
        for name in ("anyOf", "oneOf"):
            if node.get(name):
                rest = {key: value for key, value in node.items() if key != name}
                return self.value(_merged(rest, self._source.choice(list(node[name]))), depth + 1)
        return self._typed(node, depth)

    def _flat(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        """`schema` with its references followed and its `allOf` merged in."""
        node = dict(schema)
        for _ in range(_DEEPEST):
            reference = node.pop("$ref", None)
            parts = list(node.pop("allOf", ()))
            if reference is None and not parts:
                return node
            if reference is not None:
                parts.append(self._target(str(reference)))
            for part in parts:
                node = _merged(node, part)
        raise NoSample(f"references without an end at depth {depth}")

    def _target(self, reference: str) -> Any:
        if not reference.startswith("#"):
            raise NoSample(f"{reference} is not in the schema")
        target: Any = self._root
        for part in reference.removeprefix("#").split("/")[1:]:
            target = target[part.replace("~1", "/").replace("~0", "~")]
        return target

    def _typed(self, node: Mapping[str, Any], depth: int) -> Any:
        kind: Any = node.get("type")
        if isinstance(kind, list):
            kind = self._source.choice([name for name in cast("list[Any]", kind) if name != "null"] or ["null"])
        if kind is None:
            kind = _guess(node)
        match kind:
            case "object":
                return self._object(node, depth)
            case "array":
                return self._array(node, depth)
            case "integer":
                return self._integer(node)
            case "number":
                return self._number(node)
            case "boolean":
                return self._source.random() < 0.5
            case "null":
                return None
            case _:
                return self._string(node)

    def _object(self, node: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties: Mapping[str, Any] = node.get("properties", {})
        required = set(node.get("required", ()))
        made: dict[str, Any] = {}
        for name, schema in properties.items():
            # What is optional is made too, until the schema turns out to be recursive.
            if schema is not False and (name in required or depth < _DEEPEST):
                made[name] = self.value(schema, depth + 1)
        rest: Any = node.get("additionalProperties", True)
        for name in sorted(required - made.keys()):
            made[name] = self.value(rest, depth + 1)
        while len(made) < int(node.get("minProperties", 0)):
            made[f"{self._source.choice(_WORDS)}_{len(made)}"] = self.value(rest, depth + 1)
        return made

    def _array(self, node: Mapping[str, Any], depth: int) -> list[Any]:
        least = int(node.get("minItems", 0))
        most = int(node.get("maxItems", max(least, 3)))
        wanted = least if depth >= _DEEPEST else self._source.randint(least, min(most, max(least, 3)))
        prefix: list[Any] = list(node.get("prefixItems", ()))
        items: Any = node.get("items", True)
        made: list[Any] = []
        for _ in range(wanted * 10):
            if len(made) >= wanted:
                break
            item = self.value(prefix[len(made)] if len(made) < len(prefix) else items, depth + 1)
            if not node.get("uniqueItems") or item not in made:
                made.append(item)
        return made

    def _integer(self, node: Mapping[str, Any]) -> int:
        least, most = _bounds(node, step=1)
        step = int(node.get("multipleOf", 1)) or 1
        low, high = -(-int(-(-least // 1)) // step), int(most // 1) // step
        if low > high:
            raise NoSample("no integer lies between the bounds")
        return self._source.randint(low, high) * step

    def _number(self, node: Mapping[str, Any]) -> float | int:
        if node.get("multipleOf"):
            step = node["multipleOf"]
            least, most = _bounds(node, step=step)
            return self._source.randint(int(-(-least // step)), int(most // step)) * step
        least, most = _bounds(node, step=(0.001))
        return min(max(round(self._source.uniform(least, most), 3), least), most)

    def _string(self, node: Mapping[str, Any]) -> str:
        if node.get("format") in _FORMATS:
            return _FORMATS[node["format"]]
        least = int(node.get("minLength", 0))
        most = int(node.get("maxLength", max(least, 60)))
        text = self._words(self._source.randint(1, 6))
        while len(text) < least:
            text += " " + self._words(3)
        return text[:most]

    def _words(self, count: int) -> str:
        return " ".join(self._source.choice(_WORDS) for _ in range(count))


def _merged(first: Mapping[str, Any], second: Any) -> dict[str, Any]:
    """Both schemas in one: what both say of properties and required is joined, otherwise the second one counts."""
    if second is True:
        return dict(first)
    if not isinstance(second, Mapping):
        raise NoSample("nothing fits")
    other = cast("Mapping[str, Any]", second)
    joined = {**first, **other}
    if "properties" in first and "properties" in other:
        joined["properties"] = {**first["properties"], **other["properties"]}
    if "required" in first and "required" in other:
        joined["required"] = [*first["required"], *other["required"]]
    return joined


def _guess(node: Mapping[str, Any]) -> str:
    """The type that a schema without `type` is about."""
    if {"properties", "required", "additionalProperties", "minProperties"} & node.keys():
        return "object"
    if {"items", "prefixItems", "minItems", "maxItems", "uniqueItems"} & node.keys():
        return "array"
    if {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"} & node.keys():
        return "integer"
    return "string"


def _bounds(node: Mapping[str, Any], *, step: float) -> tuple[float, float]:
    """The least and the greatest number that `node` takes; 0 to 100 where it does not say."""
    lows = [value for value in (node.get("minimum"),) if value is not None]
    highs = [value for value in (node.get("maximum"),) if value is not None]
    if node.get("exclusiveMinimum") is not None:
        lows.append(node["exclusiveMinimum"] + step)
    if node.get("exclusiveMaximum") is not None:
        highs.append(node["exclusiveMaximum"] - step)
    least = max(lows) if lows else (min(0, min(highs) - 100) if highs else 0)
    most = min(highs) if highs else max(100, least + 100)
    if least > most:
        raise NoSample("the bounds exclude every number")
    return least, most
