"""Operations made from the schema itself, so that none is forgotten: an argument gets a value by its name and type."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from graphql import (
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNamedType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    get_named_type,
    is_leaf_type,
)

from circuit.api.graphql.schema import create_schema

Value = Callable[[str, Any], Any]
"""The value of an argument or an input field, by its name and its type."""

SCHEMA: GraphQLSchema = create_schema()._schema
DEEPEST = 3


@dataclass(frozen=True)
class Operation:
    """One root field, asked for with all that it gives."""

    root: str
    name: str
    field: GraphQLField

    @property
    def document(self) -> str:
        declared = ", ".join(f"${name}: {argument.type}" for name, argument in self.field.args.items())
        given = ", ".join(f"{name}: ${name}" for name in self.field.args)
        chosen = _selection(get_named_type(self.field.type), DEEPEST)
        declared, given = (f"({text})" if text else "" for text in (declared, given))
        return f"{self.root} A{declared} {{ {self.name}{given}{chosen} }}"

    def variables(self, value: Value, optional: bool = True) -> dict[str, Any]:
        return {
            name: argument_value(name, argument.type, value)
            for name, argument in self.field.args.items()
            if optional or isinstance(argument.type, GraphQLNonNull)
        }


def operations(*roots: str) -> Iterator[Operation]:
    """Every field of these roots."""
    for root in roots:
        kind = {"query": SCHEMA.query_type, "mutation": SCHEMA.mutation_type, "subscription": SCHEMA.subscription_type}
        found = kind[root]
        assert found is not None
        for name, field in found.fields.items():
            yield Operation(root, name, field)


def argument_value(name: str, kind: Any, value: Value) -> Any:
    """A value of this type: `value` gives its leaves."""
    if isinstance(kind, GraphQLNonNull):
        return argument_value(name, kind.of_type, value)
    if isinstance(kind, GraphQLList):
        return [argument_value(name, kind.of_type, value)]
    if isinstance(kind, GraphQLInputObjectType):
        return {field: argument_value(field, one.type, value) for field, one in kind.fields.items()}
    return value(name, kind)


def plain(name: str, kind: Any, known: Mapping[str, str]) -> Any:
    """A harmless value of a leaf; `known` has those of names that mean something."""
    if name in known and kind.name in ("String", "JSON"):
        return known[name]
    if name == "lifetimeSeconds":  # what lasts a second may be over before it is answered
        return 3_600.0
    values = {"Int": 1, "Float": 1.0, "Boolean": False, "JSON": {}, "DateTime": "2026-01-01T00:00:00Z"}
    if kind.name in values:
        return values[kind.name]
    return next(iter(kind.values)) if hasattr(kind, "values") else known.get("", "x")


def _selection(kind: GraphQLNamedType, depth: int) -> str:
    if is_leaf_type(kind) or not isinstance(kind, GraphQLObjectType):
        return ""
    chosen: list[str] = []
    for name, field in kind.fields.items():
        inside = get_named_type(field.type)
        if any(isinstance(one.type, GraphQLNonNull) and one.default_value is None for one in field.args.values()):
            continue
        if is_leaf_type(inside):
            chosen.append(name)
        elif depth:
            chosen.append(f"{name}{'(first: 3)' if 'first' in field.args else ''}{_selection(inside, depth - 1)}")
    return f" {{ {' '.join(chosen)} }}"
