"""What goes on in a deployment, in a few numbers that are cheap to read however much there is."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Float, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.ids import first_uuid7_at
from circuit.storage.driver import Connection
from circuit.storage.tables import case, execution

# The server counts what is put into its tables anyway. History and executions lie in partitions.
_WRITTEN = """
SELECT coalesce(sum(n_tup_ins) FILTER (WHERE relname LIKE 'history%'), 0)::int8 AS events,
    coalesce(sum(n_tup_ins) FILTER (WHERE relname LIKE 'execution%'), 0)::int8 AS executions
FROM pg_stat_user_tables WHERE schemaname = 'circuit'
"""


@dataclass(frozen=True, slots=True)
class Written:
    """How many events and executions were ever written, over all tenants, as far as the server has counted."""

    events: int
    executions: int


@dataclass(frozen=True, slots=True)
class Recent:
    """The cases of a tenant that began lately, and what their executions came to, by status."""

    cases: dict[str, int] = field(default_factory=dict[str, int])
    executions: dict[str, int] = field(default_factory=dict[str, int])
    cost_usd: float = 0.0
    tokens: int = 0


async def written(connection: Connection) -> Written:
    """What was written until now (under the engine's role)."""
    row = await connection.fetchrow(_WRITTEN)
    assert row is not None
    return Written(row["events"], row["executions"])


async def recent(connection: AsyncConnection, tenant: int, since: datetime) -> Recent:
    """The cases that began since then (under the tenant's row security): an id tells when its case began."""
    first = first_uuid7_at(since)
    cases = select(case.c.status, func.count()).where(case.c.tenant_id == tenant, case.c.case_id >= first)
    usage = execution.c.usage
    executions = select(
        execution.c.status,
        func.count(),
        func.coalesce(func.sum(usage["cost_usd"].astext.cast(Float)), 0.0),
        func.coalesce(
            func.sum(
                func.coalesce(usage["input_tokens"].astext.cast(Float), 0)
                + func.coalesce(usage["output_tokens"].astext.cast(Float), 0)
            ),
            0.0,
        ),
    ).where(execution.c.tenant_id == tenant, execution.c.case_id >= first)
    begun = {str(row[0]): int(row[1]) for row in await connection.execute(cases.group_by(case.c.status))}
    counts: dict[str, int] = {}
    cost, tokens = 0.0, 0.0
    for status, count, dollars, used in await connection.execute(executions.group_by(execution.c.status)):
        counts[status] = count
        cost += dollars
        tokens += used
    return Recent(begun, counts, round(cost, 6), int(tokens))
