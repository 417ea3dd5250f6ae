"""The tables, all in the schema `circuit`. `docs/reference/tables.md` explains each column; the migrations make them.

**Who writes.** Only the worker that owns a case (`case.owner`) changes its marking (`token`), its `firing`s, its
`journal`, its `execution`s and its `history`, and all of one step in one commit. Whoever else wants something of a
case inserts a row into `command` and one into `ready`. Starting a case is the exception: a new case has no owner, so
whoever starts it writes its `case`, `token`, first `history` and `ready` rows itself.

**Who owns.** Each start of a worker is a row in `worker`. Every batch of writes takes that row `FOR SHARE` and counts
only if it is not `fenced`. `worker_lease` holds the expiry apart from it, so that renewing a lease never waits for a
batch. A case without an owner that has work has a row in `ready`.

**Keys.** All data of a case leads with `(tenant_id, case_id)` and then an integer that counts inside the case, so
that distribution by tenant stays open. A case id is a UUIDv7: it sorts by birth, and the big tables are partitioned
by week of birth (`circuit.storage.partitions`). No foreign key leaves a big table: one costs as much as the write.

**What changes.** `case`, `token`, `firing` and `worker_lease` rows change often: no index holds what changes there
and their pages are half filled, so that updates stay heap-only. All else is inserted, and at most settled once.

**Row security.** The role `circuit_engine` sees every tenant; the role `circuit_tenant` sees the one that the setting
`circuit.tenant` of its transaction names, and nothing without it.
"""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

SCHEMA = "circuit"

ENGINE_ROLE = "circuit_engine"
TENANT_ROLE = "circuit_tenant"
TENANT_SETTING = "circuit.tenant"

FENCED = "CF001"
"""SQLSTATE of a batch whose worker is fenced (the writer raises it through `circuit.require`)."""
GUARD_LOST = "CG001"
"""SQLSTATE of a batch that found a case in another state than its owner knew."""
TERMINAL = "CT001"
"""SQLSTATE of a change to a case or an execution that has ended."""

metadata = MetaData(schema=SCHEMA)

Instant = DateTime(timezone=True)
Document = JSONB(none_as_null=True)
# `json` keeps the text as it was written: the order of its keys, and escapes such as \u0000 that `jsonb` refuses.
Verbatim = JSON(none_as_null=True)


# One row: the oldest revision whose release may work on this database (`circuit.storage.schema`).
compatibility = Table("compatibility", metadata, Column("floor", Text, nullable=False), PrimaryKeyConstraint("floor"))

tenant = Table(
    "tenant",
    metadata,
    Column("tenant_id", Integer, nullable=False, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("settings", Document, nullable=False, server_default=text("'{}'")),
    Column("created_at", Instant, nullable=False, server_default=text("now()")),
    PrimaryKeyConstraint("tenant_id"),
)

workflow_version = Table(
    "workflow_version",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("workflow_id", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("document", Verbatim, nullable=False),
    Column("requires", Document, nullable=False, server_default=text("'{}'")),
    Column("published_at", Instant, nullable=False, server_default=text("now()")),
    Column("published_by", Text, nullable=False),
    PrimaryKeyConstraint("tenant_id", "workflow_id", "hash"),
)

workflow = Table(
    "workflow",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("workflow_id", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("updated_at", Instant, nullable=False, server_default=text("now()")),
    Column("retired_at", Instant),
    PrimaryKeyConstraint("tenant_id", "workflow_id"),
    ForeignKeyConstraint(
        ["tenant_id", "workflow_id", "hash"],
        ["workflow_version.tenant_id", "workflow_version.workflow_id", "workflow_version.hash"],
        name="workflow_current_version",
    ),
)

agent_version = Table(
    "agent_version",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("agent_id", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("document", Verbatim, nullable=False),
    Column("published_at", Instant, nullable=False, server_default=text("now()")),
    PrimaryKeyConstraint("tenant_id", "agent_id", "hash"),
)

prompt_version = Table(
    "prompt_version",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("prompt_id", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("document", Verbatim, nullable=False),
    Column("published_at", Instant, nullable=False, server_default=text("now()")),
    PrimaryKeyConstraint("tenant_id", "prompt_id", "hash"),
)

worker = Table(
    "worker",
    metadata,
    Column("id", Uuid, nullable=False),
    Column("host", Text, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_started", Double, nullable=False),
    Column("pools", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("started_at", Instant, nullable=False, server_default=text("now()")),
    Column("fenced", Boolean, nullable=False, server_default=text("false")),
    Column("retired_at", Instant),
    Column("capabilities", Document, nullable=False, server_default=text("'{}'")),
    PrimaryKeyConstraint("id"),
)

worker_lease = Table(
    "worker_lease",
    metadata,
    Column("worker_id", Uuid, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("suspect_tenant", Integer),
    Column("suspect_case", Uuid),
    Column("suspect_firing", Integer),
    PrimaryKeyConstraint("worker_id"),
)

# What operators ask of a worker; it settles the row itself.
worker_request = Table(
    "worker_request",
    metadata,
    Column("id", Uuid, nullable=False),
    Column("worker_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("payload", Document, nullable=False, server_default=text("'{}'")),
    Column("asked_by", Text, nullable=False),
    Column("asked_at", Instant, nullable=False, server_default=text("now()")),
    Column("settled_at", Instant),
    Column("result", Document),
    PrimaryKeyConstraint("worker_id", "id"),
)

# Events that leave, in the order of the transactions that wrote them: what is below every transaction under way is
# whole (`circuit.storage.outbox`). So the key leads with the transaction, and there is no other index.
outbox = Table(
    "outbox",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("xid", BigInteger, nullable=False, server_default=text("(pg_current_xact_id()::text)::int8")),
    Column("case_id", Uuid, nullable=False),
    Column("seq", Integer, nullable=False),
    PrimaryKeyConstraint("tenant_id", "xid", "case_id", "seq"),
)

outbox_consumer = Table(
    "outbox_consumer",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("xid", BigInteger, nullable=False),
    Column("case_id", Uuid, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("updated_at", Instant, nullable=False, server_default=text("now()")),
    PrimaryKeyConstraint("tenant_id", "name"),
)

# One short row a case, and the only one that a claim looks at through its owner: a partial index over all partitions
# would be one index scan for each week that was ever lived through. So this table is not partitioned.
# Its primary key lists the cases of a tenant by birth, for a case id sorts so.
case = Table(
    "case",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("case_id", Uuid, nullable=False),
    Column("workflow_id", Text, nullable=False),
    Column("workflow_hash", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("owner", Uuid),
    Column("seq", Integer, nullable=False),
    Column("next_token", Integer, nullable=False),
    Column("next_firing", Integer, nullable=False),
    Column("next_incident", Integer, nullable=False),
    Column("parameters", Document, nullable=False, server_default=text("'{}'")),
    Column("started_at", Instant, nullable=False),
    Column("finished_at", Instant),
    Column("bucket", SmallInteger, nullable=False, server_default=text("0")),
    Column("fired", Document, nullable=False, server_default=text("'{}'")),
    Column("fired_seq", Integer, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("tenant_id", "case_id"),
    CheckConstraint(
        "status IN ('running', 'waiting', 'attention', 'stuck', 'completed', 'failed', 'cancelled')",
        name="case_status",
    ),
    Index("case_owner", "owner", postgresql_where=text("owner IS NOT NULL")),
    Index("case_workflow", "tenant_id", "workflow_id", "case_id"),
)

# A unique key of a partitioned table must hold what it is partitioned by, so the idempotency keys of starts lie here.
case_key = Table(
    "case_key",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("key", Text, nullable=False),
    Column("case_id", Uuid, nullable=False),
    PrimaryKeyConstraint("tenant_id", "key"),
)

# What cases need of a worker, each set of needs once: a case stands in the bucket of its own, so that a claim never
# looks at what its worker cannot run. It holds no data of a tenant, and only the engine's role reads it.
bucket = Table(
    "bucket",
    metadata,
    Column("bucket", SmallInteger, Identity(always=True), nullable=False),
    Column("requires", Document, nullable=False),
    PrimaryKeyConstraint("bucket"),
    UniqueConstraint("requires", name="bucket_requires"),
)

# At most one row a case. `bucket` is that of the case; 0 says nothing of what the case needs.
ready = Table(
    "ready",
    metadata,
    Column("bucket", SmallInteger, nullable=False, server_default=text("0")),
    Column("tenant_id", Integer, nullable=False),
    Column("case_id", Uuid, nullable=False),
    Column("due_at", Instant, nullable=False),
    PrimaryKeyConstraint("tenant_id", "case_id"),
    Index("ready_due", "due_at"),
    Index("ready_bucket", "bucket", "tenant_id", "due_at"),
)

token = Table(
    "token",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("case_id", Uuid, nullable=False),
    Column("number", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("place", Text, nullable=False),
    Column("data", Document, nullable=False),
    Column("metadata", Document, nullable=False),
    Column("entered_at", Instant, nullable=False),
    Column("available_at", Instant),
    Column("reserved_by", Integer),
    Column("runs", Document),
    PrimaryKeyConstraint("tenant_id", "case_id", "number"),
    postgresql_partition_by="RANGE (case_id)",
)

history = Table(
    "history",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("case_id", Uuid, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Column("transition", Text),
    Column("firing", Integer),
    Column("body", Verbatim, nullable=False),
    PrimaryKeyConstraint("tenant_id", "case_id", "seq"),
    postgresql_partition_by="RANGE (case_id)",
)

firing = Table(
    "firing",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("case_id", Uuid, nullable=False),
    Column("number", Integer, nullable=False),
    Column("transition", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("start", Integer, nullable=False),
    Column("crashes", Integer, nullable=False, server_default=text("0")),
    Column("request", Document, nullable=False),
    Column("retry_at", Instant),
    Column("error", Document),
    Column("begun_at", Instant),
    Column("wake_at", Instant),
    Column("awaits", Document),
    PrimaryKeyConstraint("tenant_id", "case_id", "number"),
    postgresql_partition_by="RANGE (case_id)",
)

journal = Table(
    "journal",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("case_id", Uuid, nullable=False),
    Column("firing", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("step", Text, nullable=False),
    Column("value", Verbatim, nullable=False),
    Column("at", Instant, nullable=False, server_default=text("now()")),
    PrimaryKeyConstraint("tenant_id", "case_id", "firing", "attempt", "step"),
    postgresql_partition_by="RANGE (case_id)",
)

execution = Table(
    "execution",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("case_id", Uuid, nullable=False),
    Column("firing", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("agent_id", Text),
    Column("model", Text),
    Column("descriptor", Document, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("finished_at", Instant),
    Column("usage", Document, nullable=False, server_default=text("'{}'")),
    Column("error", Document),
    PrimaryKeyConstraint("tenant_id", "case_id", "firing"),
    postgresql_partition_by="RANGE (case_id)",
)

stream_event = Table(
    "stream_event",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("case_id", Uuid, nullable=False),
    Column("firing", Integer, nullable=False),
    Column("start", Integer, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("type", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Column("frame", Text, nullable=False),
    PrimaryKeyConstraint("tenant_id", "case_id", "firing", "start", "seq"),
    postgresql_partition_by="RANGE (case_id)",
)

command = Table(
    "command",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("case_id", Uuid, nullable=False),
    Column("command_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("payload", Document, nullable=False),
    Column("principal", Document, nullable=False),
    Column("idempotency_key", Text),
    Column("state", Text, nullable=False, server_default=text("'pending'")),
    Column("result", Document),
    Column("created_at", Instant, nullable=False, server_default=text("now()")),
    Column("settled_at", Instant),
    PrimaryKeyConstraint("tenant_id", "case_id", "command_id"),
    UniqueConstraint("tenant_id", "case_id", "idempotency_key", name="command_idempotency"),
    postgresql_partition_by="RANGE (case_id)",
)

incident = Table(
    "incident",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("case_id", Uuid, nullable=False),
    Column("number", Integer, nullable=False),
    Column("transition", Text, nullable=False),
    Column("firing", Integer),
    Column("code", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("blocks", Document, nullable=False, server_default=text("'[]'")),
    Column("raised_at", Instant, nullable=False),
    Column("resolved_at", Instant),
    Column("resolved_by", Text),
    PrimaryKeyConstraint("tenant_id", "case_id", "number"),
    Index("incident_open", "tenant_id", "case_id", "number", postgresql_where=text("resolved_at IS NULL")),
    postgresql_partition_by="RANGE (case_id)",
)

api_key = Table(
    "api_key",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("roles", Document, nullable=False),
    Column("scopes", Document),
    Column("created_at", Instant, nullable=False, server_default=text("now()")),
    Column("created_by", Text, nullable=False),
    Column("expires_at", Instant),
    Column("revoked_at", Instant),
    PrimaryKeyConstraint("tenant_id", "key_id"),
)

# Only ever added to: a trigger refuses changes.
feedback = Table(
    "feedback",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("case_id", Uuid, nullable=False),
    Column("firing", Integer, nullable=False),
    Column("feedback_id", Uuid, nullable=False),
    Column("score", Double),
    Column("comment", Text, nullable=False, server_default=text("''")),
    Column("subject", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("at", Instant, nullable=False, server_default=text("now()")),
    PrimaryKeyConstraint("tenant_id", "case_id", "feedback_id"),
    UniqueConstraint("tenant_id", "case_id", "idempotency_key", name="feedback_idempotency"),
    postgresql_partition_by="RANGE (case_id)",
)

resource = Table(
    "resource",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("workflow_id", Text, nullable=False),
    Column("place", Text, nullable=False),
    Column("capacity", Integer, nullable=False),
    Column("interval_seconds", Double),
    Column("updated_at", Instant, nullable=False, server_default=text("now()")),
    PrimaryKeyConstraint("tenant_id", "workflow_id", "place"),
)

# What is free of a resource is its capacity less the holds that were granted; there is no counter.
hold = Table(
    "hold",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("workflow_id", Text, nullable=False),
    Column("place", Text, nullable=False),
    Column("case_id", Uuid, nullable=False),
    Column("firing", Integer, nullable=False),
    Column("amount", Integer, nullable=False),
    Column("asked_at", Instant, nullable=False),
    Column("granted_at", Instant),
    Column("held_until", Instant),
    PrimaryKeyConstraint("tenant_id", "workflow_id", "place", "case_id", "firing"),
    Index(
        "hold_waiting",
        "tenant_id",
        "workflow_id",
        "asked_at",
        "case_id",
        "firing",
        postgresql_where=text("granted_at IS NULL"),
    ),
    Index("hold_paced", "held_until", postgresql_where=text("held_until IS NOT NULL")),
)

PARTITIONED = tuple(
    table.name for table in metadata.tables.values() if table.dialect_options["postgresql"].get("partition_by")
)
"""The tables that are partitioned by week of birth."""
