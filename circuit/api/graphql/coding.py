"""Errors as GraphQL answers them: Circuit's own with `extensions.code`, all others masked."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

from graphql import FieldNode, GraphQLError, get_operation_ast
from strawberry.extensions import SchemaExtension

from circuit.api.problems import INTERNAL_CODE, INTERNAL_MESSAGE, shown
from circuit.errors import CircuitError, InvalidRequest

LONGEST_MESSAGE = 1_000
"""Characters of what GraphQL itself says."""

logger = logging.getLogger(__name__)


def coded(error: GraphQLError) -> GraphQLError:
    """`error` as it may leave the server."""
    if "code" in (error.extensions or {}):
        return error
    cause = root(error)
    if isinstance(cause, CircuitError):
        cause = shown(cause)
        return _rewritten(error, cause.message, {**cause.details, "code": cause.code, "retryable": cause.retryable})
    if cause is None:
        # What GraphQL says about the document itself: its syntax, its fit to the schema, its variables.
        return _rewritten(error, _short(error.message), {"code": InvalidRequest.code, "retryable": False})
    if isinstance(cause, RecursionError):
        return _rewritten(error, "the document nests too deep", {"code": InvalidRequest.code, "retryable": False})
    return _rewritten(error, INTERNAL_MESSAGE, {"code": INTERNAL_CODE, "retryable": False})


def _short(message: str) -> str:
    """GraphQL repeats names and values that somebody sent, however long they are."""
    return message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}..."


def root(error: GraphQLError) -> BaseException | None:
    """What was raised in the end; None if it was GraphQL that objected."""
    cause: BaseException | None = error
    while isinstance(cause, GraphQLError):
        cause = cause.original_error
    return cause


def _rewritten(error: GraphQLError, message: str, extensions: dict[str, Any]) -> GraphQLError:
    return GraphQLError(
        message,
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
        extensions=extensions,
    )


class CodedErrors(SchemaExtension):
    """Rewrites the errors of every result, of subscriptions too, and has what is refused written down."""

    async def on_operation(self) -> AsyncIterator[None]:
        yield
        await self._rewrite(self.execution_context.result)

    async def on_stream_result(self, result: Any) -> AsyncIterator[None]:
        """What comes over a WebSocket, be it of a subscription or not; nothing of it is left for `on_operation`."""
        await self._rewrite(result)
        yield None

    async def _rewrite(self, result: Any) -> None:
        errors = getattr(result, "errors", None)
        if not errors:
            return
        for error in errors:
            cause = root(error)
            if isinstance(cause, CircuitError):
                field = str(error.path[0]) if error.path else self._field()
                await self.execution_context.context.refused(cause, field)
        result.errors = [coded(error) for error in errors]

    def _field(self) -> str:
        """What was asked for, where an error does not say it: that of a subscription has no path."""
        document = self.execution_context.graphql_document
        operation = document and get_operation_ast(document, self.execution_context.operation_name)
        for one in operation.selection_set.selections if operation else ():
            if isinstance(one, FieldNode):
                return one.name.value
        return "(an operation)"
