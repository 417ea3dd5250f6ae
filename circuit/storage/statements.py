"""The writer's statement: one SQL text for all that a batch changes, composed of the sections that the batch touches.

    fence -> alive -> cases, logs -> held -> tokens, firings, history, ... -> the answer

`fence` takes the worker's row FOR SHARE, `alive` raises if it was not there, `cases` updates the rows of the cases,
`held` raises if not all of them were as their owner knew them, and every other section starts only when `held` is
true. Each arrow is a scalar subquery, which Postgres evaluates before it reads the first row of what depends on it:
data-modifying CTEs run in no fixed order of their own, and only this makes one wait for another. The answer counts
what the guarded sections returned, and raises if a count is short. A raise rolls the whole batch back.

**Locks.** The global order is worker, cases by key, tokens by number, and then the rest. The arrows give the order
between the tables. Within a table there is nothing to order: a batch changes rows of cases that its own incarnation
owns, no two batches of one process hold the same case, and nobody else changes such rows before the incarnation is
fenced, which waits for its batches. So two batches never wait for each other's cases, tokens or firings (the batches
are sorted by case all the same, which also keeps them on few index pages). `ready` is where strangers meet:
there the writer, a take-over and a command all insert in the order of the keys, and whoever deletes or postpones skips
what is locked. A row of `ready` is locked last, and who holds one waits for nothing but other rows of `ready`.

**Plans.** `PLANNER` is set on the writer's connections. The statement is planned once, when the tables may still be
empty; without these settings Postgres would then choose to read whole tables, and go on so when they have grown.
With them the only plan left is: for each row of the arrays, one look into the primary key. The guard on the owner is
written IS NOT DISTINCT FROM for the same reason: `=` would offer the index on owners as the way in.
"""

# ruff: noqa: S608 -- these texts are composed of the constants below and of nothing else.

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any

from sqlalchemy import JSON, DateTime, Integer, SmallInteger, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

from circuit.storage import tables
from circuit.storage.tables import FENCED, GUARD_LOST

PLANNER = """
SET default_transaction_isolation = 'read committed';
SET plan_cache_mode = force_generic_plan;
SET enable_seqscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET jit = off;
SET lock_timeout = '1s';
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
"""
"""Settings of a connection that sends these statements. (A take-over that a batch waited for must be seen by it, which
only READ COMMITTED does; and an answer must mean that the batch is stored. A lock that somebody else does not give back
must stop the case that it is about, and not the lane.)"""

FENCE = "SELECT 1 FROM circuit.worker WHERE id = $1 AND NOT fenced FOR SHARE"
"""The row that every change of a worker depends on; `$1` is its id."""

_SAME_CASE = "t.tenant_id = i.tenant_id AND t.case_id = i.case_id"


@dataclass(frozen=True, slots=True)
class Section:
    """What a batch does to one table. `columns` are the arrays that it brings, `sql` uses them as the rows `{rows}`.

    `guards` says that each row of the arrays must meet one row of the table; then their number is a parameter before
    the arrays. The sections of stage 1 go first, those of stage 3 after the ones that touch `ready`.
    """

    name: str
    columns: tuple[tuple[str, str], ...]
    sql: str
    guards: bool = False
    stage: int = 2


_KINDS: tuple[tuple[type[TypeEngine[Any]], str], ...] = (
    (JSONB, "jsonb"),
    (JSON, "json"),
    (Uuid, "uuid"),
    (DateTime, "timestamptz"),
    (SmallInteger, "int2"),
    (Integer, "int4"),
    (Text, "text"),
)


def _columns(table: Table, text: str) -> tuple[tuple[str, str], ...]:
    """The columns of `table` that `text` names, with their types, after the key of the case. What is no column of
    the table brings its type: `from_version:int4`."""
    columns: list[tuple[str, str]] = []
    for word in f"tenant_id case_id {text}".split():
        name, _, kind = word.partition(":")
        columns.append((name, kind or next(kind for cls, kind in _KINDS if isinstance(table.c[name].type, cls))))
    return tuple(columns)


def _insert(name: str, table: Table, text: str, tail: str = "") -> Section:
    columns = _columns(table, text)
    names = ", ".join(column for column, _ in columns)
    sql = f"INSERT INTO {_named(table)} ({names}) SELECT {names} FROM {{rows}} WHERE {{gate}} {tail}"
    return Section(name, columns, sql.rstrip())


def _update(name: str, table: Table, text: str, changes: str, guard: str, *, also: str = "", stage: int = 2) -> Section:
    """`changes` are the columns that get what the array of their name holds, `also` other assignments."""
    assigned = ", ".join([f"{column} = i.{column}" for column in changes.split()] + ([also] if also else []))
    sql = f"UPDATE {_named(table)} t SET {assigned} FROM {{rows}} WHERE {{gate}} AND {_SAME_CASE} AND {guard}"
    return Section(name, _columns(table, text), sql, guards=True, stage=stage)


def _named(table: Table) -> str:
    return f'{table.schema}."{table.name}"'


_OWNED = "t.owner IS NOT DISTINCT FROM $1"
_CASE = "expected:int4 seq status next_token next_firing next_incident fired fired_seq finished_at release:bool"
_CASE_CHANGES = "seq status next_token next_firing next_incident finished_at"
_CASE_GUARD = f"{_OWNED} AND t.seq = i.expected"
_CASE_ALSO = (
    "fired = coalesce(i.fired, t.fired), fired_seq = coalesce(i.fired_seq, t.fired_seq),"
    " owner = CASE WHEN i.release THEN NULL ELSE t.owner END"
)
_LIVE = "t.state IN ('offered', 'running', 'suspended')"
_TOKEN = "number version place data metadata entered_at available_at reserved_by"
_MOVED = "version place entered_at available_at reserved_by"
_MOVED_DATA = "data = coalesce(i.data, t.data), metadata = coalesce(i.metadata, t.metadata)"
_AS_KNOWN = "t.number = i.number AND t.version = i.from_version"
_READY = (
    f"INSERT INTO {_named(tables.ready)} (tenant_id, case_id, bucket, due_at) SELECT * FROM ("
    "SELECT tenant_id, case_id, coalesce(bucket, (SELECT t.bucket"
    f" FROM {_named(tables.case)} t WHERE {_SAME_CASE})) AS bucket, coalesce(due_at, now())"
    " FROM {rows} WHERE {gate} ORDER BY tenant_id, case_id) r WHERE r.bucket IS NOT NULL"
    " ON CONFLICT (tenant_id, case_id) DO UPDATE SET due_at = least(ready.due_at, excluded.due_at)"
)

SECTIONS: tuple[Section, ...] = (
    _update("cases", tables.case, _CASE, _CASE_CHANGES, _CASE_GUARD, also=_CASE_ALSO, stage=1),
    # A case that goes on in another version of its workflow, or in another bucket, which few batches hold.
    _update(
        "cases_migrated",
        tables.case,
        f"{_CASE} workflow_hash bucket",
        f"{_CASE_CHANGES} workflow_hash bucket",
        _CASE_GUARD,
        also=_CASE_ALSO,
        stage=1,
    ),
    _update("cases_raised", tables.case, "bucket", "bucket", _OWNED, stage=1),
    # What is there already is locked against who collects it (`circuit.storage.artefacts`), in a mode in which any
    # number of writers may hold it. What somebody else puts at this moment is waited for, and so it goes in one order,
    # before all that strangers share.
    Section(
        "artefacts_known",
        (("tenant_id", "int4"), ("hash", "text")),
        f"SELECT t.tenant_id, t.hash FROM {{rows}} JOIN {_named(tables.artefact)} t"
        " ON t.tenant_id = i.tenant_id AND t.hash = i.hash WHERE {gate} FOR KEY SHARE OF t",
        stage=1,
    ),
    Section(
        "artefacts",
        (("tenant_id", "int4"), ("hash", "text"), ("size", "int4"), ("content", "json")),
        f"INSERT INTO {_named(tables.artefact)} (tenant_id, hash, size, content)"
        " SELECT i.tenant_id, i.hash, i.size, i.content FROM {rows} WHERE {gate} AND NOT EXISTS ("
        "SELECT FROM artefacts_known k WHERE k.tenant_id = i.tenant_id AND k.hash = i.hash)"
        " ORDER BY i.tenant_id, i.hash ON CONFLICT (tenant_id, hash) DO UPDATE SET put_at = now()",
        stage=1,
    ),
    # A log changes no row of its case, so it locks none: who owns the case can change only through a batch of the
    # same case (and those do not overlap) or after the fence.
    Section(
        "logs",
        _columns(tables.case, ""),
        f"SELECT 1 FROM {{rows}} JOIN {_named(tables.case)} t ON {_SAME_CASE} WHERE {{gate}} AND {_OWNED}",
        guards=True,
        stage=1,
    ),
    # What was due by the worker's reckoning must be so by the database's clock, or it is not done yet.
    Section(
        "timed",
        (*_columns(tables.case, ""), ("not_before", "timestamptz")),
        "SELECT 1 FROM {rows} WHERE {gate} AND i.not_before <= clock_timestamp()",
        guards=True,
        stage=1,
    ),
    _insert("history", tables.history, "seq kind at transition firing body"),
    _insert("artefacts_used", tables.artefact_use, "hash", "ON CONFLICT DO NOTHING"),
    _insert("tokens_put", tables.token, _TOKEN),
    _insert("tokens_put_running", tables.token, f"{_TOKEN} runs"),
    # A move that is only another reservation brings no data. Any other begins a stay, on which no agent has run.
    _update(
        "tokens_moved",
        tables.token,
        f"from_version:int4 {_TOKEN}",
        _MOVED,
        _AS_KNOWN,
        also=f"{_MOVED_DATA}, runs = CASE WHEN t.version = i.version THEN t.runs END",
    ),
    # Tokens on which agents run, or have run.
    _update(
        "tokens_running",
        tables.token,
        f"from_version:int4 {_TOKEN} runs",
        f"{_MOVED} runs",
        _AS_KNOWN,
        also=_MOVED_DATA,
    ),
    Section(
        "tokens_taken",
        _columns(tables.token, "number version"),
        f"DELETE FROM {_named(tables.token)} t USING {{rows}}"
        f" WHERE {{gate}} AND {_SAME_CASE} AND t.number = i.number AND t.version = i.version",
        guards=True,
    ),
    _insert(
        "firings_opened",
        tables.firing,
        "number transition state attempt start crashes request retry_at error begun_at",
    ),
    # The request of a firing was frozen at its begin, so it is not sent again.
    _update(
        "firings_changed",
        tables.firing,
        "number state attempt start crashes retry_at error",
        "state attempt start crashes retry_at error",
        f"t.number = i.number AND {_LIVE}",
    ),
    # What a firing waits for counts only while it is suspended, so no other change has to take it away.
    _update(
        "firings_suspended",
        tables.firing,
        "number state wake_at awaits",
        "state wake_at awaits",
        f"t.number = i.number AND {_LIVE}",
    ),
    _insert(
        "executions_opened",
        tables.execution,
        "firing status agent_id model descriptor started_at finished_at usage error",
    ),
    _update(
        "executions_changed",
        tables.execution,
        "firing status finished_at usage error",
        "status finished_at usage error",
        "t.firing = i.firing AND t.status = 'running'",
    ),
    _insert("outbox", tables.outbox, "seq"),
    _insert("frames", tables.stream_event, "firing start seq type at frame"),
    _insert(
        "incidents_opened",
        tables.incident,
        "number transition firing code message blocks raised_at resolved_at resolved_by",
    ),
    _update(
        "incidents_changed",
        tables.incident,
        "number resolved_at resolved_by",
        "resolved_at resolved_by",
        "t.number = i.number AND t.resolved_at IS NULL",
    ),
    _update(
        "commands_settled",
        tables.command,
        "command_id state result",
        "state result",
        "t.command_id = i.command_id AND t.state = 'pending'",
        also="settled_at = now()",
    ),
    # The first answer that was recorded for a step counts.
    _insert("journal", tables.journal, "firing attempt step value", "ON CONFLICT DO NOTHING"),
    # A charge that somebody else settled (nobody but who holds this worker for dead does) stays as it is.
    Section(
        "charges_settled",
        _columns(tables.charge, "firing start number calls:int8 tokens:int8 microdollars:int8"),
        f"UPDATE {_named(tables.charge)} t SET settled_at = now(), calls = i.calls,"
        " tokens = coalesce(i.tokens, t.tokens), microdollars = coalesce(i.microdollars, t.microdollars)"
        f" FROM {{rows}} WHERE {{gate}} AND {_SAME_CASE} AND t.firing = i.firing AND t.start = i.start"
        " AND t.number = i.number AND t.settled_at IS NULL",
    ),
    _insert(
        "cases_opened",
        tables.case,
        "workflow_id workflow_hash status seq next_token next_firing next_incident parameters started_at bucket"
        " parent_case parent_firing depth traceparent",
    ),
    # What a case asks of another one. Sent again by who takes the case over, it is the same command.
    _insert("commands_asked", tables.command, "command_id kind payload principal", "ON CONFLICT DO NOTHING"),
    # A command may have made the case due meanwhile: the earlier instant counts. Of a case that is asked something its
    # owner alone knows the bucket, and it is due at once.
    Section("ready", _columns(tables.ready, "bucket due_at"), _READY),
    # Of a case that comes into another bucket what announces it does too, whoever wrote it.
    Section("ready_moved", _columns(tables.ready, "bucket due_at"), f"{_READY}, bucket = excluded.bucket"),
    Section(
        "ready_raised",
        _columns(tables.ready, "bucket"),
        f"UPDATE {_named(tables.ready)} t SET bucket = i.bucket FROM {{rows}} WHERE {{gate}} AND {_SAME_CASE}",
    ),
    # The row that an owner postponed has done its service when no command is pending but those that this step settles
    # (they are pending in the snapshot of this statement). Whoever raises the row sets it to the beginning of his own
    # transaction: then it is not in the future by the clock, not even in a version that the snapshot does not have.
    Section(
        "ready_done",
        _columns(tables.ready, "settled:int8"),
        f"DELETE FROM {_named(tables.ready)} r USING ("
        f"SELECT t.tenant_id, t.case_id FROM {{rows}} JOIN {_named(tables.ready)} t ON {_SAME_CASE}"
        f" WHERE {{gate}} AND t.due_at > clock_timestamp() AND i.settled = (SELECT count(*)"
        f" FROM {_named(tables.command)} k WHERE k.tenant_id = i.tenant_id AND k.case_id = i.case_id"
        " AND k.state = 'pending') FOR UPDATE OF t SKIP LOCKED) done"
        " WHERE r.tenant_id = done.tenant_id AND r.case_id = done.case_id",
    ),
    _insert(
        "conversations",
        tables.conversation,
        "conversation_id agent_id workflow_id token",
        "ON CONFLICT DO NOTHING",
    ),
    # A conversation belongs to one case, and a batch holds one step of a case at most: nobody else counts on here.
    Section(
        "messages",
        _columns(tables.message, "conversation_id seq role parts agent_id firing covers"),
        f"INSERT INTO {_named(tables.message)}"
        " (tenant_id, case_id, conversation_id, seq, role, parts, agent_id, firing, covers)"
        " SELECT tenant_id, case_id, conversation_id, i.seq + (SELECT coalesce(max(m.seq), 0)"
        f" FROM {_named(tables.message)} m WHERE m.tenant_id = i.tenant_id AND m.conversation_id = i.conversation_id),"
        " role, parts, agent_id, firing, covers FROM {rows} WHERE {gate}",
    ),
    # What a case waits for already stays as it was.
    _insert("mail_put", tables.awaited_message, "transition name key", "ON CONFLICT DO NOTHING"),
    Section(
        "mail_taken",
        _columns(tables.awaited_message, "transition name key"),
        f"DELETE FROM {_named(tables.awaited_message)} t USING {{rows}}"
        f" WHERE {{gate}} AND {_SAME_CASE} AND t.transition = i.transition AND t.name = i.name AND t.key = i.key",
    ),
    _insert("holds_asked", tables.hold, "workflow_id place firing amount asked_at"),
    # What is paced is there again when its time is over, and not before. A grant locks rows of `ready` before holds
    # (`circuit.storage.resources`), and so does this.
    Section(
        "holds_freed",
        _columns(tables.hold, "workflow_id place firing"),
        f"DELETE FROM {_named(tables.hold)} t USING {{rows}}"
        f" WHERE {{gate}} AND {_SAME_CASE} AND t.workflow_id = i.workflow_id AND t.place = i.place"
        " AND t.firing = i.firing AND t.held_until IS NULL",
        stage=3,
    ),
)

CASES = ("cases", "cases_migrated")
"""The sections that change the rows of cases."""
MEETING = ("ready", "ready_moved", "ready_raised", "ready_done")
"""The sections that touch `ready`, where strangers meet."""
BY_NAME = {section.name: section for section in SECTIONS}
ORDER = {section.name: place for place, section in enumerate(SECTIONS)}


@cache
def compose(names: tuple[str, ...]) -> str:
    """The statement for these sections (in order; at least one of stage 1). `$1` is the worker, then comes what each
    section brings; arrays come as text (see `circuit.storage.batch`)."""
    fence = [
        f"fence AS MATERIALIZED ({FENCE})",
        "alive AS MATERIALIZED (SELECT circuit.require(EXISTS (SELECT 1 FROM fence),"
        f" '{FENCED}', 'this worker is fenced') AS ok)",
    ]
    stages: dict[int, list[str]] = {1: [], 2: [], 3: []}
    checks: dict[int, list[str]] = {1: [], 2: []}
    last = any(BY_NAME[name].stage == 3 for name in names)
    strangers = [name for name in names if name in MEETING] if last else []
    numbers = count(2)
    for name in names:
        section = BY_NAME[name]
        if section.guards:
            checks[section.stage].append(
                f"circuit.require((SELECT count(*) FROM {name}) = ${next(numbers)}::int8,"
                f" '{GUARD_LOST}', '{name}: not all rows were as their owner knew them')"
            )
        elif section.stage == 1:
            checks[1].append(f"(SELECT count(*) FROM {name}) >= 0")
        arrays = ", ".join(f"${next(numbers)}::text::{kind}[]" for _, kind in section.columns)
        columns = ", ".join(column for column, _ in section.columns)
        gate = "(SELECT ok FROM alive)" if section.stage == 1 else "(SELECT ok FROM held)"
        if section.stage == 3:
            gate = " AND ".join([gate, *(f"(SELECT count(*) FROM {name}) >= 0" for name in strangers)])
        sql = section.sql.format(rows=f"unnest({arrays}) AS i({columns})", gate=gate)
        counted = section.guards or section.stage == 1
        if (counted and not sql.startswith("SELECT")) or name in strangers:
            sql += " RETURNING 1"
        stages[section.stage].append(f"{name} AS ({sql})")
    held = f"held AS MATERIALIZED (SELECT {' AND '.join(checks[1])} AS ok)"
    answer = " AND ".join(["(SELECT ok FROM held)", *checks[2]])
    return "WITH " + ",\n".join([*fence, *stages[1], held, *stages[2], *stages[3]]) + f"\nSELECT {answer} AS ok"
