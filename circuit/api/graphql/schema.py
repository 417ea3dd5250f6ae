"""The schema, with its limits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

import strawberry
from graphql import GraphQLError
from graphql.validation import NoSchemaIntrospectionCustomRule
from strawberry.extensions import (
    MaxTokensLimiter,
    SchemaExtension,
)
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionResult
from strawberry.types.graphql import OperationType

from circuit.api.graphql.coding import CodedErrors, root
from circuit.api.graphql.extent import ExtentLimiter
from circuit.api.graphql.operations import Mutation, Query, Subscription
from circuit.api.graphql.scalars import DateTime
from circuit.errors import CircuitError

MOST_TOKENS = 4000
"""Lexical tokens of a document; a YAML text in it is one."""

logger = logging.getLogger(__name__)


class Schema(strawberry.Schema):
    """Logs what nobody outside is told, and nothing that is an answer."""

    async def execute(
        self,
        query: str | None,
        *args: Any,
        allowed_operation_types: Iterable[OperationType] | None = None,
        **options: Any,
    ) -> ExecutionResult:
        """One answer to one operation; so a subscription, which `stream` serves, is refused."""
        allowed = set(OperationType) if allowed_operation_types is None else set(allowed_operation_types)
        once = allowed - {OperationType.SUBSCRIPTION}
        return await super().execute(query, *args, allowed_operation_types=once, **options)

    def process_errors(self, errors: list[GraphQLError], execution_context: Any = None) -> None:
        for error in errors:
            cause = root(error)
            if cause is not None and not isinstance(cause, CircuitError | RecursionError):
                where = ".".join(map(str, error.path or ()))
                logger.error("GraphQL failed at %s", where or "the document", exc_info=cause)


class ExplorableOnly(SchemaExtension):
    """Lets nobody ask for the schema itself but where the context says so."""

    def on_operation(self) -> Iterator[None]:
        execution = self.execution_context
        if not execution.context.explorable:
            execution.validation_rules = (*execution.validation_rules, NoSchemaIntrospectionCustomRule)
        yield


def create_schema() -> Schema:
    """The schema."""
    extensions: list[type[SchemaExtension] | Callable[[], SchemaExtension]] = [
        lambda: MaxTokensLimiter(max_token_count=MOST_TOKENS),
        ExtentLimiter,
        ExplorableOnly,
        CodedErrors,
    ]
    return Schema(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        extensions=extensions,
        config=StrawberryConfig(scalar_map={datetime: DateTime}),
    )
