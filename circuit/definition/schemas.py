"""JSON Schemas inside of a workflow file: what is wrong with them, and colours that refer to each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import jsonschema_rs

from circuit.definition.fault_text import suggestion
from circuit.definition.tree import PathTuple
from circuit.definition.validation import Report
from circuit.net.colour import Colour

DRAFT = "https://json-schema.org/draft/2020-12/schema"
TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")

_HINT = "see https://json-schema.org/understanding-json-schema"
_PREFIX = "#/colours/"
_NAMED_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_PLAIN_DATA = ("const", "enum", "default", "examples", "example")


def bundle(schema: Mapping[str, Any], colours: Mapping[str, Any], own: str | None = None) -> dict[str, Any]:
    """The schema with the colours that it refers to put into its `$defs`, so that it stands for itself.

    `own` is the name under which other colours refer to this very schema.
    """
    names = [name for name in _reachable(schema, colours) if name != own]
    bundled = _rewritten(schema, colours, own, None)
    if names:
        definitions: dict[str, Any] = dict(bundled.get("$defs") or {})
        for name in names:
            part = _rewritten(colours[name], colours, own, name)
            definitions[f"colour.{name}"] = {key: item for key, item in part.items() if key not in ("$id", "$schema")}
        bundled["$defs"] = definitions
    return bundled


def check_schema(report: Report, path: PathTuple, schema: Mapping[str, Any], colours: Mapping[str, Any]) -> bool:
    """Report what is wrong with the schema that stands at `path`; whether it can be used."""
    sound = True
    for where, reference in references(schema):
        problem = _reference_fault(reference, colours)
        if problem is not None:
            report.add((*path, *where), *problem)
            sound = False
    if schema.get("$schema", DRAFT) == DRAFT:
        for error in _meta_schema().iter_errors(dict(schema)):
            for where, message, hint in _schema_faults(tuple(error.instance_path), error.message, error.instance):
                report.add((*path, *where), message, hint)
            sound = False
    if not sound or not all(_plausible(colours[name], colours) for name in _reachable(schema, colours)):
        return False
    try:
        own = path[-1] if path[:1] == ("colours",) and isinstance(path[-1], str) else None
        Colour(str(path[-1]), bundle(schema, colours, own))
    except ValueError as error:
        before, _, after = str(error).partition(": ")
        steps = tuple(int(step) if step.isdigit() else step for step in before.split("/"))
        inner = report.tree.node(report.written((*path, *steps))) is not None
        message = after if inner else str(error)
        report.add((*path, *steps) if inner else path, f"not a JSON Schema: {message}", _HINT, key=not inner)
        return False
    return True


def references(schema: Any) -> Iterator[tuple[PathTuple, str]]:
    """Every `$ref` of a schema, with its path; what stands in the place of data is no reference."""
    for path, part in _parts(schema, ()):
        for key in ("$ref", "$dynamicRef"):
            target = part.get(key)
            if isinstance(target, str):
                yield (*path, key), target


def properties_of(
    schema: Mapping[str, Any], colours: Mapping[str, Any], *, closed: bool = False
) -> tuple[str, ...] | None:
    """The names that objects of this schema can have, or None if they are not known. Where it must be `closed`, one
    that does not exclude other names leaves them unknown."""
    for _ in range(10):
        target = schema.get("$ref")
        if not isinstance(target, str) or "properties" in schema:
            break
        name = _colour_name(target, colours)
        if name is None or not isinstance(colours.get(name), Mapping):
            return None
        schema = colours[name]
    known = schema.get("properties")
    if schema.get("additionalProperties") is False and known is None and "patternProperties" not in schema:
        return ()
    if not isinstance(known, Mapping):
        return None
    if closed and schema.get("additionalProperties") is not False:
        return None
    open_keys = ("patternProperties", "allOf", "anyOf", "oneOf", "if", "$ref", "$dynamicRef", "dependentSchemas")
    if any(key in schema for key in open_keys) or schema.get("additionalProperties", False) is not False:
        return None
    return tuple(str(name) for name in known)  # type: ignore[reportUnknownArgumentType]


def _parts(value: Any, path: PathTuple) -> Iterator[tuple[PathTuple, Mapping[str, Any]]]:
    if isinstance(value, list):
        for index, item in enumerate(value):  # type: ignore[reportUnknownArgumentType]
            yield from _parts(item, (*path, index))
    if not isinstance(value, Mapping):
        return
    yield path, value  # type: ignore[reportUnknownMemberType]
    for key, item in value.items():  # type: ignore[reportUnknownVariableType]
        here = (*path, str(key))  # type: ignore[reportUnknownArgumentType]
        if key in _NAMED_SCHEMAS and isinstance(item, Mapping):
            for name, part in item.items():  # type: ignore[reportUnknownVariableType]
                yield from _parts(part, (*here, str(name)))  # type: ignore[reportUnknownArgumentType]
        elif key not in _PLAIN_DATA:
            yield from _parts(item, here)


def _rewritten(
    schema: Mapping[str, Any], colours: Mapping[str, Any], own: str | None, holder: str | None
) -> dict[str, Any]:
    """A copy whose references hold in the bundle. `holder` is the colour whose schema this is, if it is put in."""

    def target(text: str) -> str:
        name = _colour_name(text, colours)
        if name is None:
            if holder is None or not text.startswith("#") or (len(text) > 1 and text[1] != "/"):
                return text
            return _address(holder, own) + text[1:]
        rest = text.removeprefix(_PREFIX).removeprefix(name)
        return _address(name, own) + rest

    def copied(value: Any) -> Any:
        if isinstance(value, list):
            return [copied(item) for item in value]  # type: ignore[reportUnknownVariableType]
        if not isinstance(value, Mapping):
            return value
        result: dict[str, Any] = {}
        for key, item in value.items():  # type: ignore[reportUnknownVariableType]
            name = str(key)  # type: ignore[reportUnknownArgumentType]
            if name == "$ref" and isinstance(item, str):
                result[name] = target(item)
            elif name in _NAMED_SCHEMAS and isinstance(item, Mapping):
                result[name] = {str(part): copied(one) for part, one in item.items()}  # type: ignore[reportUnknownArgumentType]
            else:
                result[name] = item if name in _PLAIN_DATA else copied(item)
        return result

    return copied(schema)


def _address(name: str, own: str | None) -> str:
    return "#" if name == own else f"#/$defs/colour.{name}"


def _colour_name(reference: str, colours: Mapping[str, Any]) -> str | None:
    """The colour that a `$ref` names: `#/colours/NAME`, perhaps with more after it, or the bare name."""
    if reference.startswith(_PREFIX):
        return reference.removeprefix(_PREFIX).split("/", 1)[0]
    return reference if reference in colours else None


def _reachable(schema: Mapping[str, Any], colours: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    pending: list[Any] = [schema]
    while pending:
        for _, reference in references(pending.pop()):
            name = _colour_name(reference, colours)
            if name is not None and name in colours and name not in found:
                found.append(name)
                pending.append(colours[name])
    return found


def _reference_fault(reference: str, colours: Mapping[str, Any]) -> tuple[str, str] | None:
    name = _colour_name(reference, colours)
    if name is not None:
        return (
            None if name in colours else (f"there is no colour {name!r}", suggestion(name, tuple(colours), "colours"))
        )
    if reference.startswith("#"):
        return None
    if "/" in reference or ":" in reference:
        message = f"{reference!r} is outside of this file; nothing is fetched"
        return message, "copy the schema into `colours` and write $ref: '#/colours/NAME'"
    return f"there is no colour {reference!r}", suggestion(reference, tuple(colours), "colours")


@cache
def _meta_schema() -> Any:
    return jsonschema_rs.validator_for({"$schema": DRAFT, "$ref": DRAFT})


def _plausible(schema: Mapping[str, Any], colours: Mapping[str, Any]) -> bool:
    """Whether another colour has no faults that are reported where it stands."""
    known = all(_reference_fault(reference, colours) is None for _, reference in references(schema))
    return known and (schema.get("$schema", DRAFT) != DRAFT or bool(_meta_schema().is_valid(dict(schema))))


def _schema_faults(where: PathTuple, message: str, instance: Any) -> list[tuple[PathTuple, str, str]]:
    if where and where[-1] == "type" and isinstance(instance, str | list):
        given: list[tuple[PathTuple, Any]] = [(where, instance)]
        if isinstance(instance, list):
            given = [((*where, index), item) for index, item in enumerate(instance)]  # type: ignore[reportUnknownArgumentType]
        wrong = [(at, item) for at, item in given if isinstance(item, str) and item not in TYPES]
        if wrong:
            return [
                (at, f"{item!r} is not a type of JSON Schema", suggestion(item, TYPES, "types")) for at, item in wrong
            ]
    short = message if len(message) <= 200 else f"{message[:197]}..."
    return [(where, f"not a JSON Schema: {short}", _HINT)]
