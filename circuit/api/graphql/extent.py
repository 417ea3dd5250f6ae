"""How far a query may go: its depth, its aliases, how often it repeats itself, and the values that it could give by the
pages that it asks for. It is looked at before GraphQL's own rules, of which some compare every field with every other.

Fragments are measured once each, however often they are spread, so that no document grows by doubling itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

from graphql import (
    FieldNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLField,
    GraphQLList,
    GraphQLObjectType,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    ValidationContext,
    ValidationRule,
    VariableNode,
    get_named_type,
    get_nullable_type,
    validate,
)
from strawberry.extensions import SchemaExtension

DEEPEST_QUERY = 12
MOST_ALIASES = 30
MOST_VALUES = 100_000
MOST_REPEATED = 60
"""How often one name may stand in a document."""
UNBOUNDED = 10
"""Entries that a list without `first` is taken to have."""


class Extent(NamedTuple):
    """The values that a selection could give, how deep it goes, and how many aliases it has."""

    values: int = 0
    depth: int = 0
    aliases: int = 0


class ExtentLimiter(SchemaExtension):
    """Refuses what goes too far, before anything else looks at it."""

    def on_validate(self) -> Iterator[None]:
        execution = self.execution_context
        variables: Mapping[str, Any] = execution.variables or {}

        class Limits(ValidationRule):
            def __init__(self, context: ValidationContext) -> None:
                super().__init__(context)
                self._measure = _Measure(context, variables)
                self._named: Counter[str] = Counter()

            def enter_field(self, node: FieldNode, *_: Any) -> None:
                name = (node.alias or node.name).value
                self._named[name] += 1
                if self._named[name] == MOST_REPEATED + 1:
                    message = f"the document has the name {name[:100]!r} more than {MOST_REPEATED} times"
                    self.report_error(GraphQLError(message, node))

            def enter_operation_definition(self, node: OperationDefinitionNode, *_: Any) -> None:
                root = self.context.schema.get_root_type(node.operation)
                found = Extent() if root is None else self._measure.of(node.selection_set, root)
                if found.depth > DEEPEST_QUERY:
                    message = f"the document is {found.depth} levels deep, and may be {DEEPEST_QUERY}"
                    self.report_error(GraphQLError(message, node))
                if found.aliases > MOST_ALIASES:
                    message = f"the document has {found.aliases:,} aliases, and may have {MOST_ALIASES}"
                    self.report_error(GraphQLError(message, node))
                if found.values > MOST_VALUES:
                    message = (
                        f"the query could give {found.values:,} values, and an answer has {MOST_VALUES:,} at most: ask"
                        " for smaller pages with `first`"
                    )
                    self.report_error(GraphQLError(message, node))

        document = execution.graphql_document
        if document is not None and execution.pre_execution_errors is None:
            schema: Any = execution.schema
            execution.pre_execution_errors = validate(schema._schema, document, (Limits,)) or None
        yield


class _Measure:
    def __init__(self, context: ValidationContext, variables: Mapping[str, Any]) -> None:
        self._context = context
        self._variables = variables
        self._known: dict[str, Extent] = {}

    def of(self, selections: SelectionSetNode, parent: GraphQLObjectType) -> Extent:
        values = depth = aliases = 0
        for node in selections.selections:
            if isinstance(node, FieldNode):
                found = self._of_field(node, parent)
            elif isinstance(node, InlineFragmentNode):
                found = self.of(node.selection_set, parent)
            else:
                found = self._of_fragment(cast("FragmentSpreadNode", node).name.value)
            values, depth, aliases = values + found.values, max(depth, found.depth), aliases + found.aliases
        return Extent(values, depth, aliases)

    def _of_fragment(self, name: str) -> Extent:
        if name not in self._known:
            self._known[name] = Extent()  # a fragment that spreads itself is for another rule to refuse
            found = self._context.get_fragment(name)
            kind = None if found is None else self._context.schema.get_type(found.type_condition.name.value)
            if found is not None and isinstance(kind, GraphQLObjectType):
                self._known[name] = self.of(found.selection_set, kind)
        return self._known[name]

    def _of_field(self, node: FieldNode, parent: GraphQLObjectType) -> Extent:
        field = parent.fields.get(node.name.value)
        own = 0 if node.alias is None else 1
        if field is None:  # of the schema itself, or refused by another rule
            return Extent(1, 1, own)
        kind = get_named_type(field.type)
        if node.selection_set is None or not isinstance(kind, GraphQLObjectType):
            return Extent(1, 1, own)
        inside = self.of(node.selection_set, kind)
        entries = self._entries(node, field) if _is_list(field) else 1
        return Extent(1 + inside.values * entries, 1 + inside.depth, own + inside.aliases)

    def _entries(self, node: FieldNode, field: GraphQLField) -> int:
        argument = field.args.get("first")
        if argument is None:
            return UNBOUNDED
        given: Any = argument.default_value
        for one in node.arguments or ():
            if one.name.value == "first" and isinstance(one.value, IntValueNode):
                given = int(one.value.value)
            elif one.name.value == "first" and isinstance(one.value, VariableNode):
                given = self._variable(one.value.name.value, given)
        return max(1, given) if isinstance(given, int) else UNBOUNDED

    def _variable(self, name: str, otherwise: Any) -> Any:
        """The value of a variable, or the default that an operation of the document gives it, whichever is largest."""
        if name in self._variables:
            return self._variables[name]
        defaults = [
            int(one.default_value.value)
            for operation in self._context.document.definitions
            if isinstance(operation, OperationDefinitionNode)
            for one in operation.variable_definitions or ()
            if one.variable.name.value == name and isinstance(one.default_value, IntValueNode)
        ]
        return max(defaults, default=otherwise)


def _is_list(field: GraphQLField) -> bool:
    return isinstance(get_nullable_type(cast("Any", field.type)), GraphQLList)
