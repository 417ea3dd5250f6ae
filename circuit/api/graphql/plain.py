"""The short way for plain selections of an execution's stream: one payload, encoded once for all who select the same.

The executor walks over every field of every event for every subscriber, which costs several times what the socket
does. A subscription to `agentExecutionStream` that selects nothing but fields of the event needs no executor: what it
answers depends on the event alone. Whatever is not as plain as that (fragments, directives, several root fields,
anything that GraphQL would object to) is left to the executor, which answers and objects as it always does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    parse,
    validate,
)
from graphql.execution.values import get_argument_values, get_variable_values

from circuit.api.graphql.streams import stream_event
from circuit.events import Frame

ROOT_FIELD = "agentExecutionStream"
TYPE_NAME = "__typename"
LONGEST_DOCUMENT = 4_000
"""Characters; a plain selection is much shorter, and what is longer is for the executor's limits to judge."""
MOST_FIELDS = 30


class Projection:
    """What a selection makes of an event: the JSON of `data`. Frames keep it by the projection's identity."""

    __slots__ = ("_field", "_selected")

    def __init__(self, field: str, selected: Mapping[str, str | None]) -> None:
        self._field = field
        self._selected = selected

    def __call__(self, frame: Frame) -> bytes:
        event = stream_event(frame)
        values = {
            key: event.__class__.__name__ if attribute is None else getattr(event, attribute)
            for key, attribute in self._selected.items()
        }
        return orjson.dumps({self._field: values})


@dataclass(frozen=True, slots=True)
class Plain:
    """A plain subscription, as far as it does not depend on its variables."""

    operation: OperationDefinitionNode
    node: FieldNode
    projection: Projection


@dataclass(frozen=True, slots=True)
class Asked:
    """A plain subscription: which execution, behind which cursor, and what of each event."""

    execution_id: str
    after: str | None
    projection: Projection


class PlainSelections:
    """Recognises plain subscriptions of a schema. `attributes` are the fields of an event and where it holds them."""

    def __init__(self, schema: GraphQLSchema, attributes: Mapping[str, str]) -> None:
        self._schema = schema
        self._attributes = attributes
        # Whoever selects the same must get the same projection, or nothing would be shared.
        self._recognised = lru_cache(maxsize=256)(self._recognise)

    def asked(self, query: str, variables: Mapping[str, Any] | None, name: str | None) -> Asked | None:
        """What `query` asks for, or None if it is not plain."""
        if len(query) > LONGEST_DOCUMENT:
            return None
        plain = self._recognised(query, name)
        if plain is None or self._schema.subscription_type is None:
            return None
        values = get_variable_values(self._schema, plain.operation.variable_definitions or (), dict(variables or {}))
        if isinstance(values, list):
            return None
        try:
            field = self._schema.subscription_type.fields[ROOT_FIELD]
            arguments = get_argument_values(field, plain.node, values)
        except GraphQLError:
            return None
        if arguments.get("types") is not None:
            return None
        return Asked(arguments["executionId"], arguments.get("after"), plain.projection)

    def _recognise(self, query: str, name: str | None) -> Plain | None:
        try:
            document = parse(query)
        except (GraphQLError, RecursionError):
            return None
        operation = _only_operation(document)
        if operation is None or operation.operation is not OperationType.SUBSCRIPTION or operation.directives:
            return None
        if name is not None and (operation.name is None or operation.name.value != name):
            return None
        roots = operation.selection_set.selections
        root = roots[0]
        if len(roots) != 1 or not isinstance(root, FieldNode) or root.name.value != ROOT_FIELD or root.directives:
            return None
        selected = self._selected(root)
        if selected is None or validate(self._schema, document):
            return None
        return Plain(operation, root, Projection(_key(root), selected))

    def _selected(self, root: FieldNode) -> dict[str, str | None] | None:
        """The keys of the answer and the attributes behind them (None: the name of the type)."""
        nodes = root.selection_set.selections if root.selection_set is not None else ()
        if not nodes or len(nodes) > MOST_FIELDS:
            return None
        selected: dict[str, str | None] = {}
        for node in nodes:
            if not isinstance(node, FieldNode) or node.directives or node.selection_set or node.arguments:
                return None
            name = node.name.value
            if name != TYPE_NAME and name not in self._attributes:
                return None
            selected[_key(node)] = None if name == TYPE_NAME else self._attributes[name]
        return selected


def attributes_of(kind: Any) -> dict[str, str]:
    """The fields of a strawberry type: the name in GraphQL, and the attribute."""
    definition: Any = kind.__strawberry_definition__
    return {_camel(field.name): field.name for field in definition.fields}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _key(node: FieldNode) -> str:
    return (node.alias or node.name).value


def _only_operation(document: DocumentNode) -> OperationDefinitionNode | None:
    if len(document.definitions) != 1:
        return None
    definition = document.definitions[0]
    return definition if isinstance(definition, OperationDefinitionNode) else None
