"""The door to budgets: what may be spent on calls of models, by whom, and how it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from circuit.engine.views import instant
from circuit.errors import InvalidRequest, NotFound
from circuit.ids import CaseKey, parse_case_id
from circuit.security.permissions import Permission
from circuit.security.principal import Principal
from circuit.spend import MICRO, Limits, Spend, microdollars
from circuit.storage import budgets, ledger, listing, workflows
from circuit.storage.charges import Budget, BudgetKey, limits_of
from circuit.storage.database import Database

MOST_LISTED = 1_000
LARGEST = 2**53
"""So much is counted exactly wherever JSON goes."""
Period = Literal["day", "month", "ever"]

_NEEDS = {"case": Permission.OPERATE, "workflow": Permission.EDIT, "tenant": Permission.ADMINISTER}


@dataclass(frozen=True, slots=True)
class Target:
    """Whose budget: a case's, a workflow's, or with neither the tenant's."""

    case_id: str | None = None
    workflow_id: str | None = None

    def key(self, tenant: int) -> BudgetKey:
        """Raises `InvalidRequest` where it is not one target."""
        if self.case_id is not None and self.workflow_id is not None:
            raise InvalidRequest("a budget is that of a case, of a workflow, or (without either) of the tenant")
        if self.case_id is not None:
            case = parse_case_id(self.case_id)
            if case is None:
                raise NotFound(f"there is no case {self.case_id!r}; an id of a case is a UUID")
            return BudgetKey.of_case(CaseKey(tenant, case))
        return (
            BudgetKey.of_tenant(tenant) if self.workflow_id is None else BudgetKey.of_workflow(tenant, self.workflow_id)
        )


@dataclass(frozen=True, slots=True)
class BudgetChange:
    """New limits, by unit (`calls`, `tokens`, `microdollars`; None takes a limit away; what is not named stays), the
    period after which it begins anew (None: as it is), and whether it begins anew now."""

    limits: Mapping[str, int | None]
    period: Period | None = None
    reset: bool = False


@dataclass(frozen=True, slots=True)
class BudgetView:
    """A budget as it stands."""

    budget: Budget

    def as_dict(self) -> dict[str, Any]:
        budget = self.budget
        return {
            "scope": budget.key.scope,
            "subject": budget.key.subject or None,
            "limits": amounts(budget.limits),
            "spent": amounts(budget.spent),
            "held": amounts(budget.held),
            "period": budget.period,
            "since": instant(budget.since),
            "updated_at": instant(budget.updated_at),
            "updated_by": budget.updated_by,
        }


def amounts(of: Limits | Spend) -> dict[str, Any]:
    """Calls, tokens and US dollars, by name."""
    money = of.microdollars
    return {"calls": of.calls, "tokens": of.tokens, "usd": None if money is None else money / MICRO}


def money(usd: float) -> int:
    """US dollars as a limit. Raises `InvalidRequest`."""
    if not 0 <= usd <= LARGEST / MICRO:
        raise InvalidRequest(f"a budget is 0 to {LARGEST / MICRO:.0f} dollars, not {usd:g}")
    return microdollars(usd)


class Budgets:
    """Lists budgets and sets them, in the tenant of the principal."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def listed(
        self,
        principal: Principal,
        *,
        cases: bool = False,
        limit: int = MOST_LISTED,
        after: tuple[str, str] | None = None,
    ) -> list[BudgetView]:
        """The budget of the tenant, those of its workflows, and with `cases` those of cases, the newest first: so many
        behind the one of the scope and the subject `after`."""
        principal.require(Permission.READ)
        tenant = principal.tenant
        async with self._database.transaction(tenant) as connection:
            found = await budgets.listed(connection, tenant, cases=cases, limit=min(limit, MOST_LISTED), after=after)
        return [BudgetView(budget) for budget in found]

    async def find(self, principal: Principal, target: Target) -> BudgetView | None:
        """One budget, if there is one. That of a case begins with its first call of a model."""
        principal.require(Permission.READ)
        key = target.key(principal.tenant)
        async with self._database.transaction(key.tenant) as connection:
            found = await budgets.listed(connection, key.tenant, scope=key.scope, subject=key.subject)
        return BudgetView(found[0]) if found else None

    async def set(self, principal: Principal, target: Target, change: BudgetChange) -> BudgetView:
        """Change a budget, or begin one; what is spent of it stays. It counts from the next call of a model on, and
        calls that wait for it are looked at again within a second.

        Raises `NotFound`, `InvalidRequest`, `Forbidden`: a case's takes the permission to operate, a workflow's to
        edit, the tenant's to administer.
        """
        key = target.key(principal.tenant)
        principal.require(_NEEDS[key.scope])
        for unit, limit in change.limits.items():
            if limit is not None and not 0 <= limit <= LARGEST:
                raise InvalidRequest(f"a budget in {unit} is 0 to {LARGEST}, not {limit}")
        if change.reset and key.scope == "case":
            raise InvalidRequest("the budget of a case does not begin anew: raise it")
        if change.period not in (None, "ever") and key.scope == "case":
            raise InvalidRequest("the budget of a case has no period")
        async with self._database.transaction(key.tenant) as connection:
            own = await self._own_limits(connection, key)
            if not await budgets.change(connection, key, own, change.limits, change.period, principal.subject):
                raise InvalidRequest("a budget limits something: name --calls, --tokens or --usd")
            if change.reset:
                await budgets.reset(connection, key, principal.subject)
            await ledger.note(
                connection, principal, "budget.change", f"{key.scope} {key.subject}".strip(), reset=change.reset or None
            )
            [found] = await budgets.listed(connection, key.tenant, scope=key.scope, subject=key.subject)
        return BudgetView(found)

    async def remove(self, principal: Principal, target: Target) -> bool:
        """Take the budget of a workflow or the tenant away, with what is spent of it. Returns whether there was one.
        Raises `Forbidden`, and `InvalidRequest` for that of a case, which bounds it to its end."""
        key = target.key(principal.tenant)
        principal.require(_NEEDS[key.scope])
        if key.scope == "case":
            raise InvalidRequest("the budget of a case stays with it: raise it (`circuit budgets set --case ...`)")
        async with self._database.transaction(key.tenant) as connection:
            removed = await budgets.remove(connection, key)
            if removed:
                await ledger.note(connection, principal, "budget.remove", f"{key.scope} {key.subject}".strip())
        return removed

    async def _own_limits(self, connection: Any, key: BudgetKey) -> Limits:
        """What a case may spend by its version. Raises `NotFound` where there is nothing that could have a budget."""
        if key.scope == "tenant":
            return Limits()
        if key.scope == "workflow":
            if await workflows.current(connection, key.tenant, key.subject) is None:
                raise NotFound(f"there is no workflow {key.subject!r}; `circuit load` publishes one")
            return Limits()
        case = parse_case_id(key.subject)
        row = None if case is None else await listing.find_case(connection, CaseKey(key.tenant, case))
        if row is None:
            raise NotFound(f"there is no case {key.subject}; `circuit cases` lists them")
        version = await workflows.by_hash(connection, key.tenant, row.workflow_id, row.workflow_hash)
        return limits_of((version.document.get("budget") or {}) if version is not None else {})
