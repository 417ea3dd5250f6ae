"""Why a case is where it is: what each of its transitions waits for, and what their rules say."""

from __future__ import annotations

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.scalars import as_json
from circuit.engine.ruling import TransitionRuling as TransitionRulingView
from circuit.engine.views import CaseWhy as CaseWhyView
from circuit.engine.views import TransitionWhy as TransitionWhyView


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


@strawberry.type(description="What one rule or condition says. It is faulty where it has no answer.")
class RuleVerdict:
    rule: str
    description: str
    holds: bool
    faulty: bool
    reasons: list[str]


@strawberry.type(description="What the guard of a transition says of a token, rule by rule.")
class TransitionRuling:
    transition: str
    holds: bool
    complete: bool = strawberry.field(
        description="Whether enough other tokens lie there for the transition; without them, rules that ask for them"
        " are faulty."
    )
    rules: list[RuleVerdict]

    @classmethod
    def of(cls, view: TransitionRulingView) -> TransitionRuling:
        return cls(
            transition=view.transition,
            holds=view.holds,
            complete=view.complete,
            rules=[
                RuleVerdict(
                    rule=one.rule,
                    description=one.description,
                    holds=one.holds,
                    faulty=one.faulty,
                    reasons=list(one.reasons),
                )
                for one in view.rules
            ],
        )
