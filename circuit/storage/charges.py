"""Budgets and the charges of calls of models as values: whose, how much, and what is asked of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from circuit.ids import CaseKey
from circuit.spend import Limits, Spend, microdollars


class BudgetKey(NamedTuple):
    """`scope` is `case`, `tenant` or `workflow`; `subject` the id of the case or the workflow, or empty."""

    tenant: int
    scope: str
    subject: str

    @classmethod
    def of_tenant(cls, tenant: int) -> BudgetKey:
        return cls(tenant, "tenant", "")

    @classmethod
    def of_workflow(cls, tenant: int, workflow_id: str) -> BudgetKey:
        return cls(tenant, "workflow", workflow_id)

    @classmethod
    def of_case(cls, key: CaseKey) -> BudgetKey:
        return cls(key.tenant, "case", str(key.case))


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget as it stands: its limits, what is spent since `since` (the begin of the `period`, where it has one), and
    what calls that go on may cost at most."""

    key: BudgetKey
    limits: Limits
    spent: Spend
    held: Spend
    period: str | None
    since: datetime
    updated_at: datetime
    updated_by: str


class Charge(NamedTuple):
    """Which call of a model: the start of a firing that makes it, and its number there."""

    key: CaseKey
    firing: int
    start: int
    number: int


class Asked(NamedTuple):
    """A call that wants to be made, and what it may cost at most. `limits` are those of its case by its workflow's
    version. A `child`, a case that another one opened, draws on the budget of its `payer` unless it has its own."""

    charge: Charge
    workflow_id: str
    most: Spend
    limits: Limits
    child: bool = False
    payer: UUID | None = None

    @property
    def key(self) -> CaseKey:
        return self.charge.key

    @property
    def budgets(self) -> tuple[BudgetKey, BudgetKey, BudgetKey]:
        """The budgets that it draws on, where there are such."""
        payer = self.key if self.payer is None else CaseKey(self.key.tenant, self.payer)
        return (
            BudgetKey.of_case(payer),
            BudgetKey.of_tenant(self.key.tenant),
            BudgetKey.of_workflow(self.key.tenant, self.workflow_id),
        )


class Settled(NamedTuple):
    """What a call did cost; None where nobody knows: then it stands at the most that it could."""

    charge: Charge
    spent: Spend | None


def limits_of(given: Mapping[str, Any]) -> Limits:
    """The limits of a workflow's `budget`."""
    usd: float | None = given.get("usd")
    return Limits(given.get("calls"), given.get("tokens"), None if usd is None else microdollars(usd))
