"""The invariants about time, order and amounts: I4, I7 to I10, and that a fenced incarnation changes nothing (I2).

`tests/invariants.py` runs them with the others. Like those they read rows and count, and share no code with the engine.
"""

from __future__ import annotations

from typing import Any

Connection = Any

PROGRESS_SECONDS = 6.0
"""One lease of the tests and five seconds."""


async def found(connection: Connection, message: str, query: str, *arguments: object) -> list[str]:
    """`message` filled in with each row of `query`: each is a fault."""
    return [message.format(**dict(row)) for row in await connection.fetch(query, *arguments)]


async def i2_fenced(connection: Connection) -> list[str]:
    """Once a later start of a firing has begun, nothing is stored any more of an earlier one: a transaction that wrote
    it would be younger than the one that resumed the firing, and what writes after a take-over is fenced."""
    return await found(
        connection,
        "I2: start {start} of execution {case_id}.{firing} stored its frame {seq} after start {later} had begun",
        """
        SELECT s.case_id, s.firing, s.start, s.seq, (h.body->>'start')::int AS later
        FROM circuit.history h JOIN circuit.stream_event s
            ON s.tenant_id = h.tenant_id AND s.case_id = h.case_id AND s.firing = h.firing
            AND s.start < (h.body->>'start')::int
        WHERE h.kind = 'firing_resumed' AND s.xmin::text::bigint > h.xmin::text::bigint
        """,
    )


async def i4_progress(connection: Connection, seconds: float = PROGRESS_SECONDS) -> list[str]:
    """Nothing that could go on has waited for longer than `seconds`. (Only where a worker lives, and faults have
    stopped for so long.)"""
    faults = await found(
        connection,
        "I4: case {case_id} is {status}, belongs to nobody and has been due since {due_at}",
        """
        SELECT t.case_id, t.status, r.due_at
        FROM circuit.ready r JOIN circuit."case" t ON t.tenant_id = r.tenant_id AND t.case_id = r.case_id
        WHERE t.owner IS NULL AND t.status NOT IN ('completed', 'failed', 'cancelled')
            AND r.due_at < clock_timestamp() - make_interval(secs => $1)
        """,
        seconds,
    )
    faults += await found(
        connection,
        "I4: case {case_id} is owned, nothing of it runs, and nothing has happened in it since {at}",
        """
        SELECT t.case_id, h.at
        FROM circuit."case" t JOIN circuit.history h
            ON h.tenant_id = t.tenant_id AND h.case_id = t.case_id AND h.seq = t.seq
        WHERE t.owner IS NOT NULL AND h.at < clock_timestamp() - make_interval(secs => $1)
            AND NOT EXISTS (
                SELECT 1 FROM circuit.firing f
                WHERE f.tenant_id = t.tenant_id AND f.case_id = t.case_id AND f.state = 'running'
            )
        """,
        seconds,
    )
    faults += await found(
        connection,
        "I4: case {case_id} belongs to {owner}, whose lease ended at {expires_at}",
        """
        SELECT t.case_id, t.owner, l.expires_at
        FROM circuit."case" t LEFT JOIN circuit.worker_lease l ON l.worker_id = t.owner
        WHERE t.owner IS NOT NULL
            AND coalesce(l.expires_at < clock_timestamp() - make_interval(secs => $1), true)
        """,
        seconds,
    )
    faults += await found(
        connection,
        "I4: the command {command_id} ({kind}) to case {case_id} has waited since {created_at}",
        """
        SELECT command_id, kind, case_id, created_at FROM circuit.command
        WHERE state = 'pending' AND created_at < clock_timestamp() - make_interval(secs => $1)
        """,
        seconds,
    )
    return faults


async def i7_counters(connection: Connection) -> list[str]:
    """The numbers that a case would give next are above all that it gave, and what a firing counts is what its history
    says."""
    faults: list[str] = []
    for counter, table, column in (
        ("next_token", "token", "number"),
        ("next_firing", "firing", "number"),
        ("next_incident", "incident", "number"),
    ):
        faults += await found(
            connection,
            "I7: case {case_id} would give {what} the number {next}, and has {most} already",
            f"""
            SELECT t.case_id, '{table}' AS what, t.{counter} AS next, max(o.{column}) AS most
            FROM circuit."case" t JOIN circuit.{table} o ON o.tenant_id = t.tenant_id AND o.case_id = t.case_id
            GROUP BY t.tenant_id, t.case_id, t.{counter} HAVING max(o.{column}) >= t.{counter}
            """,
        )
    faults += await found(
        connection,
        "I7: firing {case_id}.{number} counts {start} starts, and its history says {starts}",
        """
        SELECT f.case_id, f.number, f.start, count(h.seq) AS starts
        FROM circuit.firing f JOIN circuit.history h
            ON h.tenant_id = f.tenant_id AND h.case_id = f.case_id AND h.firing = f.number
            AND h.kind IN ('firing_begun', 'firing_resumed')
        GROUP BY f.tenant_id, f.case_id, f.number, f.start
        HAVING (f.start NOT IN (count(h.seq), count(h.seq) + 1) OR f.start < count(h.seq))
            AND NOT (f.start = 0 AND f.state IN ('offered', 'cancelled'))
        """,
    )
    faults += await found(
        connection,
        "I7: firing {case_id}.{firing} has ended and holds {amount} of {place}",
        """
        SELECT h.case_id, h.firing, h.amount, h.place
        FROM circuit.hold h LEFT JOIN circuit.firing f
            ON f.tenant_id = h.tenant_id AND f.case_id = h.case_id AND f.number = h.firing
        WHERE h.held_until IS NULL AND coalesce(f.state, 'cancelled') IN ('completed', 'failed', 'cancelled')
        """,
    )
    faults += await found(
        connection,
        "I7: {amount} of {place} are held, and there are {capacity}",
        """
        SELECT r.place, r.capacity, sum(h.amount) AS amount
        FROM circuit.resource r JOIN circuit.hold h USING (tenant_id, workflow_id, place)
        WHERE h.granted_at > r.updated_at AND coalesce(h.held_until > now(), true)
        GROUP BY r.tenant_id, r.workflow_id, r.place, r.capacity HAVING sum(h.amount) > r.capacity
        """,
    )
    faults += await found(
        connection,
        "I7: {sessions} sessions idle in a transaction",
        """
        SELECT count(*) AS sessions FROM pg_stat_activity
        WHERE datname = current_database() AND state LIKE 'idle in transaction%'
            -- Longer than a slow network holds back what comes next (`tests.chaos.faults.slow`).
            AND state_change < pg_catalog.clock_timestamp() - interval '5 seconds'
        HAVING count(*) > 0
        """,
    )
    return faults


async def i8_schedules(connection: Connection) -> list[str]:
    """Each time of each stay of a token has one run of each agent of its place."""
    return await found(
        connection,
        "I8: {transition} has run {times} times on token {token} of case {case_id} for {due}",
        """
        SELECT case_id, transition, request->'refreshed'->0->>'number' AS token, request->>'due' AS due,
            count(*) AS times
        FROM circuit.firing WHERE request->>'due' IS NOT NULL
        GROUP BY tenant_id, case_id, transition, 3, request->'refreshed'->0->>'entered_at', 4 HAVING count(*) > 1
        """,
    )


async def i9_cost(connection: Connection) -> list[str]:
    """Each (attempt, step) has at most one recorded answer, of an attempt that there was."""
    return await found(
        connection,
        "I9: the answer {step} of attempt {attempt} of firing {case_id}.{firing} was recorded {times} times,"
        " and the firing has had {attempts} attempts",
        """
        SELECT j.case_id, j.firing, j.attempt, j.step, count(*) AS times, max(f.attempt) AS attempts
        FROM circuit.journal j LEFT JOIN circuit.firing f
            ON f.tenant_id = j.tenant_id AND f.case_id = j.case_id AND f.number = j.firing
        GROUP BY j.tenant_id, j.case_id, j.firing, j.attempt, j.step
        HAVING count(*) > 1 OR max(f.attempt) IS NULL OR j.attempt > max(f.attempt)
        """,
    )


async def i10_bounded(connection: Connection) -> list[str]:
    """What is there for a while only is gone when its time is over: leases of incarnations that have ended, rows of
    `ready` of cases that have ended, commands to them."""
    faults = await found(
        connection,
        "I10: the incarnation {worker_id} has ended and still has a lease",
        """
        SELECT l.worker_id FROM circuit.worker_lease l LEFT JOIN circuit.worker w ON w.id = l.worker_id
        WHERE w.id IS NULL OR w.fenced
        """,
    )
    faults += await found(
        connection,
        "I10: case {case_id} is {status}, and somebody is to look at it since {due_at}",
        """
        SELECT t.case_id, t.status, r.due_at
        FROM circuit.ready r JOIN circuit."case" t ON t.tenant_id = r.tenant_id AND t.case_id = r.case_id
        WHERE t.status IN ('completed', 'failed', 'cancelled') AND r.due_at < clock_timestamp() - interval '6 seconds'
        """,
    )
    return faults


async def deadlocks(connection: Connection) -> int:
    """How many deadlocks Postgres has had to end in this database."""
    return await connection.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
