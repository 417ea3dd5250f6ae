"""Budgets of cases, workflows and tenants: what there is of them, and what calls of models cost them.

A *charge* is one call of a model: held at the most that it may cost before it is sent, and settled once at what it did
cost. All that is spent of a budget stands in its row or in charges since its `since`, never in both: to *fold* charges
is to delete them and to add what they came to, in one transaction. So whoever reads both in one statement sees the
truth, at any moment.

**Locks.** Who holds locks the rows of all budgets that apply, in the order of their keys, before he reads what is
spent: of two that want the last dollar, the second sees the charge of the first. Whoever folds locks them in the same
order. To settle locks nothing but the charge, so the writer, which settles with the journal in one commit
(`circuit.storage.statements`), waits for nobody.

All but `listed`, `change`, `reset` and `remove` run under the engine's role.
"""

# ruff: noqa: S608 -- these texts are composed of the constants below and of nothing else.

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.ids import CaseKey
from circuit.spend import Limits, Spend
from circuit.storage import rows
from circuit.storage.charges import Asked, Budget, BudgetKey, Charge, Settled, limits_of
from circuit.storage.driver import Connection, Record
from circuit.storage.statements import FENCE

MOST_FOLDED = 1_000
"""How many charges are folded in one transaction."""


_KEYS = "unnest($1::int4[], $2::text[], $3::text[]) AS i(tenant_id, scope, subject)"
_SAME = "b.tenant_id = i.tenant_id AND b.scope = i.scope AND b.subject = i.subject"
_ORDER = "b.tenant_id, b.scope, b.subject"
_APPLY = f"SELECT {_ORDER} FROM {_KEYS} JOIN circuit.budget b ON {_SAME}"
# It counts from the beginning of the case: nothing was spent before its first call.
_OPEN = """
INSERT INTO circuit.budget (tenant_id, scope, subject, calls, tokens, microdollars, since, updated_by)
SELECT i.tenant_id, i.scope, i.subject, i.calls, i.tokens, i.microdollars, t.started_at, 'circuit'
FROM unnest($1::int4[], $2::text[], $3::text[], $4::int8[], $5::int8[], $6::int8[])
    AS i(tenant_id, scope, subject, calls, tokens, microdollars)
JOIN circuit."case" t ON t.tenant_id = i.tenant_id AND t.case_id = i.subject::uuid
ORDER BY i.tenant_id, i.scope, i.subject
ON CONFLICT DO NOTHING
"""
_LOCK = f"SELECT {_ORDER} FROM {_KEYS} JOIN circuit.budget b ON {_SAME} ORDER BY {_ORDER} FOR UPDATE OF b"
_BEGIN_PERIOD = f"""
UPDATE circuit.budget b
SET spent_calls = 0, spent_tokens = 0, spent_microdollars = 0, since = date_trunc(b.period, now(), 'UTC')
FROM {_KEYS}
WHERE {_SAME} AND b.period IS NOT NULL AND b.since < date_trunc(b.period, now(), 'UTC')
"""
# Written so that each of these is a look into an index that finds nothing where the scope is another.
_CHARGES = """
LEFT JOIN LATERAL (
    SELECT coalesce(sum(c.calls) FILTER (WHERE c.settled_at IS NULL), 0)::int8 AS held_calls,
        coalesce(sum(c.tokens) FILTER (WHERE c.settled_at IS NULL), 0)::int8 AS held_tokens,
        coalesce(sum(c.microdollars) FILTER (WHERE c.settled_at IS NULL), 0)::int8 AS held_microdollars,
        coalesce(sum(c.calls) FILTER (WHERE c.settled_at IS NOT NULL), 0)::int8 AS settled_calls,
        coalesce(sum(c.tokens) FILTER (WHERE c.settled_at IS NOT NULL), 0)::int8 AS settled_tokens,
        coalesce(sum(c.microdollars) FILTER (WHERE c.settled_at IS NOT NULL), 0)::int8 AS settled_microdollars
    FROM (
        SELECT c.* FROM circuit.charge c
        WHERE c.tenant_id = b.tenant_id AND c.case_id = CASE WHEN b.scope = 'case' THEN b.subject::uuid END
            AND c.payer IS NULL
        UNION ALL
        SELECT c.* FROM circuit.charge c
        WHERE c.tenant_id = b.tenant_id AND c.payer = CASE WHEN b.scope = 'case' THEN b.subject::uuid END
        UNION ALL
        SELECT c.* FROM circuit.charge c
        WHERE c.tenant_id = b.tenant_id AND c.workflow_id = CASE WHEN b.scope = 'workflow' THEN b.subject END
        UNION ALL
        SELECT c.* FROM circuit.charge c
        WHERE c.tenant_id = CASE WHEN b.scope = 'tenant' THEN b.tenant_id END
    ) c
    WHERE c.held_at >= {since}
) c ON true
"""
_STANDING = f"SELECT b.*, c.* FROM {_KEYS} JOIN circuit.budget b ON {_SAME} {_CHARGES.format(since='b.since')}"
_HOLD = """
INSERT INTO circuit.charge
    (tenant_id, case_id, firing, start, number, workflow_id, worker, calls, tokens, microdollars, payer)
SELECT tenant_id, case_id, firing, start, number, workflow_id, $1, calls, tokens, microdollars, payer
FROM unnest(
    $2::int4[], $3::uuid[], $4::int4[], $5::int4[], $6::int4[], $7::text[], $8::int4[], $9::int8[], $10::int8[],
    $11::uuid[]
) AS i(tenant_id, case_id, firing, start, number, workflow_id, calls, tokens, microdollars, payer)
ON CONFLICT DO NOTHING
"""
_HELD = """
SELECT c.tenant_id, c.case_id, c.firing, c.start, c.number
FROM unnest($1::int4[], $2::uuid[], $3::int4[], $4::int4[], $5::int4[])
    AS i(tenant_id, case_id, firing, start, number)
JOIN circuit.charge c ON c.tenant_id = i.tenant_id AND c.case_id = i.case_id AND c.firing = i.firing
    AND c.start = i.start AND c.number = i.number
"""


async def hold(
    conn: Connection,
    worker: UUID,
    asked: Sequence[Asked],
    decide: Callable[[Mapping[BudgetKey, Budget], Sequence[Asked], Collection[Charge]], Collection[Asked]],
) -> bool:
    """Hold what `decide` grants of what is asked, given the budgets that apply and the charges that are held already.
    Returns False if the worker is fenced.

    Where no budget applies to anything that is asked, `decide` is told so and nothing is locked or written.
    """
    keys = sorted({key for one in asked for key in one.budgets})
    limited = {one.budgets[0]: one.limits for one in asked if one.limits.any}
    if not limited and not await conn.fetch(_APPLY, *_columns(keys)):
        decide({}, asked, ())
        return True
    async with conn.transaction(isolation="read_committed"):
        if await conn.fetchval(FENCE, worker) is None:
            return False
        if limited:
            limits = list(limited.values())
            await conn.execute(
                _OPEN,
                *_columns(list(limited)),
                [limit.calls for limit in limits],
                [limit.tokens for limit in limits],
                [limit.microdollars for limit in limits],
            )
        await conn.execute(_LOCK, *_columns(keys))
        await conn.execute(_BEGIN_PERIOD, *_columns(keys))
        # Statements of their own after the lock: their snapshots have what those before us have committed. That may be
        # we ourselves, where the answer to a commit was lost.
        held = {_charge(row) for row in await conn.fetch(_HELD, *_charges(asked))}
        standing = [_budget(row) for row in await conn.fetch(_STANDING, *_columns(keys))]
        granted = list(decide({budget.key: budget for budget in standing}, asked, held))
        await conn.execute(
            _HOLD,
            worker,
            *_charges(granted),
            [one.workflow_id for one in granted],
            [one.most.calls for one in granted],
            [one.most.tokens or 0 for one in granted],
            [one.most.microdollars or 0 for one in granted],
            [one.payer for one in granted],
        )
    return True


# The nearest of those that opened a case, it itself included, which has a budget: a row, or one that its version gives.
_PAYERS = """
WITH RECURSIVE kin (tenant_id, child, case_id, depth) AS (
    SELECT i.tenant_id, i.case_id, i.case_id, 0 FROM unnest($1::int4[], $2::uuid[]) AS i(tenant_id, case_id)
    UNION ALL
    SELECT k.tenant_id, k.child, c.parent_case, k.depth + 1
    FROM kin k JOIN circuit."case" c ON c.tenant_id = k.tenant_id AND c.case_id = k.case_id
    WHERE c.parent_case IS NOT NULL
)
SELECT DISTINCT ON (k.tenant_id, k.child) k.tenant_id, k.child, k.case_id, v.document -> 'budget' AS budget
FROM kin k
JOIN circuit."case" c ON c.tenant_id = k.tenant_id AND c.case_id = k.case_id
JOIN circuit.workflow_version v
    ON v.tenant_id = c.tenant_id AND v.workflow_id = c.workflow_id AND v.hash = c.workflow_hash
LEFT JOIN circuit.budget b ON b.tenant_id = k.tenant_id AND b.scope = 'case' AND b.subject = k.case_id::text
WHERE b.subject IS NOT NULL OR v.document -> 'budget' IS NOT NULL
ORDER BY k.tenant_id, k.child, k.depth
"""


async def with_payers(conn: Connection, asked: Sequence[Asked]) -> list[Asked]:
    """What is asked, where a child has no budget of its own: of the nearest case above it that has one."""
    children = [one for one in asked if one.child]
    if not children:
        return list(asked)
    keys = {one.key for one in children}
    found = await conn.fetch(_PAYERS, [key.tenant for key in keys], [key.case for key in keys])
    payers = {CaseKey(row["tenant_id"], rows.plain(row["child"])): row for row in found}
    return [_paid(one, payers.get(one.key)) for one in asked]


def _paid(one: Asked, payer: Record | None) -> Asked:
    if payer is None or rows.plain(payer["case_id"]) == one.key.case:
        return one
    limits = limits_of(rows.document(payer["budget"]) if payer["budget"] is not None else {})
    return one._replace(payer=rows.plain(payer["case_id"]), limits=limits)


_SETTLE = """
UPDATE circuit.charge c
SET settled_at = now(), calls = coalesce(i.calls, c.calls), tokens = coalesce(i.tokens, c.tokens),
    microdollars = coalesce(i.microdollars, c.microdollars)
FROM unnest($2::int4[], $3::uuid[], $4::int4[], $5::int4[], $6::int4[], $7::int4[], $8::int8[], $9::int8[])
    AS i(tenant_id, case_id, firing, start, number, calls, tokens, microdollars)
WHERE c.tenant_id = i.tenant_id AND c.case_id = i.case_id AND c.firing = i.firing AND c.start = i.start
    AND c.number = i.number AND c.worker = $1 AND c.settled_at IS NULL
"""
# Nobody knows what became of the calls of a worker that is over: each counts with the most that it could cost. (One
# whose answer was journalled was settled in that same commit.)
_SETTLE_LOST = """
UPDATE circuit.charge c SET settled_at = now()
WHERE c.settled_at IS NULL AND NOT EXISTS (SELECT FROM circuit.worker w WHERE w.id = c.worker AND NOT w.fenced)
"""
_TO_FOLD = f"""
SELECT tenant_id, case_id, firing, start, number, workflow_id, payer FROM circuit.charge
WHERE settled_at IS NOT NULL ORDER BY 1, 2, 3, 4, 5 LIMIT {MOST_FOLDED}
"""
_FOLD = """
WITH gone AS (
    DELETE FROM circuit.charge c
    USING unnest($1::int4[], $2::uuid[], $3::int4[], $4::int4[], $5::int4[])
        AS i(tenant_id, case_id, firing, start, number)
    WHERE c.tenant_id = i.tenant_id AND c.case_id = i.case_id AND c.firing = i.firing AND c.start = i.start
        AND c.number = i.number AND c.settled_at IS NOT NULL
    RETURNING c.*
), joining AS (
    SELECT g.tenant_id, s.scope, s.subject, b.since, g.calls, g.tokens, g.microdollars
    FROM gone g CROSS JOIN LATERAL (
        VALUES ('case', coalesce(g.payer, g.case_id)::text), ('tenant', ''), ('workflow', g.workflow_id)
    ) AS s(scope, subject)
    JOIN circuit.budget b ON b.tenant_id = g.tenant_id AND b.scope = s.scope AND b.subject = s.subject
    WHERE g.held_at >= b.since
), sums AS (
    SELECT tenant_id, scope, subject, sum(calls) AS calls, sum(tokens) AS tokens, sum(microdollars) AS microdollars
    FROM joining GROUP BY 1, 2, 3
), joined AS (
    UPDATE circuit.budget b
    SET spent_calls = b.spent_calls + i.calls, spent_tokens = b.spent_tokens + i.tokens,
        spent_microdollars = b.spent_microdollars + i.microdollars
    FROM sums i
    WHERE b.tenant_id = i.tenant_id AND b.scope = i.scope AND b.subject = i.subject
)
SELECT count(*) FROM gone
"""


async def settle(conn: Connection, worker: UUID, settled: Sequence[Settled]) -> None:
    """Settle charges of this worker. What is settled already stays as it is."""
    spends = [one.spent for one in settled]
    await conn.execute(
        _SETTLE,
        worker,
        *_charges(settled),
        [None if spent is None else spent.calls for spent in spends],
        [None if spent is None else spent.tokens for spent in spends],
        [None if spent is None else spent.microdollars for spent in spends],
    )


async def settle_lost(conn: Connection) -> None:
    """Settle what workers that are over have left open, at the most that it may have cost."""
    await conn.execute(_SETTLE_LOST)


async def fold(conn: Connection) -> int:
    """Let charges that are settled join their budgets. Returns how many did; there may be more after a full page."""
    async with conn.transaction(isolation="read_committed"):
        found = await conn.fetch(_TO_FOLD)
        if not found:
            return 0
        keys = sorted({key for row in found for key in _budgets_of(row)})
        await conn.execute(_LOCK, *_columns(keys))
        await conn.execute(_BEGIN_PERIOD, *_columns(keys))
        folded = await conn.fetchval(
            _FOLD,
            *([row[name] for row in found] for name in ("tenant_id", "case_id", "firing", "start", "number")),
        )
    return int(folded)


def _budgets_of(row: Record) -> tuple[BudgetKey, ...]:
    key = rows.key(row)
    return (
        BudgetKey.of_case(key if row["payer"] is None else CaseKey(key.tenant, rows.plain(row["payer"]))),
        BudgetKey.of_tenant(key.tenant),
        BudgetKey.of_workflow(key.tenant, row["workflow_id"]),
    )


# Where a period is over, nothing of the new one is spent yet.
_LISTED = f"""
SELECT b.tenant_id, b.scope, b.subject, b.calls, b.tokens, b.microdollars, b.period, p.since, b.updated_at,
    b.updated_by, CASE WHEN p.over THEN 0 ELSE b.spent_calls END AS spent_calls,
    CASE WHEN p.over THEN 0 ELSE b.spent_tokens END AS spent_tokens,
    CASE WHEN p.over THEN 0 ELSE b.spent_microdollars END AS spent_microdollars, c.*
FROM circuit.budget b
CROSS JOIN LATERAL (
    SELECT coalesce(b.since < date_trunc(b.period, now(), 'UTC'), false) AS over,
        greatest(b.since, date_trunc(b.period, now(), 'UTC')) AS since
) p
{_CHARGES.format(since="p.since")}
WHERE b.tenant_id = :tenant
    AND (CAST(:scope AS text) IS NULL OR b.scope = :scope) AND (CAST(:subject AS text) IS NULL OR b.subject = :subject)
    AND (:cases OR b.scope <> 'case')
    AND (
        CAST(:after_scope AS text) IS NULL
        OR (b.scope = 'case', b.scope) > (:after_scope = 'case', CAST(:after_scope AS text))
        OR (b.scope = :after_scope AND b.subject < CAST(:after_subject AS text))
    )
ORDER BY b.scope = 'case', b.scope, b.subject DESC LIMIT :limit
"""
# Each limit that is given takes the place of the one before; two that set different ones both have their way.
_CHANGE = """
INSERT INTO circuit.budget AS b (tenant_id, scope, subject, calls, tokens, microdollars, period, since, updated_by)
VALUES (
    :tenant, :scope, :subject, CAST(:calls AS int8), CAST(:tokens AS int8), CAST(:microdollars AS int8), :period,
    coalesce(date_trunc(CAST(:period AS text), now(), 'UTC'), now()), :by
)
ON CONFLICT (tenant_id, scope, subject) DO UPDATE
SET calls = CASE WHEN :sets_calls THEN excluded.calls ELSE b.calls END,
    tokens = CASE WHEN :sets_tokens THEN excluded.tokens ELSE b.tokens END,
    microdollars = CASE WHEN :sets_microdollars THEN excluded.microdollars ELSE b.microdollars END,
    period = CASE WHEN :sets_period THEN excluded.period ELSE b.period END,
    updated_at = now(), updated_by = excluded.updated_by
RETURNING calls IS NOT NULL OR tokens IS NOT NULL OR microdollars IS NOT NULL
"""
_RESET = """
UPDATE circuit.budget
SET spent_calls = 0, spent_tokens = 0, spent_microdollars = 0, since = now(), updated_at = now(), updated_by = :by
WHERE tenant_id = :tenant AND scope = :scope AND subject = :subject
"""
_REMOVE = "DELETE FROM circuit.budget WHERE tenant_id = :tenant AND scope = :scope AND subject = :subject"


async def listed(
    conn: AsyncConnection,
    tenant: int,
    *,
    scope: str | None = None,
    subject: str | None = None,
    cases: bool = True,
    limit: int = 1_000,
    after: tuple[str, str] | None = None,
) -> list[Budget]:
    """Budgets of a tenant (its own, those of workflows, and with `cases` those of cases, the newest case first), or
    only one; `after` is the scope and the subject of the last one that is known. Runs in a transaction of the tenant,
    as all below do."""
    known, behind = after or (None, None)
    given = {"tenant": tenant, "scope": scope, "subject": subject, "cases": cases, "limit": limit}
    given |= {"after_scope": known, "after_subject": behind}
    return [_budget(row) for row in (await conn.execute(text(_LISTED), given)).mappings()]


async def change(
    conn: AsyncConnection,
    key: BudgetKey,
    own: Limits,
    limits: Mapping[str, int | None],
    period: str | None,
    by: str,
) -> bool:
    """Set the limits that are named, and the period (`ever` is none, None leaves it); what is spent stays. A budget
    that begins has `own` beside them, and counts what is held from now on. Returns whether it limits anything."""
    units = {"calls": own.calls, "tokens": own.tokens, "microdollars": own.microdollars} | dict(limits)
    given = {
        **_named(key, by),
        **units,
        **{f"sets_{unit}": unit in limits for unit in units},
        "period": None if period == "ever" else period,
        "sets_period": period is not None,
    }
    return bool(await conn.scalar(text(_CHANGE), given))


async def reset(conn: AsyncConnection, key: BudgetKey, by: str) -> None:
    """Nothing of a budget is spent, from now on."""
    await conn.execute(text(_RESET), _named(key, by))


async def remove(conn: AsyncConnection, key: BudgetKey) -> bool:
    """Delete a budget. Returns whether there was one."""
    return bool((await conn.execute(text(_REMOVE), _named(key))).rowcount)


def _named(key: BudgetKey, by: str = "") -> dict[str, Any]:
    return {"tenant": key.tenant, "scope": key.scope, "subject": key.subject, "by": by}


def _charges(of: Sequence[Asked | Settled]) -> tuple[list[int], list[UUID], list[int], list[int], list[int]]:
    charges = [one.charge for one in of]
    return (
        [charge.key.tenant for charge in charges],
        [charge.key.case for charge in charges],
        [charge.firing for charge in charges],
        [charge.start for charge in charges],
        [charge.number for charge in charges],
    )


def _charge(row: Record) -> Charge:
    return Charge(rows.key(row), row["firing"], row["start"], row["number"])


def _columns(keys: Sequence[BudgetKey]) -> tuple[list[int], list[str], list[str]]:
    return [key.tenant for key in keys], [key.scope for key in keys], [key.subject for key in keys]


def _budget(row: Any) -> Budget:
    settled = Spend(row["settled_calls"], row["settled_tokens"], row["settled_microdollars"])
    return Budget(
        key=BudgetKey(row["tenant_id"], row["scope"], row["subject"]),
        limits=Limits(row["calls"], row["tokens"], row["microdollars"]),
        spent=Spend(row["spent_calls"], row["spent_tokens"], row["spent_microdollars"]) + settled,
        held=Spend(row["held_calls"], row["held_tokens"], row["held_microdollars"]),
        period=row["period"],
        since=row["since"],
        updated_at=row["updated_at"],
        updated_by=row["updated_by"],
    )


# What is wrong with charges and budgets. A limit that was lowered is passed by nobody's fault, and what a prompt was
# counted too low by, is allowed for: one tenth.
_STRAY = """
SELECT c.tenant_id, c.case_id, c.firing, c.start, c.number FROM circuit.charge c
WHERE c.settled_at IS NULL AND c.held_at < now() - make_interval(secs => $1)
    AND NOT EXISTS (SELECT FROM circuit.worker w WHERE w.id = c.worker AND NOT w.fenced)
ORDER BY 1, 2, 3, 4, 5 LIMIT $2
"""
_OVERDRAWN = f"""
SELECT b.tenant_id, b.scope, b.subject, concat_ws(
    ', ',
    CASE WHEN b.spent_calls + c.settled_calls + c.held_calls > b.calls THEN 'calls' END,
    CASE WHEN b.spent_tokens + c.settled_tokens + c.held_tokens > b.tokens * 1.1 THEN 'tokens' END,
    CASE WHEN b.spent_microdollars + c.settled_microdollars + c.held_microdollars > b.microdollars * 1.1
        THEN 'money' END
) AS passed
FROM circuit.budget b {_CHARGES.format(since="b.since")}
WHERE (b.updated_by = 'circuit' OR b.updated_at <= b.since) AND (
    b.spent_calls + c.settled_calls + c.held_calls > b.calls
    OR b.spent_tokens + c.settled_tokens + c.held_tokens > b.tokens * 1.1
    OR b.spent_microdollars + c.settled_microdollars + c.held_microdollars > b.microdollars * 1.1
)
ORDER BY 1, 2, 3 LIMIT $1
"""


async def stray(conn: Connection, older_than_seconds: float, limit: int) -> list[Record]:
    """Charges that workers which are over have left open, and that nobody has settled for so long."""
    return await conn.fetch(_STRAY, older_than_seconds, limit)


async def overdrawn(conn: Connection, limit: int) -> list[Record]:
    """Budgets of which more is spent and held than there is, and whose limits were never changed."""
    return await conn.fetch(_OVERDRAWN, limit)
