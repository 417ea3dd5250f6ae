"""Whether a JSON Schema keeps to the rules of OpenAI's strict structured outputs.

In strict mode every object lists all of its properties as required and takes no others, the root is an object, and
only a part of JSON Schema may be used; a schema outside of these rules is refused by the server, so it is sent with
`strict: false`. (OpenAI's guide to structured outputs, "Supported schemas".)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

_ANNOTATIONS = {"title", "description"}
_BY_TYPE: dict[str, set[str]] = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"pattern", "format"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    "boolean": set(),
    "null": set(),
}
_MOST_DEEP = 5
_MOST_PROPERTIES = 100


def satisfies_strict(schema: Mapping[str, Any]) -> bool:
    """Whether `schema` may be sent with `strict: true`."""
    if schema.get("type") != "object":
        return False
    definitions: Any = schema.get("$defs", {})
    if not isinstance(definitions, Mapping):
        return False
    nodes = [schema, *cast("Mapping[str, Any]", definitions).values()]
    return _properties(schema) <= _MOST_PROPERTIES and all(_node(node, 0, root=node is schema) for node in nodes)


def _node(node: Any, depth: int, *, root: bool = False) -> bool:
    if not isinstance(node, Mapping) or depth > _MOST_DEEP:
        return False
    fields = cast("Mapping[str, Any]", node)
    keys = set(fields) - _ANNOTATIONS - ({"$defs", "$schema"} if root else set())
    if "$ref" in keys:
        return keys == {"$ref"} and str(fields["$ref"]).startswith("#")
    if "anyOf" in keys:
        options: Any = fields["anyOf"]
        if keys != {"anyOf"} or not isinstance(options, list):
            return False
        return all(_node(option, depth + 1) for option in cast("list[Any]", options))
    types: Any = fields.get("type")
    names = cast("list[Any]", types) if isinstance(types, list) else [types]
    if not names or not all(isinstance(name, str) and name in _BY_TYPE for name in names):
        return False
    allowed = {"type", "enum", "const"}.union(*(_BY_TYPE[name] for name in names))
    if not keys <= allowed:
        return False
    if "object" in names and not _object(fields, depth):
        return False
    return "array" not in names or _node(fields.get("items"), depth + 1)


def _object(fields: Mapping[str, Any], depth: int) -> bool:
    properties: Any = fields.get("properties", {})
    required: Any = fields.get("required", [])
    if fields.get("additionalProperties") is not False:
        return False
    if not isinstance(properties, Mapping) or not isinstance(required, list):
        return False
    members = cast("Mapping[str, Any]", properties)
    return set(members) == set(cast("list[Any]", required)) and all(_node(m, depth + 1) for m in members.values())


def _properties(node: Any) -> int:
    """How many properties `node` has at all depths."""
    if isinstance(node, list):
        return sum(_properties(item) for item in cast("list[Any]", node))
    if not isinstance(node, Mapping):
        return 0
    fields = cast("Mapping[str, Any]", node)
    own: Any = fields.get("properties")
    count = len(cast("Mapping[str, Any]", own)) if isinstance(own, Mapping) else 0
    return count + sum(_properties(value) for value in fields.values())
