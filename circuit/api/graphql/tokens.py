"""Tokens where they lie, what may become of them, and those that are put in from outside."""

from __future__ import annotations

from datetime import datetime

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.context import Resolving
from circuit.api.graphql.paging import DEFAULT_PAGE, behind_numbered, page
from circuit.api.graphql.reasons import TransitionRuling, TransitionWhy
from circuit.api.graphql.scalars import as_json, as_object
from circuit.engine.commands import TokenInput as Put
from circuit.engine.views import TokenView
from circuit.errors import InvalidRequest
from circuit.ids import CaseKey, parse_case_id, parse_numbered


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


def given_token(given: TokenInput | None) -> Put | None:
    """The token that somebody sent, if he sent one. Raises `InvalidRequest`."""
    if given is None:
        return None
    return Put(as_object(given.data, "data"), as_object(given.metadata, "metadata"))
