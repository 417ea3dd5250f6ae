"""What the answers of models came to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from typing import Any

import strawberry

from circuit.api.graphql.context import Resolving
from circuit.api.graphql.paging import DEFAULT_PAGE, page
from circuit.engine.costs import Cost, CostFilter, CostPage, named
from circuit.errors import Conflict


@strawberry.enum(description="What costs are told apart by. A day is that of the answer, in UTC.")
class CostDimension(Enum):
    DAY = "day"
    WORKFLOW = "workflow"
    CASE = "case"
    AGENT = "agent"
    PROVIDER = "provider"
    MODEL = "model"


@strawberry.type(description="What answers of models come to together.")
class CostSum:
    calls: float = strawberry.field(description="Whole: calls of models that were answered.")
    cached: float = strawberry.field(description="Whole: answers from the cache, which cost nothing.")
    input_tokens: float
    output_tokens: float
    usd: float = strawberry.field(description="Without the `unpriced` calls.")
    unpriced: float = strawberry.field(description="Whole: calls of which no price is known.")

    @staticmethod
    def figures(cost: Cost) -> dict[str, float]:
        return {
            "calls": float(cost.calls),
            "cached": float(cost.cached),
            "input_tokens": float(cost.input_tokens),
            "output_tokens": float(cost.output_tokens),
            "usd": cost.usd,
            "unpriced": float(cost.unpriced),
        }


@strawberry.type(description="The same of answers that agree in what was asked for; the rest of the names is null.")
class CostEntry(CostSum):
    day: str | None = None
    workflow: str | None = None
    case_id: str | None = None
    agent_id: str | None = None
    provider: str | None = None
    model: str | None = None

    @classmethod
    def of(cls, cost: Cost) -> CostEntry:
        names: dict[str, Any] = named(cost.names)
        for name in ("case", "agent"):
            names[f"{name}_id"] = names.pop(name, None)
        return cls(**cls.figures(cost), **names)


@strawberry.type(description="What the answers from `since` on until `until` cost.")
class CostReport:
    since: datetime
    until: datetime
    total: CostSum
    entries: list[CostEntry]
    next: str | None = strawberry.field(description="Give it as `after` for the next entries, with the same `until`.")

    @classmethod
    def of(cls, found: CostPage) -> CostReport:
        return cls(
            since=found.since,
            until=found.until,
            total=CostSum(**CostSum.figures(found.total)),
            entries=[CostEntry.of(entry) for entry in found.entries],
            next=found.next,
        )


_BY_WORKFLOW: Sequence[CostDimension] = (CostDimension.WORKFLOW,)


@strawberry.type
class CostQueries:
    @strawberry.field(
        description="What the answers of models cost, all that was recorded: also those of attempts that failed, and of"
        " agents that agents asked. Without `since` those of the last 30 days, or all of the case. The newest days come"
        " first, and the dearest of each. `opened`: beside the case also those that it opened, and those that they did."
    )
    async def costs(
        self,
        info: Resolving,
        by: list[CostDimension] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        case_id: str | None = None,
        opened: bool = False,
        workflow_id: str | None = None,
        agent_id: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        first: int = DEFAULT_PAGE,
        after: str | None = None,
    ) -> CostReport:
        costs = info.context.services.costs
        if costs is None:
            raise Conflict("this server shows no costs")
        names = [one.value for one in (_BY_WORKFLOW if by is None else by)]
        chosen = CostFilter(since, until, case_id, opened, workflow_id, agent_id, provider, model)
        found = await costs.page(info.context.principal, chosen, names, limit=page(first), after=after)
        return CostReport.of(found)
