"""What answers of models cost, added up from the journal (under a tenant's row security).

Each answer that was recorded counts once, those of attempts that failed, of firings that were cancelled and of agents
that others asked too: the journal has them all, each with the usage and the price that were known when it came.
"""

# ruff: noqa: S608 -- these texts are composed of the constants below and of nothing else.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.ids import first_uuid7_at
from circuit.storage.records import ANSWERS

DIMENSIONS: Mapping[str, str] = {
    "day": "to_char(a.at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
    "workflow": "c.workflow_id",
    "case": "CAST(a.case_id AS text)",
    "agent": "coalesce(nullif(a.agent, ''), e.agent_id, '')",
    "provider": "coalesce(nullif(a.provider, ''), e.descriptor ->> 'provider', '')",
    "model": "coalesce(a.model, '')",
}
"""What answers are told apart by. The day is that of the answer, in UTC."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which answers count: those from `since` up to, and without, `until`, and what is named of the rest. `opened`:
    beside the case also those that it opened, and those that they did."""

    since: datetime
    until: datetime
    case: UUID | None = None
    opened: bool = False
    workflow_id: str | None = None
    agent_id: str | None = None
    provider: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What answers that have `names` in common come to. `calls` were made, and to `unpriced` ones of them no price is
    known, so that they are not in `usd`; `cached` are the answers for which no model was asked."""

    names: Mapping[str, str]
    calls: int
    cached: int
    input_tokens: int
    output_tokens: int
    usd: float
    unpriced: int


_STEPS = " OR ".join(f"j.step LIKE '{begin}%'" for begin in ANSWERS)
# A case that was born after the period has no answers in it, so that its week is not looked at. The answers come first,
# by their index on time: to go through all executions and look for theirs would take longer the more there are.
_SUMS = f"""
WITH RECURSIVE kin AS (
    SELECT CAST(:case AS uuid) AS case_id
    UNION ALL
    SELECT c.case_id FROM kin k JOIN circuit."case" c ON c.tenant_id = :tenant AND c.parent_case = k.case_id
    WHERE :opened
),
answered AS MATERIALIZED (
    SELECT j.case_id, j.firing, j.at, a.model, a.provider, a.agent, a.cost, coalesce(a.cached, false) AS cached,
        CAST(a.usage ->> 'input_tokens' AS numeric) AS input_tokens,
        CAST(a.usage ->> 'output_tokens' AS numeric) AS output_tokens
    FROM circuit.journal j
    CROSS JOIN LATERAL json_to_record(j.value)
        AS a(model text, provider text, agent text, cost float8, cached bool, usage json)
    WHERE j.tenant_id = :tenant AND j.at >= :since AND j.at < :until AND j.case_id < :born AND ({_STEPS})
        AND (CAST(:case AS uuid) IS NULL OR j.case_id IN (SELECT k.case_id FROM kin k))
),
named AS (
    SELECT a.*, {", ".join(f"{told} AS of_{name}" for name, told in DIMENSIONS.items())}
    FROM answered a
    JOIN circuit."case" c ON c.tenant_id = :tenant AND c.case_id = a.case_id
    JOIN circuit.execution e ON e.tenant_id = :tenant AND e.case_id = a.case_id AND e.firing = a.firing
),
sums AS (
    SELECT {{columns}}{{whole}} AS whole, count(*) FILTER (WHERE NOT cached) AS calls,
        count(*) FILTER (WHERE cached) AS cached, coalesce(sum(input_tokens), 0) AS input_tokens,
        coalesce(sum(output_tokens), 0) AS output_tokens, coalesce(sum(cost), 0) AS usd,
        count(*) FILTER (WHERE cost IS NULL AND NOT cached) AS unpriced
    FROM named
    WHERE (CAST(:workflow AS text) IS NULL OR of_workflow = :workflow)
        AND (CAST(:agent AS text) IS NULL OR of_agent = :agent)
        AND (CAST(:provider AS text) IS NULL OR of_provider = :provider)
        AND (CAST(:model AS text) IS NULL OR of_model = :model)
    GROUP BY GROUPING SETS ((){{sets}})
),
placed AS (SELECT *, row_number() OVER (PARTITION BY whole ORDER BY {{order}}) AS place FROM sums)
SELECT * FROM placed WHERE whole OR place > :skip AND place <= :skip + :limit ORDER BY whole DESC, place
"""
_DEAREST = "usd DESC, input_tokens + output_tokens DESC, calls DESC"


async def sums(
    conn: AsyncConnection, tenant: int, chosen: Chosen, by: Sequence[str], *, skip: int, limit: int
) -> tuple[Cost, list[Cost]]:
    """What all chosen answers come to, and what those do that agree in the dimensions `by`: the newest days first, and
    the dearest of them."""
    names = [f"of_{name}" for name in by]
    query = _SUMS.format(
        columns="".join(f"{name}, " for name in names),
        whole=f"grouping({names[0]}) = 1" if names else "true",
        sets=f", ({', '.join(names)})" if names else "",
        order=", ".join([*(["of_day DESC"] if "day" in by else []), _DEAREST, *names]),
    )
    given = {
        "tenant": tenant,
        "since": chosen.since,
        "until": chosen.until,
        "born": first_uuid7_at(chosen.until),
        "case": chosen.case,
        "opened": chosen.opened,
        "workflow": chosen.workflow_id,
        "agent": chosen.agent_id,
        "provider": chosen.provider,
        "model": chosen.model,
        "skip": skip,
        "limit": limit,
    }
    found = [_cost(row, by) for row in (await conn.execute(text(query), given)).mappings()]
    return found[0], found[1:]


def _cost(row: Any, by: Sequence[str]) -> Cost:
    return Cost(
        {} if row["whole"] else {name: row[f"of_{name}"] for name in by},
        row["calls"],
        row["cached"],
        int(row["input_tokens"]),
        int(row["output_tokens"]),
        round(row["usd"], 9),
        row["unpriced"],
    )
