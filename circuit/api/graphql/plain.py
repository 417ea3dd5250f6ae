"""The short way for selections of an execution's stream: one payload, encoded once for all who select the same.

The executor walks over every field of every event for every subscriber, which costs several times what the socket
does. A subscription to `agentExecutionStream` needs no executor: what it answers depends on the event alone, whatever
fragments, `@include` and `@skip` it is written with. What is unusual (several operations, a fragment in two places,
documents that are long, anything that GraphQL would object to) is left to the executor, which answers and objects as
it always does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLIncludeDirective,
    GraphQLSchema,
    GraphQLSkipDirective,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionNode,
    SelectionSetNode,
    parse,
    validate,
)
from graphql.execution.values import get_argument_values, get_directive_values, get_variable_values

from circuit.api.graphql.streams import AgentStreamEvent, values
from circuit.events import Frame, StreamType

ROOT_FIELD = "agentExecutionStream"
TYPE_NAME = "__typename"
LONGEST_DOCUMENT = 4_000
"""Characters; a plain selection is much shorter, and what is longer is for the executor's limits to judge."""
MOST_SELECTIONS = 40
"""Fields and fragments of a document, which are looked at before GraphQL's rules compare them with each other."""
TYPES = frozenset(kind.value for kind in StreamType)


class Projection:
    """What a selection makes of an event: the JSON of `data`. Frames keep it by the projection's identity."""

    __slots__ = ("_field", "_selected")

    def __init__(self, field: str, selected: tuple[tuple[str, str | None], ...]) -> None:
        self._field = field
        self._selected = selected

    def __call__(self, frame: Frame) -> bytes:
        event = values(frame)
        selected = {
            key: AgentStreamEvent.__name__ if attribute is None else event[attribute]
            for key, attribute in self._selected
        }
        return orjson.dumps({self._field: selected})


@dataclass(frozen=True, slots=True)
class Plain:
    """A subscription that may be plain, as far as it does not depend on its variables."""

    operation: OperationDefinitionNode
    fragments: Mapping[str, FragmentDefinitionNode]

    def fields(self, selections: SelectionSetNode | None, variables: Any) -> Iterator[FieldNode]:
        """The fields that are selected with these variables. Of a valid document no fragment is of another type."""
        for node in () if selections is None else selections.selections:
            if not _included(node, variables):
                continue
            if isinstance(node, FieldNode):
                yield node
            elif isinstance(node, InlineFragmentNode):
                yield from self.fields(node.selection_set, variables)
            elif isinstance(node, FragmentSpreadNode):
                yield from self.fields(self.fragments[node.name.value].selection_set, variables)


@dataclass(frozen=True, slots=True)
class Asked:
    """A plain subscription: which execution, behind which cursor, what of each event, and of which (None: of all)."""

    execution_id: str
    after: str | None
    projection: Projection
    types: frozenset[str] | None

    def wants(self, frame: Frame) -> bool:
        """Whether the event of `frame` was asked for."""
        return self.types is None or frame.type.value in self.types


class PlainSelections:
    """Recognises plain subscriptions of a schema. `attributes` are the fields of an event and where it holds them."""

    def __init__(self, schema: GraphQLSchema, attributes: Mapping[str, str]) -> None:
        self._schema = schema
        self._attributes = attributes
        self._recognised = lru_cache(maxsize=256)(self._recognise)
        # Whoever selects the same must get the same projection, or nothing would be shared.
        self._projection = lru_cache(maxsize=256)(Projection)

    def asked(self, query: str, variables: Mapping[str, Any] | None, name: str | None) -> Asked | None:
        """What `query` asks for, or None if it is not plain."""
        if len(query) > LONGEST_DOCUMENT:
            return None
        plain = self._recognised(query, name)
        if plain is None or self._schema.subscription_type is None:
            return None
        given = get_variable_values(self._schema, plain.operation.variable_definitions or (), dict(variables or {}))
        if isinstance(given, list):
            return None
        try:
            roots = list(plain.fields(plain.operation.selection_set, given))
            if len(roots) != 1 or roots[0].name.value != ROOT_FIELD:
                return None
            arguments = get_argument_values(self._schema.subscription_type.fields[ROOT_FIELD], roots[0], given)
            selected = self._selected(plain.fields(roots[0].selection_set, given))
        except GraphQLError:
            return None
        types = arguments.get("types")
        if not selected or not TYPES.issuperset(types or ()):
            return None
        projection = self._projection(_key(roots[0]), tuple(selected.items()))
        return Asked(
            arguments["executionId"], arguments.get("after"), projection, None if types is None else frozenset(types)
        )

    def _recognise(self, query: str, name: str | None) -> Plain | None:
        try:
            document = parse(query)
        except (GraphQLError, RecursionError):
            return None
        operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
        if len(operations) != 1 or operations[0].operation is not OperationType.SUBSCRIPTION:
            return None
        operation = operations[0]
        if name is not None and (operation.name is None or operation.name.value != name):
            return None
        if not _small(document) or validate(self._schema, document):
            return None
        fragments = [node for node in document.definitions if isinstance(node, FragmentDefinitionNode)]
        return Plain(operation, {node.name.value: node for node in fragments})

    def _selected(self, nodes: Iterator[FieldNode]) -> dict[str, str | None]:
        """The keys of the answer and the attributes behind them (None: the name of the type)."""
        return {
            _key(node): None if (name := node.name.value) == TYPE_NAME else self._attributes[name] for node in nodes
        }


def attributes_of(kind: Any) -> dict[str, str]:
    """The fields of a strawberry type: the name in GraphQL, and the attribute."""
    definition: Any = kind.__strawberry_definition__
    return {_camel(field.name): field.name for field in definition.fields}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _key(node: FieldNode) -> str:
    return (node.alias or node.name).value


def _included(node: SelectionNode, variables: Any) -> bool:
    if not node.directives:
        return True
    skip = get_directive_values(GraphQLSkipDirective, node, variables)
    include = get_directive_values(GraphQLIncludeDirective, node, variables)
    return not (skip and skip["if"]) and not (include and not include["if"])


def _small(document: DocumentNode) -> bool:
    """Whether the document has few selections, and no fragment in more than one place."""
    waiting = [getattr(definition, "selection_set", None) for definition in document.definitions]
    spread: set[str] = set()
    count = 0
    while waiting:
        selections = waiting.pop()
        for node in () if selections is None else selections.selections:
            count += 1
            if isinstance(node, FragmentSpreadNode):
                if node.name.value in spread:
                    return False
                spread.add(node.name.value)
            else:
                waiting.append(getattr(node, "selection_set", None))
        if count > MOST_SELECTIONS:
            return False
    return True
