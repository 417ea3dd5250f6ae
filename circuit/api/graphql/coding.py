"""Errors as GraphQL answers them: Circuit's own with `extensions.code`, all others masked."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

from graphql import GraphQLError
from strawberry.extensions import SchemaExtension

from circuit.api.problems import INTERNAL_CODE, INTERNAL_MESSAGE, shown
from circuit.errors import CircuitError, InvalidRequest

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
        return _rewritten(error, error.message, {"code": InvalidRequest.code, "retryable": False})
    if isinstance(cause, RecursionError):
        return _rewritten(error, "the document nests too deep", {"code": InvalidRequest.code, "retryable": False})
    return _rewritten(error, INTERNAL_MESSAGE, {"code": INTERNAL_CODE, "retryable": False})


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
        result = self.execution_context.result
        for error in getattr(result, "errors", None) or ():
            cause = root(error)
            if isinstance(cause, CircuitError):
                await self.execution_context.context.refused(cause, str((error.path or ["(an operation)"])[0]))
        _rewrite(result)

    def on_stream_result(self, result: Any) -> Iterator[None]:
        _rewrite(result)
        yield None


def _rewrite(result: Any) -> None:
    errors = getattr(result, "errors", None)
    if errors:
        result.errors = [coded(error) for error in errors]
