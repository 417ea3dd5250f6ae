"""Changes of the tokens of a live case by hand."""

from __future__ import annotations

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.addressing import case_key
from circuit.api.graphql.commands import CommandOutcome
from circuit.api.graphql.context import Resolving
from circuit.api.graphql.scalars import as_object
from circuit.engine.modification import Modification, Move, NewToken
from circuit.engine.token_change import TokenChange


@strawberry.input(
    description="A value for the path `data.NAME` or `metadata.NAME` of one token, by its number, or of those of a"
    " place; where neither is named, of the only token that there is."
)
class TokenChangeInput:
    path: str
    value: JSON | None = None
    token: int | None = None
    place: str | None = None

    def wanted(self) -> TokenChange:
        """As the engine takes it."""
        return TokenChange(self.path, self.value, self.token, self.place)


@strawberry.input(description="A token to put into a place.")
class NewTokenInput:
    place: str
    data: JSON | None = None
    metadata: JSON | None = None

    def wanted(self) -> NewToken:
        """As the engine takes it. Raises `InvalidRequest`."""
        return NewToken(self.place, as_object(self.data, "data"), as_object(self.metadata, "metadata"))


@strawberry.input(description="A token, by its number, and the place to put it into.")
class TokenMoveInput:
    token: int
    place: str


@strawberry.type
class ModificationMutations:
    @strawberry.mutation(
        description="Put, take, move and change tokens of a live case, all of it or nothing; the history keeps who and"
        " why. With `cancelFirings`, firings that hold tokens which change are cancelled; without it they are a"
        " conflict."
    )
    async def modify_case(
        self,
        info: Resolving,
        case_id: str,
        reason: str,
        put: list[NewTokenInput] | None = None,
        take: list[int] | None = None,
        move: list[TokenMoveInput] | None = None,
        changes: list[TokenChangeInput] | None = None,
        cancel_firings: bool = False,
        idempotency_key: str | None = None,
    ) -> CommandOutcome:
        wanted = Modification(
            reason,
            [
                NewToken(one.place, as_object(one.data, "data"), as_object(one.metadata, "metadata"))
                for one in put or ()
            ],
            take or (),
            [Move(one.token, one.place) for one in move or ()],
            [change.wanted() for change in changes or ()],
            cancel_firings,
        )
        outcome = await info.context.services.commands.modify(
            case_key(info, case_id), wanted, principal=info.context.principal, idempotency_key=idempotency_key
        )
        return CommandOutcome.of(outcome)
