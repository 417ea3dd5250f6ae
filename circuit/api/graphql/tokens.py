"""Tokens where they lie, what may become of them, and those that are put in from outside."""

from __future__ import annotations

from datetime import datetime

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.addressing import case_key
from circuit.api.graphql.commands import CommandOutcome
from circuit.api.graphql.context import Resolving
from circuit.api.graphql.paging import DEFAULT_PAGE, behind_numbered, page
from circuit.api.graphql.reasons import TransitionRuling, TransitionWhy
from circuit.api.graphql.scalars import as_json, as_object
from circuit.engine.commands import TokenInput as Put
from circuit.engine.modification import Modification, NewToken
from circuit.engine.views import TokenView
from circuit.errors import InvalidRequest
from circuit.ids import CaseKey, Numbered, parse_case_id, parse_numbered

CREATED = "createToken"
"""Why a case was modified, as its history says it."""


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
    @strawberry.field(description="A token where it lies, or null.")
    async def token(self, info: Resolving, id: str) -> Token | None:  # noqa: A002
        name, tenant = parse_numbered(id), info.context.tenant
        if name is None:
            return None
        found = await info.context.services.pages.token(CaseKey(tenant, name.case), name.number)
        return None if found is None else Token.of(found)

    @strawberry.field(
        description="The tokens that lie in a place, of one case or of all cases of a workflow; `after` is the id of"
        " the last one that is known."
    )
    async def tokens_in_place(
        self,
        info: Resolving,
        place_id: str,
        case_id: str | None = None,
        workflow_id: str | None = None,
        first: int = DEFAULT_PAGE,
        after: str | None = None,
    ) -> list[Token]:
        if (case_id is None) == (workflow_id is None):
            raise InvalidRequest("name the case or the workflow whose place is meant: `caseId` or `workflowId`")
        tenant = info.context.tenant
        case = None if case_id is None else parse_case_id(case_id)
        if case_id is not None and case is None:
            return []
        found = await info.context.services.pages.tokens_in_place(
            tenant, place_id, case=case, workflow_id=workflow_id, limit=page(first), after=behind_numbered(after)
        )
        return [Token.of(token) for token in found]

    @strawberry.field(
        description="The transitions that could take or read a token: which could fire now, and what the others wait"
        " for."
    )
    async def available_transitions(self, info: Resolving, token_id: str) -> list[TransitionWhy]:
        name, tenant = parse_numbered(token_id), info.context.tenant
        if name is None:
            return []
        found = await info.context.services.queries.available(CaseKey(tenant, name.case), name.number)
        return [TransitionWhy.of(transition) for transition in found]

    @strawberry.field(
        description="What the rules and conditions of the transitions that could take or read a token say of it, each"
        " by itself; of one transition, or of all."
    )
    async def evaluate_rules(
        self, info: Resolving, token_id: str, transition: str | None = None
    ) -> list[TransitionRuling]:
        name, tenant = parse_numbered(token_id), info.context.tenant
        if name is None:
            return []
        found = await info.context.services.queries.rulings(CaseKey(tenant, name.case), name.number)
        return [TransitionRuling.of(one) for one in found if transition in (None, one.transition)]


@strawberry.type(description="A token that was put into a case; `token` is null as soon as it has moved on.")
class CreatedToken:
    case_id: str
    token_id: str | None = strawberry.field(description="Null while the case's owner has not come to it.")
    command_id: str | None

    @strawberry.field(description="The token where it lies.")
    async def token(self, info: Resolving) -> Token | None:
        name = None if self.token_id is None else parse_numbered(self.token_id)
        if name is None:
            return None
        found = await info.context.services.pages.token(CaseKey(info.context.tenant, name.case), name.number)
        return None if found is None else Token.of(found)


@strawberry.type
class TokenMutations:
    @strawberry.mutation(
        description="Put a token: into a place of a live case (`caseId`, `placeId`), or into the initial place of a"
        " workflow (`workflowId`), which starts a case. The colour of the place judges its data."
    )
    async def create_token(
        self,
        info: Resolving,
        token: TokenInput,
        case_id: str | None = None,
        place_id: str | None = None,
        workflow_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> CreatedToken:
        put, principal, commands = given_token(token) or Put(), info.context.principal, info.context.services.commands
        if workflow_id is not None and case_id is None and place_id is None:
            key = await commands.start_case(workflow_id, put, principal=principal, key=idempotency_key)
            return CreatedToken(case_id=str(key), token_id=str(Numbered(key.case, 1)), command_id=None)
        if case_id is None or place_id is None or workflow_id is not None:
            raise InvalidRequest(
                "a token goes into a place of a case (`caseId`, `placeId`), or begins one: `workflowId`"
            )
        wanted = Modification(CREATED, put=(NewToken(place_id, put.data, put.metadata),))
        key = case_key(info, case_id)
        outcome = await commands.modify(key, wanted, principal=principal, idempotency_key=idempotency_key)
        done = CommandOutcome.of(outcome)
        made: list[int] = outcome.result.get("put") or []
        return CreatedToken(
            case_id=str(key), token_id=str(Numbered(key.case, made[0])) if made else None, command_id=done.command_id
        )


def given_token(given: TokenInput | None) -> Put | None:
    """The token that somebody sent, if he sent one. Raises `InvalidRequest`."""
    if given is None:
        return None
    return Put(as_object(given.data, "data"), as_object(given.metadata, "metadata"))
