"""What may be spent on calls of models, and what is."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated

import strawberry

from circuit.api.graphql.context import Resolving
from circuit.api.graphql.paging import DEFAULT_PAGE, behind_name, page
from circuit.engine.budgets import BudgetChange, Budgets, BudgetView, Target, money
from circuit.errors import Conflict, InvalidRequest
from circuit.spend import MICRO, Limits, Spend

_CaseId = Annotated[str | None, strawberry.argument(description="The budget of this case.")]
_WorkflowId = Annotated[str | None, strawberry.argument(description="The budget that a workflow's cases share.")]


@strawberry.type(description="An amount in the units of budgets. Of limits, null is no limit.")
class Amounts:
    calls: int | None
    tokens: float | None = strawberry.field(description="Whole; it may be more than an `Int` holds.")
    usd: float | None

    @classmethod
    def of(cls, amount: Limits | Spend) -> Amounts:
        usd = None if amount.microdollars is None else amount.microdollars / MICRO
        return cls(calls=amount.calls, tokens=None if amount.tokens is None else float(amount.tokens), usd=usd)


@strawberry.type(description="A budget. What is `held` belongs to calls of models that go on.")
class Budget:
    cursor: str = strawberry.field(description="Give it as `after` to go on behind this budget.")
    scope: str = strawberry.field(description="`case`, `workflow` or `tenant`.")
    subject: str | None = strawberry.field(description="The id of the case or the workflow.")
    limits: Amounts
    spent: Amounts
    held: Amounts
    period: str | None = strawberry.field(description="`day` or `month`, if it begins anew.")
    since: datetime
    updated_at: datetime
    updated_by: str

    @classmethod
    def of(cls, view: BudgetView) -> Budget:
        budget = view.budget
        return cls(
            cursor=f"{budget.key.scope}/{budget.key.subject}",
            scope=budget.key.scope,
            subject=budget.key.subject or None,
            limits=Amounts.of(budget.limits),
            spent=Amounts.of(budget.spent),
            held=Amounts.of(budget.held),
            period=budget.period,
            since=budget.since,
            updated_at=budget.updated_at,
            updated_by=budget.updated_by,
        )


@strawberry.enum(description="After what a budget begins anew.")
class BudgetPeriod(Enum):
    DAY = "day"
    MONTH = "month"
    EVER = "ever"


@strawberry.input(description="Limits. What is not named stays as it is, and null takes a limit away.")
class LimitsInput:
    calls: int | None = strawberry.UNSET
    tokens: float | None = strawberry.UNSET
    usd: float | None = strawberry.UNSET


@strawberry.type
class BudgetQueries:
    @strawberry.field(
        description="The budget of the tenant, those of its workflows, and with `cases` those of cases, newest first;"
        " `after` is the `cursor` of the last one that is known."
    )
    async def budgets(
        self, info: Resolving, cases: bool = False, first: int = DEFAULT_PAGE, after: str | None = None
    ) -> list[Budget]:
        known = None if after is None else behind_name(after)
        found = await _budgets(info).listed(info.context.principal, cases=cases, limit=page(first), after=known)
        return [Budget.of(view) for view in found]

    @strawberry.field(description="One budget; without `caseId` and `workflowId` that of the tenant.")
    async def budget(self, info: Resolving, case_id: _CaseId = None, workflow_id: _WorkflowId = None) -> Budget | None:
        found = await _budgets(info).find(info.context.principal, Target(case_id, workflow_id))
        return None if found is None else Budget.of(found)


@strawberry.type
class BudgetMutations:
    @strawberry.mutation(
        description="Set or raise a budget; without `caseId` and `workflowId` that of the tenant. What is spent stays,"
        " unless it is to begin anew. A case that came to its end goes on after `retryIncidents`."
    )
    async def set_budget(
        self,
        info: Resolving,
        limits: LimitsInput,
        case_id: _CaseId = None,
        workflow_id: _WorkflowId = None,
        period: BudgetPeriod | None = None,
        reset: bool = False,
    ) -> Budget:
        named = {"calls": limits.calls, "tokens": limits.tokens, "microdollars": limits.usd}
        changes = {unit: _limit(unit, value) for unit, value in named.items() if value is not strawberry.UNSET}
        change = BudgetChange(changes, None if period is None else period.value, reset)
        view = await _budgets(info).set(info.context.principal, Target(case_id, workflow_id), change)
        return Budget.of(view)

    @strawberry.mutation(
        description="Take the budget of a workflow away, or the tenant's, with what is spent of it. False if there was"
        " none."
    )
    async def remove_budget(self, info: Resolving, workflow_id: _WorkflowId = None) -> bool:
        return await _budgets(info).remove(info.context.principal, Target(None, workflow_id))


def _limit(unit: str, value: float | None) -> int | None:
    if value is None:
        return None
    if unit == "microdollars":
        return money(value)
    if value != int(value):
        raise InvalidRequest(f"a budget counts whole {unit}, not {value:g}")
    return int(value)


def _budgets(info: Resolving) -> Budgets:
    found = info.context.services.budgets
    if found is None:
        raise Conflict("this server has no budgets")
    return found
