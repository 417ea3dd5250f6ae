"""Schemas of an OpenAPI document as JSON Schema: what they refer to is collected, and 3.0's own words are put into
JSON Schema's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

import jsonschema_rs

from circuit.errors import ToolsMisconfigured

_COMPONENTS = "#/components/schemas/"
_NAMED = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
_SEVERAL = {"allOf", "anyOf", "oneOf", "prefixItems"}
_ONE = {"items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames",
        "unevaluatedItems", "unevaluatedProperties"}  # fmt: skip
_LEFT_OUT = {"nullable", "example", "examples", "xml", "externalDocs", "discriminator", "readOnly", "writeOnly", "$id",
             "$schema", "$anchor", "$recursiveAnchor", "$recursiveRef"}  # fmt: skip
_FARTHEST = 20
"""How many references may lead to one another before something that is none."""


class Schemas:
    """The schemas of one operation, for a request: what only the server sets (`readOnly`) is no part of them."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._names: dict[str, str] = {}
        self._pending: list[str] = []

    def of(self, value: Any) -> Any:
        """`value` as JSON Schema, whose references lead into `$defs`."""
        if not isinstance(value, Mapping):
            return value
        fields = cast("Mapping[str, Any]", value)
        made: dict[str, Any] = {}
        for name, item in fields.items():
            if name == "$ref" and isinstance(item, str):
                made[name] = f"#/$defs/{self._name(item)}"
            elif name in _NAMED:
                made[name] = {str(key): self.of(one) for key, one in mapped(item).items() if not self._set(name, one)}
            elif name in _SEVERAL:
                made[name] = [self.of(one) for one in listed(item)]
            elif name in _ONE:
                made[name] = [self.of(one) for one in listed(item)] if isinstance(item, list) else self.of(item)
            elif name == "required":
                kept = mapped(fields.get("properties"))
                made |= (
                    {name: [one for one in item if not self._set("properties", kept.get(one))]}
                    if isinstance(item, list)
                    else {}
                )
            elif name == "pattern":
                made |= {name: item} if _compiles(str(item)) else {}
            elif name not in _LEFT_OUT and not str(name).startswith("x-"):
                made[str(name)] = item
        _bound(made, "minimum", "exclusiveMinimum")
        _bound(made, "maximum", "exclusiveMaximum")
        return _nullable(made) if fields.get("nullable") is True else made

    def collected(self) -> dict[str, Any]:
        """What was referred to, and what that refers to."""
        made: dict[str, Any] = {}
        while self._pending:
            target = self._pending.pop()
            found = _found(self._document, target)
            if found is None:
                raise ToolsMisconfigured(f"the OpenAPI document refers to {target}, which it does not hold")
            made[self._names[target]] = self.of(found)
        return made

    def _set(self, keyword: str, value: Any) -> bool:
        """Whether a property is set by the server alone."""
        return keyword == "properties" and dereferenced(self._document, value).get("readOnly") is True

    def _name(self, target: str) -> str:
        if not target.startswith("#/"):
            raise ToolsMisconfigured(
                f"the OpenAPI document refers to {target:.200}, outside of itself: bundle it into one document"
            )
        if target not in self._names:
            plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", target.removeprefix(_COMPONENTS).removeprefix("#/"))
            taken = set(self._names.values())
            self._names[target] = plain if plain not in taken else f"{plain}_{len(taken)}"
            self._pending.append(target)
        return self._names[target]


def dereferenced(document: Mapping[str, Any], value: Any) -> Mapping[str, Any]:
    """`value`, or what its `$ref` inside of the document leads to; nothing where that leads nowhere."""
    for _ in range(_FARTHEST):
        found = mapped(value)
        target = found.get("$ref")
        if not isinstance(target, str):
            return found
        value = _found(document, target)
    return {}


def mapped(value: Any) -> Mapping[str, Any]:
    """`value` if it is a mapping, else an empty one."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def listed(value: Any) -> list[Any]:
    """`value` if it is a list, else an empty one."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def _found(document: Mapping[str, Any], target: str) -> Any:
    found: Any = document
    for step in target.removeprefix("#/").split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list):
            items = listed(found)
            found = items[int(name)] if name.isdecimal() and int(name) < len(items) else None
        else:
            found = mapped(found).get(name)
    return found


def _bound(made: dict[str, Any], name: str, exclusive: str) -> None:
    """3.0 says by a flag that a bound is itself excluded."""
    if isinstance(made.get(exclusive), bool) and made.pop(exclusive) and name in made:
        made[exclusive] = made.pop(name)


def _nullable(made: dict[str, Any]) -> dict[str, Any]:
    if "enum" in made and None not in listed(made["enum"]):
        made["enum"] = [*listed(made["enum"]), None]
    if isinstance(made.get("type"), str):
        return made | {"type": [made["type"], "null"]}
    return {"anyOf": [made, {"type": "null"}]} if made.keys() & {"$ref", *_SEVERAL} else made


@lru_cache(1024)
def _compiles(pattern: str) -> bool:
    """Whether a regular expression is one here: those of other languages are not held against an argument."""
    try:
        jsonschema_rs.validator_for({"pattern": pattern})
    except (jsonschema_rs.ValidationError, ValueError):
        return False
    return True
