"""The JSON Schemas of the format, from which editors complete and explain workflow files and fragments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from circuit.definition.document import RULE_KINDS, Document
from circuit.definition.field import Part
from circuit.definition.inclusion import SECTIONS

SCHEMA_FILE = "docs/reference/workflow.schema.json"
FRAGMENT_SCHEMA_FILE = "docs/reference/fragment.schema.json"

_PARAMETER = r"\$\([^)]*\)"


class _Generator(GenerateJsonSchema):
    """Without `default: null`: what is left out is left out, and editors should not offer to write it."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        generated = super().default_schema(schema)
        if generated.get("default", 0) is None:
            del generated["default"]
        return generated


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of workflow files, short and long forms."""
    schema = Document.model_json_schema(schema_generator=_Generator)
    definitions: dict[str, Any] = schema["$defs"]
    for model in parts():
        described = schema if model is Document else definitions.get(model.__name__)
        if described is not None:  # else it is only what several kinds have in common
            _explain(model, described["properties"])
    _close(schema)
    # A rule has exactly one test; the model checks it, and an editor should know it.
    definitions["RuleEntry"]["oneOf"] = [{"required": [kind]} for kind in RULE_KINDS]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Circuit workflow",
    }


def fragment_schema() -> dict[str, Any]:
    """The JSON Schema of fragments: what they add as workflow files have it, and `$(NAME)` wherever a value stands."""
    workflow = json_schema()
    sections = {name: workflow["properties"][name] for name in (*SECTIONS, "include", "place_agents")}
    # A fragment adds places under their names: the short form, a list, says which of them is initial.
    sections["places"] = {**sections["places"], "type": "object"}
    defined: dict[str, Any] = _with_parameters(workflow["$defs"])
    return {
        "$schema": workflow["$schema"],
        "$defs": defined,
        "title": "Circuit fragment",
        "description": "A part of workflows, which their files include. $(NAME) in its text is the parameter NAME.",
        "type": "object",
        "additionalProperties": False,
        "required": ["fragment"],
        "properties": {
            "fragment": {"type": "string", "title": "Fragment", "description": "Its name."},
            "description": workflow["properties"]["description"],
            "parameters": {
                "type": "object",
                "title": "Parameters",
                "description": "Names with their defaults: texts of one line, numbers, booleans; null where a value is "
                "needed.",
                "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
            },
            **_with_parameters(sections),
        },
    }


def _with_parameters(schema: Any) -> Any:
    """The schema, where a parameter may stand for each value, and for a part of each name."""
    if isinstance(schema, list):
        return [_with_parameters(part) for part in schema]  # type: ignore[reportUnknownVariableType]
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {}
    for key, value in schema.items():  # type: ignore[reportUnknownVariableType]
        if key == "oneOf" and not all("required" in part for part in value):  # type: ignore[reportUnknownVariableType]
            # A parameter fits more than one kind of value.
            found["anyOf"] = _with_parameters(value)
        elif key == "patternProperties":
            found[key] = {_or_parameter(name): _with_parameters(part) for name, part in value.items()}  # type: ignore[reportUnknownVariableType]
        elif key == "pattern" and isinstance(value, str):  # there is a key of the format called so too
            found[key] = _or_parameter(value)
        elif key in ("const", "discriminator", "required"):
            found.update({key: value} if key != "discriminator" else {})
        else:
            found[str(key)] = _with_parameters(value)  # type: ignore[reportUnknownArgumentType]
    if found.get("type") in ("integer", "number", "boolean") or ("enum" in found and "const" not in found):
        words = {key: found.pop(key) for key in ("title", "description") if key in found}
        return {**words, "anyOf": [found, {"type": "string", "pattern": _PARAMETER}]}
    return found


def _or_parameter(pattern: str) -> str:
    return f"(?:{pattern})|{_PARAMETER}"


def parts(model: type[Part] = Part) -> Iterator[type[Part]]:
    """All kinds of mappings of the format."""
    for part in model.__subclasses__():
        yield part
        yield from parts(part)


def _explain(model: type[Part], properties: dict[str, Any]) -> None:
    """A title for each key."""
    for name, info in model.model_fields.items():
        described = properties[info.alias or name]
        described.setdefault("title", (info.alias or name).replace("_", " ").capitalize())


def _close(schema: Any) -> None:
    """Keys that are names must be names: pydantic only says what the others are held against."""
    if isinstance(schema, list):
        for part in schema:  # type: ignore[reportUnknownVariableType]
            _close(part)
    elif isinstance(schema, dict):
        if "patternProperties" in schema:
            schema.setdefault("additionalProperties", False)  # type: ignore[reportUnknownMemberType]
        for part in schema.values():  # type: ignore[reportUnknownVariableType]
            _close(part)
