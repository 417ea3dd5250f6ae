"""The JSON Schema of the format, from which editors complete and explain workflow files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from circuit.definition.document import RULE_KINDS, Document
from circuit.definition.field import Part

SCHEMA_FILE = "docs/reference/workflow.schema.json"


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
