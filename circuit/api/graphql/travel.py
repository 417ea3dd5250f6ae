"""Cases as they were, new ones from there, and how two differ."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.addressing import case_key
from circuit.api.graphql.cases import Case
from circuit.api.graphql.context import Resolving
from circuit.api.graphql.history import HistoryEvent
from circuit.api.graphql.modification import TokenChangeInput
from circuit.api.graphql.paging import DEFAULT_PART, behind, part
from circuit.api.graphql.scalars import as_json, as_object
from circuit.api.graphql.tokens import Token
from circuit.engine.comparison import Difference, Side
from circuit.engine.past import Moment
from circuit.engine.travel import Travel
from circuit.engine.views import TokenView
from circuit.errors import InvalidRequest, NotFound
from circuit.ids import CaseKey, parse_case_id


@strawberry.type(description="A firing that was under way: `running`, `suspended`, or `offered` (to be tried again).")
class PastFiring:
    execution_id: str
    transition: str
    state: str
    begun_at: datetime
    attempt: int


@strawberry.type(description="A case as it was after one of its events.")
class PastCase:
    case_id: str
    at: int = strawberry.field(description="The number of that event.")
    events: int = strawberry.field(description="How many events the case has by now.")
    event: HistoryEvent
    workflow: str
    workflow_hash: str
    ended: str | None = strawberry.field(description="How it ended, if that event ended it.")
    marking: JSON
    laid: strawberry.Private[Sequence[TokenView]]
    firings: list[PastFiring]
    open_incidents: list[int]
    fired: JSON = strawberry.field(description="How often each transition had fired: `{transition: count}`.")

    @classmethod
    def of(cls, found: Moment) -> PastCase:
        return cls(
            case_id=str(found.key.case),
            at=found.event.seq,
            events=found.last,
            event=HistoryEvent.of(found.event),
            workflow=found.workflow_id,
            workflow_hash=found.workflow_hash,
            ended=found.status.value if found.status is not None else None,
            marking=as_json(found.marking),
            laid=found.tokens,
            firings=[
                PastFiring(
                    execution_id=one.execution_id,
                    transition=one.transition,
                    state=one.state.value,
                    begun_at=one.begun_at,
                    attempt=one.attempt,
                )
                for one in found.firings
            ],
            open_incidents=list(found.incidents),
            fired=as_json(dict(found.fired)),
        )

    @strawberry.field(description="The tokens behind the one with the number `after`.")
    async def tokens(self, first: int = DEFAULT_PART, after: int = 0) -> list[Token]:
        known, most = behind(after), part(first)
        return [Token.of(one) for one in self.laid if _number(one) > known][:most]


def _number(token: TokenView) -> int:
    return int(token.id.rpartition(".")[2])


@strawberry.type(description="A case and the number of one of its events.")
class ForkOrigin:
    case_id: str
    seq: int


@strawberry.type(description="What a case took. `costUsd` is null where no price is known.")
class CaseCost:
    executions: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    seconds: float


@strawberry.type(description="One of two cases that are compared.")
class CaseSide:
    case_id: str
    status: str
    workflow: str
    workflow_hash: str
    fork_of: ForkOrigin | None
    cost: CaseCost

    @classmethod
    def of(cls, side: Side) -> CaseSide:
        origin, cost = side.origin, side.cost
        return cls(
            case_id=str(side.key.case),
            status=side.row.status.value,
            workflow=side.row.workflow_id,
            workflow_hash=side.row.workflow_hash,
            fork_of=None if origin is None else ForkOrigin(case_id=origin.case_id, seq=origin.seq),
            cost=CaseCost(
                executions=cost.executions,
                input_tokens=cost.input_tokens,
                output_tokens=cost.output_tokens,
                cost_usd=cost.usd,
                seconds=cost.seconds,
            ),
        )


@strawberry.type(description="How many tokens each of the two cases has in a place, where that differs.")
class PlaceDifference:
    place: str
    first: int
    second: int


@strawberry.type(
    description="A value that differs. `tokens` and `places` say of which token in the first and in the second case;"
    " null where it is not there."
)
class ValueDifference:
    tokens: list[int | None]
    places: list[str | None]
    path: str
    first: JSON | None
    second: JSON | None


@strawberry.type(description="A part of the two paths: transitions that both fired, or what each fired instead.")
class PathStretch:
    same: bool
    first: list[str]
    second: list[str]


@strawberry.type(description="How two cases differ. `same` asks for marking, values and path, and not for the cost.")
class CaseDifference:
    same: bool
    first: CaseSide
    second: CaseSide
    marking: list[PlaceDifference]
    values: list[ValueDifference]
    path: list[PathStretch]

    @classmethod
    def of(cls, found: Difference) -> CaseDifference:
        return cls(
            same=found.same,
            first=CaseSide.of(found.first),
            second=CaseSide.of(found.second),
            marking=[
                PlaceDifference(place=place, first=first, second=second)
                for place, (first, second) in found.marking.items()
            ],
            values=[
                ValueDifference(
                    tokens=list(one.tokens),
                    places=list(one.places),
                    path=one.path,
                    first=as_json(one.first),
                    second=as_json(one.second),
                )
                for one in found.values
            ],
            path=[PathStretch(same=one.same, first=list(one.first), second=list(one.second)) for one in found.path],
        )


@strawberry.type
class TravelQueries:
    @strawberry.field(
        description="A case as it was after its event `at` (its last one, if that is left out), from its history; null"
        " if there is no such case."
    )
    async def case_at(self, info: Resolving, case_id: str, at: int | None = None) -> PastCase | None:
        tenant, case = info.context.tenant, parse_case_id(case_id)
        found = None if case is None else await _travel(info).at(CaseKey(tenant, case), at)
        return None if found is None else PastCase.of(found)

    @strawberry.field(description="How two cases differ: marking, data of the tokens, path and cost.")
    async def diff_cases(self, info: Resolving, first: str, second: str) -> CaseDifference:
        return CaseDifference.of(await _travel(info).diff(case_key(info, first), case_key(info, second)))


@strawberry.type
class TravelMutations:
    @strawberry.mutation(
        description="Start a case from where another one stood after its event `at` (its last one, if that is left"
        " out). What was done by then is not done again. `models` puts others in: `{agent or *: {type, model}}`. Asked"
        " again with the same `idempotencyKey`, it answers with the fork that was made first."
    )
    async def fork_case(
        self,
        info: Resolving,
        case_id: str,
        at: int | None = None,
        changes: list[TokenChangeInput] | None = None,
        models: JSON | None = None,
        idempotency_key: str | None = None,
    ) -> Case:
        key = await _travel(info).fork(
            case_key(info, case_id),
            at,
            principal=info.context.principal,
            changes=[change.wanted() for change in changes or ()],
            models=as_object(models, "models"),
            idempotency_key=idempotency_key,
        )
        view = await info.context.loaders.case(key.tenant, key.case)
        if view is None:
            raise NotFound(f"case {key} was started and is gone")
        return Case.of(view)


def _travel(info: Resolving) -> Travel:
    travel = info.context.services.travel
    if travel is None:
        raise InvalidRequest("this server shows no past of cases")
    return travel
