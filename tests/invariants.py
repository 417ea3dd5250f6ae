"""The invariants of the store, checked by SQL over a whole database, whatever happened to its workers.

Nothing here shares code with the engine: it reads rows and counts. Each check gives the list of what is wrong, empty
where all is well; `check` runs them all on one snapshot and fails with everything that they found. Most hold at every
moment; some only at rest: no worker running, or nothing left to do.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import asyncpg

from tests import figures

Connection = Any
Check = Callable[[Connection], Awaitable[list[str]]]
CaseId = tuple[int, Any]


async def check(url: str, *, at_rest: bool = True) -> None:
    """Raise `AssertionError` with everything that is wrong in the database at `url`."""
    faults = await _faults(url, CHECKS + (AT_REST if at_rest else ()))
    assert not faults, "\n".join(faults)


async def waiting_since(url: str, seconds: float) -> list[str]:
    """What could go on in the database at `url`, and has waited for longer than `seconds` (I4)."""

    async def progress(connection: Connection) -> list[str]:
        return await figures.i4_progress(connection, seconds)

    return await _faults(url, (progress,))


async def _faults(url: str, checks: tuple[Check, ...]) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return [fault for one in checks for fault in await one(connection)]
    finally:
        await connection.close()


async def i1_conservation(connection: Connection) -> list[str]:
    """Every (token, version) has exactly one producer and at most one consumer; what was never consumed is what lies
    in the places; nothing is consumed that was not produced."""
    faults: list[str] = []
    produced: dict[CaseId, dict[tuple[int, int], str]] = {}
    consumed: dict[CaseId, set[tuple[int, int]]] = {}
    rows = await connection.fetch(
        "SELECT tenant_id, case_id, seq, kind, body FROM circuit.history ORDER BY tenant_id, case_id, seq"
    )
    for row in rows:
        case = (row["tenant_id"], row["case_id"])
        body: Mapping[str, Any] = json.loads(row["body"])
        made = produced.setdefault(case, {})
        gone = consumed.setdefault(case, set())
        for ref in body.get("consumed", ()):
            token = (ref["number"], ref["version"])
            if token not in made:
                faults.append(f"I1: case {case[1]}, event {row['seq']} consumes {token}, which nothing produced")
            elif made[token] != ref["place"]:
                where = f"{made[token]}, not {ref['place']}"
                faults.append(f"I1: case {case[1]}, event {row['seq']}: {token} lay in {where}")
            if token in gone:
                faults.append(f"I1: case {case[1]}, event {row['seq']} consumes {token} a second time")
            gone.add(token)
        for image in body.get("produced", ()):
            token = (image["number"], image["version"])
            if token in made:
                faults.append(f"I1: case {case[1]}, event {row['seq']} produces {token} a second time")
            made[token] = image["place"]
    lying: dict[CaseId, dict[tuple[int, int], str]] = {}
    for row in await connection.fetch("SELECT tenant_id, case_id, number, version, place FROM circuit.token"):
        case = (row["tenant_id"], row["case_id"])
        lying.setdefault(case, {})[(row["number"], row["version"])] = row["place"]
    for case, made in produced.items():
        left = {token: place for token, place in made.items() if token not in consumed[case]}
        if left != lying.get(case, {}):
            faults.append(f"I1: case {case[1]}: history leaves {left}, the places hold {lying.get(case, {})}")
    faults += [f"I1: case {case[1]} has tokens and no history" for case in lying.keys() - produced.keys()]
    return faults


async def i1_arc_weights(connection: Connection) -> list[str]:
    """Each firing consumed and produced as many tokens, place by place, as the arcs of its transition say."""
    faults: list[str] = []
    documents: dict[tuple[int, str], Any] = {}
    for row in await connection.fetch("SELECT tenant_id, hash, document FROM circuit.workflow_version"):
        documents[(row["tenant_id"], row["hash"])] = json.loads(row["document"])
    rows = await connection.fetch(
        """
        SELECT h.tenant_id, h.case_id, h.seq, h.transition, h.body, t.workflow_hash
        FROM circuit.history h JOIN circuit."case" t ON t.tenant_id = h.tenant_id AND t.case_id = h.case_id
        WHERE h.kind = 'transition_fired'
        """
    )
    for row in rows:
        document = documents[(row["tenant_id"], row["workflow_hash"])]
        shared = {name for name, place in document["places"].items() if place.get("shared")}
        body = json.loads(row["body"])
        if body.get("superseded"):
            continue
        if "@" in row["transition"]:
            # An agent that runs on the tokens of a place takes one and puts it back.
            place = row["transition"].partition("@")[2].partition("#")[0]
            transition: Any = {"from_places": [{"place": place}], "to_places": [{"place": place}]}
        else:
            transition = document["transitions"][row["transition"]]
        for side, arcs in (("consumed", transition["from_places"]), ("produced", transition["to_places"])):
            asked: Counter[str] = Counter()
            for arc in arcs:
                if arc.get("mode", "consume") == "consume" and arc["place"] not in shared:
                    asked[arc["place"]] += arc.get("weight", 1)
            moved = Counter(token["place"] for token in body[side])
            if moved != asked:
                faults.append(
                    f"I1: case {row['case_id']}, event {row['seq']}: {row['transition']} {side} {dict(moved)},"
                    f" its arcs say {dict(asked)}"
                )
    return faults


async def i2_single_commit(connection: Connection) -> list[str]:
    """A firing completes at most once, its history says so exactly as often as its row, and the events of a case
    have no gap and end where the case's counter stands."""
    faults = await _found(
        connection,
        "I2: firing {case_id}.{firing} completed {times} times",
        """
        SELECT case_id, firing, count(*) AS times FROM circuit.history
        WHERE kind = 'transition_fired' AND firing IS NOT NULL
        GROUP BY tenant_id, case_id, firing HAVING count(*) > 1
        """,
    )
    faults += await _found(
        connection,
        "I2: firing {case_id}.{number} is {state}, and its history says {kinds}",
        """
        SELECT f.case_id, f.number, f.state, array_agg(h.kind) FILTER (WHERE h.kind IS NOT NULL) AS kinds
        FROM circuit.firing f LEFT JOIN circuit.history h
            ON h.tenant_id = f.tenant_id AND h.case_id = f.case_id AND h.firing = f.number
            AND h.kind IN ('transition_fired', 'firing_failed', 'firing_cancelled')
        GROUP BY f.tenant_id, f.case_id, f.number, f.state
        HAVING (f.state IN ('completed', 'failed', 'cancelled')) <> (count(h.kind) = 1)
            OR max(h.kind) <> CASE f.state WHEN 'completed' THEN 'transition_fired'
                WHEN 'failed' THEN 'firing_failed' ELSE 'firing_cancelled' END
        """,
    )
    faults += await _found(
        connection,
        "I2: case {case_id} stands at {seq}, and its events are {least} to {most}, {events} of them",
        """
        SELECT t.case_id, t.seq, min(h.seq) AS least, max(h.seq) AS most, count(h.seq) AS events
        FROM circuit."case" t LEFT JOIN circuit.history h ON h.tenant_id = t.tenant_id AND h.case_id = t.case_id
        GROUP BY t.tenant_id, t.case_id, t.seq
        HAVING count(h.seq) <> t.seq OR max(h.seq) <> t.seq OR min(h.seq) <> 1
        """,
    )
    faults += await _found(
        connection,
        "I2: case {case_id} belongs to a worker that is fenced",
        """
        SELECT t.case_id FROM circuit."case" t JOIN circuit.worker w ON w.id = t.owner WHERE w.fenced
        """,
    )
    return faults


async def i3_no_loss(connection: Connection) -> list[str]:
    """Every reserved token belongs to a live firing, and every live firing holds its tokens; a case that is not
    over, has no owner and has something to do has a row in `ready`."""
    faults = await _found(
        connection,
        "I3: token {case_id}.{number} is reserved by firing {reserved_by}, which is {state}",
        """
        SELECT t.case_id, t.number, t.reserved_by, f.state
        FROM circuit.token t LEFT JOIN circuit.firing f
            ON f.tenant_id = t.tenant_id AND f.case_id = t.case_id AND f.number = t.reserved_by
        WHERE t.reserved_by IS NOT NULL AND coalesce(f.state, '') NOT IN ('offered', 'running', 'suspended')
        """,
    )
    faults += await _found(
        connection,
        "I3: live firing {case_id}.{number} does not hold token {token}",
        """
        SELECT f.case_id, f.number, (held->>0)::int AS token
        FROM circuit.firing f CROSS JOIN LATERAL jsonb_array_elements((f.request->'consumed')::jsonb) held
        WHERE f.state IN ('offered', 'running', 'suspended') AND NOT EXISTS (
            SELECT 1 FROM circuit.token t
            WHERE t.tenant_id = f.tenant_id AND t.case_id = f.case_id AND t.number = (held->>0)::int
                AND t.version = (held->>1)::int AND t.reserved_by = f.number
        )
        """,
    )
    faults += await _found(
        connection,
        "I3: case {case_id} is {status}, nobody owns it and nobody will look at it",
        """
        SELECT t.case_id, t.status FROM circuit."case" t
        WHERE t.owner IS NULL AND t.status IN ('running', 'waiting', 'attention', 'stuck')
            AND NOT EXISTS (
                SELECT 1 FROM circuit.ready r WHERE r.tenant_id = t.tenant_id AND r.case_id = t.case_id
            )
            AND (
                t.status = 'running'
                OR EXISTS (
                    SELECT 1 FROM circuit.firing f
                    WHERE f.tenant_id = t.tenant_id AND f.case_id = t.case_id
                        AND (f.state IN ('offered', 'running') OR f.state = 'suspended' AND f.wake_at IS NOT NULL)
                        -- Who waits for something that cases share is looked at when it is granted.
                        AND NOT EXISTS (
                            SELECT 1 FROM circuit.hold h WHERE h.tenant_id = f.tenant_id AND h.case_id = f.case_id
                                AND h.firing = f.number AND h.granted_at IS NULL
                        )
                )
                OR EXISTS (
                    SELECT 1 FROM circuit.command k
                    WHERE k.tenant_id = t.tenant_id AND k.case_id = t.case_id AND k.state = 'pending'
                )
            )
        """,
    )
    return faults


async def i3_artefacts(connection: Connection) -> list[str]:
    """Every reference resolves, to what its hash says, and what it refers to is kept for its case."""
    payloads = " UNION ALL ".join(
        f"SELECT tenant_id, case_id, '{table}.{column}' AS source, {column}::json AS payload FROM circuit.{table}"
        f" WHERE {column}::text LIKE '%$artefacts%'"
        for table, column in (
            ("token", "data"), ("token", "metadata"), ("history", "body"), ("firing", "request"), ("firing", "awaits"),
            ("journal", "value"),
        )
    )  # fmt: skip
    faults = await _found(
        connection,
        "I3: {source} of case {case_id} refers to the artefact {hash}, which is not there or not kept for it",
        f"""
        SELECT p.case_id, p.source, r.entry->>0 AS hash
        FROM ({payloads}) p CROSS JOIN LATERAL json_array_elements(
            CASE json_typeof(p.payload->'$artefacts')
                WHEN 'array' THEN p.payload->'$artefacts' WHEN 'object' THEN p.payload->'$artefacts'->'in' ELSE '[]'
            END
        ) AS r(entry)
        WHERE NOT EXISTS (
            SELECT FROM circuit.artefact a JOIN circuit.artefact_use u ON u.tenant_id = a.tenant_id AND u.hash = a.hash
            WHERE a.tenant_id = p.tenant_id AND u.case_id = p.case_id AND a.hash = r.entry->>0
        )
        """,
    )
    faults += await _found(
        connection,
        "I3: the artefact {hash} is not what its hash says",
        "SELECT hash FROM circuit.artefact WHERE hash <> encode(sha256(convert_to(content::text, 'UTF8')), 'hex')",
    )
    return faults


async def i5_streams(connection: Connection) -> list[str]:
    """Per execution and start the stored frames are 1..n, a merged one being several; an ended execution has one
    terminal frame, the last one."""
    faults = await _found(
        connection,
        "I5: execution {case_id}.{firing}, start {start}: {frames} frames, from {least} to {most}",
        """
        SELECT case_id, firing, start, sum(seq - coalesce(first_seq, seq) + 1) AS frames,
            min(coalesce(first_seq, seq)) AS least, max(seq) AS most
        FROM circuit.stream_event GROUP BY tenant_id, case_id, firing, start
        HAVING min(coalesce(first_seq, seq)) <> 1 OR max(seq) <> sum(seq - coalesce(first_seq, seq) + 1)
        """,
    )
    faults += await _found(
        connection,
        "I5: execution {case_id}.{firing} is {status} and has {ends} terminal frames, the last at {last_end} of {last}",
        """
        SELECT e.case_id, e.firing, e.status, count(s.seq) FILTER (WHERE s.type IN ('completed', 'failed')) AS ends,
            max(ARRAY[s.start, s.seq]) FILTER (WHERE s.type IN ('completed', 'failed')) AS last_end,
            max(ARRAY[s.start, s.seq]) AS last
        FROM circuit.execution e LEFT JOIN circuit.stream_event s
            ON s.tenant_id = e.tenant_id AND s.case_id = e.case_id AND s.firing = e.firing
        GROUP BY e.tenant_id, e.case_id, e.firing, e.status
        HAVING (e.status IN ('completed', 'failed'))
                <> (count(s.seq) FILTER (WHERE s.type IN ('completed', 'failed')) = 1)
            OR max(ARRAY[s.start, s.seq]) FILTER (WHERE s.type IN ('completed', 'failed')) <> max(ARRAY[s.start, s.seq])
        """,
    )
    return faults


async def i6_terminality(connection: Connection) -> list[str]:
    """A case that is over ends with `case_ended`, once; nothing of it runs, waits, or belongs to anybody."""
    faults = await _found(
        connection,
        "I6: case {case_id} is {status}, and its last event is {kind}; it ended {ends} times",
        """
        SELECT t.case_id, t.status, max(h.kind) FILTER (WHERE h.seq = t.seq) AS kind,
            count(*) FILTER (WHERE h.kind = 'case_ended') AS ends
        FROM circuit."case" t JOIN circuit.history h ON h.tenant_id = t.tenant_id AND h.case_id = t.case_id
        GROUP BY t.tenant_id, t.case_id, t.status
        HAVING (t.status IN ('completed', 'failed', 'cancelled'))
                <> (count(*) FILTER (WHERE h.kind = 'case_ended') = 1)
            OR (t.status IN ('completed', 'failed', 'cancelled')
                AND max(h.kind) FILTER (WHERE h.seq = t.seq) <> 'case_ended')
        """,
    )
    faults += await _found(
        connection,
        "I6: case {case_id} is {status}, and {what}",
        """
        SELECT t.case_id, t.status, CASE
                WHEN t.owner IS NOT NULL THEN 'somebody owns it'
                WHEN t.finished_at IS NULL THEN 'it has no end'
                ELSE 'something of it lives' END AS what
        FROM circuit."case" t
        WHERE t.status IN ('completed', 'failed', 'cancelled') AND (
            t.owner IS NOT NULL OR t.finished_at IS NULL
            OR EXISTS (
                SELECT 1 FROM circuit.firing f
                WHERE f.tenant_id = t.tenant_id AND f.case_id = t.case_id
                    AND f.state IN ('offered', 'running', 'suspended')
            )
            OR EXISTS (
                SELECT 1 FROM circuit.execution e
                WHERE e.tenant_id = t.tenant_id AND e.case_id = t.case_id AND e.status = 'running'
            )
            OR EXISTS (
                SELECT 1 FROM circuit.awaited_message a WHERE a.tenant_id = t.tenant_id AND a.case_id = t.case_id
            )
        )
        """,
    )
    return faults


CHECKS: tuple[Check, ...] = (
    i1_conservation,
    i1_arc_weights,
    i2_single_commit,
    figures.i2_fenced,
    i3_no_loss,
    i3_artefacts,
    i5_streams,
    i6_terminality,
    figures.i7_counters,
    figures.i8_schedules,
    figures.i9_cost,
)
"""What holds at every moment."""
AT_REST: tuple[Check, ...] = (figures.i4_progress, figures.i10_bounded)
"""What holds when nothing is left to do."""


async def _found(connection: Connection, message: str, query: str) -> list[str]:
    return await figures.found(connection, message, query)
