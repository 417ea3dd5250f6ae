"""Cases and all that happens in them."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from circuit.storage.tables.names import Document, Instant, Verbatim, metadata

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
    Column("parent_case", Uuid),
    Column("parent_firing", Integer),
    Column("depth", SmallInteger, nullable=False, server_default=text("0")),
    Column("traceparent", Text),
    PrimaryKeyConstraint("tenant_id", "case_id"),
    CheckConstraint(
        "status IN ('running', 'waiting', 'attention', 'stuck', 'completed', 'failed', 'cancelled')",
        name="case_status",
    ),
    Index("case_owner", "owner", postgresql_where=text("owner IS NOT NULL")),
    Index("case_workflow", "tenant_id", "workflow_id", "case_id"),
    Index("case_parent", "tenant_id", "parent_case", postgresql_where=text("parent_case IS NOT NULL")),
)

# A unique key of a partitioned table must hold what it is partitioned by, so the idempotency keys of starts lie here.
case_key = Table(
    "case_key",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("key", Text, nullable=False),
    Column("case_id", Uuid, nullable=False),
    Column("request", Text),
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
    Index("journal_at", "at", postgresql_using="brin"),
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
    Column("first_seq", Integer),
    Column("lengths", Verbatim),
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

# Large values of a tenant, by the hash of their JSON (`circuit.storage.payloads`). `put_at` is when somebody last wrote
# one without seeing that it was there.
artefact = Table(
    "artefact",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("hash", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("content", Verbatim, nullable=False),
    Column("put_at", Instant, nullable=False, server_default=text("now()")),
    PrimaryKeyConstraint("tenant_id", "hash"),
)

# Which cases refer to which artefacts. Nothing that a case ever referred to is forgotten before the case is.
artefact_use = Table(
    "artefact_use",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("case_id", Uuid, nullable=False),
    Column("hash", Text, nullable=False),
    PrimaryKeyConstraint("tenant_id", "case_id", "hash"),
    Index("artefact_use_hash", "tenant_id", "hash"),
    postgresql_partition_by="RANGE (case_id)",
)
