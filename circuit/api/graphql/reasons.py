"""Why a case is where it is: what each of its transitions waits for."""

from __future__ import annotations

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.context import Resolving
from circuit.api.graphql.scalars import as_json
from circuit.engine.views import CaseWhy as CaseWhyView
from circuit.engine.views import TransitionWhy as TransitionWhyView
from circuit.ids import CaseKey, parse_case_id, parse_numbered


@strawberry.type(description="One thing that keeps a transition from firing.")
class Obstacle:
    kind: str
    subject: str
    have: JSON | None
    need: JSON | None
    message: str


@strawberry.type(description="What one transition of a case waits for; it fires in its turn where there is nothing.")
class TransitionWhy:
    transition: str
    enabled: bool
    reasons: list[Obstacle]

    @classmethod
    def of(cls, view: TransitionWhyView) -> TransitionWhy:
        return cls(
            transition=view.transition,
            enabled=view.enabled,
            reasons=[
                Obstacle(
                    kind=one.kind,
                    subject=one.subject,
                    have=as_json(one.have),
                    need=as_json(one.need),
                    message=one.message,
                )
                for one in view.obstacles
            ],
        )


@strawberry.type(description="Why a case is where it is.")
class CaseWhy:
    case_id: str
    status: str
    summary: str
    transitions: list[TransitionWhy]

    @classmethod
    def of(cls, view: CaseWhyView) -> CaseWhy:
        return cls(
            case_id=str(view.key.case),
            status=view.status.value,
            summary=view.summary,
            transitions=[TransitionWhy.of(transition) for transition in view.transitions],
        )


@strawberry.type
class ReasonQueries:
    @strawberry.field(description="What each transition of a case waits for, in words; null if there is no such case.")
    async def why(self, info: Resolving, case_id: str) -> CaseWhy | None:
        case = parse_case_id(case_id)
        if case is None:
            return None
        found = await info.context.services.queries.why(CaseKey(info.context.tenant, case))
        return None if found is None else CaseWhy.of(found)

    @strawberry.field(
        description="The transitions of a token's case: which could fire now, and what the others wait for."
    )
    async def available_transitions(self, info: Resolving, token_id: str) -> list[TransitionWhy]:
        token = parse_numbered(token_id)
        if token is None:
            return []
        found = await info.context.services.queries.why(CaseKey(info.context.tenant, token.case))
        return [] if found is None else [TransitionWhy.of(transition) for transition in found.transitions]
