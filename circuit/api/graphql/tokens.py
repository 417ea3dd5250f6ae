"""Tokens where they lie, and those that are put in from outside."""

from __future__ import annotations

from datetime import datetime

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.addressing import case_seen
from circuit.api.graphql.context import Resolving
from circuit.api.graphql.scalars import as_json, as_object
from circuit.engine.commands import TokenInput as Put
from circuit.engine.views import TokenView
from circuit.ids import parse_case_id


@strawberry.type(description="A token where it lies.")
class Token:
    id: str
    version: int
    place: str
    data: JSON
    metadata: JSON
    entered_at: datetime
    execution_id: str | None = strawberry.field(description="What holds it, if something does.")

    @classmethod
    def of(cls, view: TokenView) -> Token:
        return cls(
            id=view.id,
            version=view.version,
            place=view.place,
            data=as_json(dict(view.data)),
            metadata=as_json(dict(view.metadata)),
            entered_at=view.entered_at,
            execution_id=view.execution_id,
        )


@strawberry.input(description="A token from outside. Both are JSON objects.")
class TokenInput:
    data: JSON | None = None
    metadata: JSON | None = None


@strawberry.type
class TokenQueries:
    @strawberry.field(description="The tokens that lie in a place of a case.")
    async def tokens_in_place(self, info: Resolving, case_id: str, place_id: str) -> list[Token]:
        view = await case_seen(info, parse_case_id(case_id))
        return [Token.of(token) for token in (view.tokens if view else ()) if token.place == place_id]


def put(given: TokenInput | None) -> Put | None:
    """The token that somebody sent, if he sent one. Raises `InvalidRequest`."""
    if given is None:
        return None
    return Put(as_object(given.data, "data"), as_object(given.metadata, "metadata"))
