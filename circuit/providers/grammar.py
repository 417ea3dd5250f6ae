"""The part of a JSON Schema to which Anthropic holds an answer.

Its API refuses what it cannot hold an answer to: numbers within bounds, lengths, patterns, objects that take more
properties than they name, schemas that contain themselves. What only narrows is left out here, and the answer is
checked against the whole schema all the same; what cannot be said without is no grammar, and the schema goes into the
prompt alone. (The guide to structured outputs, "JSON Schema limitations", and the SDK, which rewrites schemas too.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

_SAID = {"title", "description"}
_QUIET = {"$schema", "$id", "$comment", "default", "examples", "deprecated", "readOnly", "writeOnly"}
_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
_UNSAYABLE = {"allOf", "patternProperties", "prefixItems", "$dynamicRef", "propertyNames", "unevaluatedProperties"}
_PRIMITIVES = (str, int, float, bool, type(None))
_DEFINED = "#/$defs/"


@dataclass(frozen=True, slots=True)
class Grammar:
    """A schema that the API takes. `whole` says that it says all that the original does."""

    schema: Mapping[str, Any]
    whole: bool


class _Unsayable(ValueError):
    """There is no grammar for a schema."""


def grammar_of(schema: Mapping[str, Any]) -> Grammar | None:
    """The grammar of `schema`; None where there is none."""
    writing = _Writing(schema.get("$defs") or {})
    try:
        made = writing.node({key: value for key, value in schema.items() if key != "$defs"})
        if writing.used:
            made["$defs"] = writing.used
    except _Unsayable:
        return None
    return Grammar(made, not writing.left_out)


@dataclass(slots=True)
class _Writing:
    definitions: Mapping[str, Any]
    used: dict[str, Any] = field(default_factory=dict[str, Any])
    left_out: bool = False
    _open: list[str] = field(default_factory=list[str])

    def node(self, node: Any) -> dict[str, Any]:
        """What `node` comes to. Raises `_Unsayable`."""
        if not isinstance(node, Mapping):
            raise _Unsayable
        fields = {key: value for key, value in cast("Mapping[str, Any]", node).items() if key not in _QUIET}
        if _UNSAYABLE & set(fields):
            raise _Unsayable
        said = {key: fields.pop(key) for key in _SAID & set(fields)}
        made = {**said, **self._form(fields)}
        self.left_out = self.left_out or bool(fields)
        return made

    def _form(self, fields: dict[str, Any]) -> dict[str, Any]:
        """What `fields` say of the form of a value; what is said is taken out of them."""
        if "$ref" in fields:
            return {"$ref": self._reference(fields.pop("$ref"))}
        for key in ("enum", "const"):
            if key in fields:
                fields.pop("type", None)
                value = fields.pop(key)
                if not all(isinstance(one, _PRIMITIVES) for one in (value if key == "enum" else [value])):
                    raise _Unsayable
                return {key: value}
        for key in ("anyOf", "oneOf"):
            if key in fields:
                fields.pop("type", None)
                # Only one of `oneOf` may hold; the check of the answer sees to that.
                self.left_out = self.left_out or key == "oneOf"
                return {"anyOf": [self.node(one) for one in fields.pop(key)]}
        kind = fields.pop("type", None)
        if isinstance(kind, list):
            kinds = cast("list[str]", kind)
            shared = dict(fields)
            fields.clear()
            return {"anyOf": [self.node({"type": one, **_of(one, shared)}) for one in kinds]}
        if not isinstance(kind, str):
            raise _Unsayable
        return {"type": kind, **self._of_type(kind, fields)}

    def _of_type(self, kind: str, fields: dict[str, Any]) -> dict[str, Any]:
        if kind == "object":
            known: Any = fields.pop("properties", None)
            if fields.pop("additionalProperties", False) is not False or not known:
                raise _Unsayable
            made = {"properties": {name: self.node(one) for name, one in known.items()}, "additionalProperties": False}
            required: Any = fields.pop("required", None)
            if required and not set(required) <= set(known):
                raise _Unsayable
            return {**made, **({"required": list(required)} if required else {})}
        if kind == "array":
            made = {"items": self.node(fields.pop("items", None))}
            if fields.get("minItems") in (0, 1):
                made["minItems"] = fields.pop("minItems")
            return made
        if kind == "string" and fields.get("format") in _FORMATS:
            return {"format": fields.pop("format")}
        return {}

    def _reference(self, reference: Any) -> str:
        name = str(reference).removeprefix(_DEFINED)
        if not str(reference).startswith(_DEFINED) or name not in self.definitions or name in self._open:
            raise _Unsayable  # it leads out of the definitions, or a schema contains itself
        if name not in self.used:
            self._open.append(name)
            self.used[name] = self.node(self.definitions[name])
            self._open.pop()
        return str(reference)


_OF_TYPE = {
    "object": {"properties", "required", "additionalProperties", "minProperties", "maxProperties"},
    "array": {"items", "minItems", "maxItems", "uniqueItems", "contains"},
    "string": {"minLength", "maxLength", "pattern", "format"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
}


def _of(kind: str, shared: Mapping[str, Any]) -> dict[str, Any]:
    """Of what several types share, what concerns one of them."""
    mine = _OF_TYPE.get("number" if kind == "integer" else kind, set[str]())
    others = set[str]().union(*_OF_TYPE.values()) - mine
    return {key: value for key, value in shared.items() if key not in others}
