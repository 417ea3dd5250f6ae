"""Workers, what they share, and what people keep beside cases."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from circuit.storage.tables.names import Document, Instant, metadata

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

# Only added to: a trigger refuses every change.
audit_log = Table(
    "audit_log",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("entry_id", BigInteger, Identity(always=True), nullable=False),
    Column("at", Instant, nullable=False, server_default=text("clock_timestamp()")),
    Column("subject", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("details", Document, nullable=False, server_default=text("'{}'")),
    PrimaryKeyConstraint("tenant_id", "entry_id"),
    Index("audit_log_target", "tenant_id", "target", "entry_id"),
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
    # Those who wait for their turn at an agent or a provider, and those who were called in.
    Index(
        "hold_turn",
        "tenant_id",
        "place",
        "asked_at",
        "case_id",
        "firing",
        postgresql_where=text("granted_at IS NULL AND place LIKE '%:%'"),
    ),
    Index(
        "hold_called",
        "tenant_id",
        "place",
        "case_id",
        "firing",
        postgresql_where=text("granted_at IS NOT NULL AND place LIKE '%:%'"),
    ),
    Index("hold_paced", "held_until", postgresql_where=text("held_until IS NOT NULL")),
)

# Weeks of cases that are, or were, on their way out of the database (`circuit.storage.archive`).
archive_week = Table(
    "archive_week",
    metadata,
    Column("week", Text, nullable=False),
    Column("round", Integer, nullable=False),
    Column("lower_bound", Uuid, nullable=False),
    Column("upper_bound", Uuid, nullable=False),
    Column("state", Text, nullable=False),
    Column("folder", Text),
    Column("cases", BigInteger, nullable=False, server_default=text("0")),
    Column("kept", Document, nullable=False, server_default=text("'[]'")),
    Column("manifest", Document, nullable=False, server_default=text("'{}'")),
    Column("started_at", Instant, nullable=False, server_default=text("now()")),
    Column("finished_at", Instant),
    PrimaryKeyConstraint("week", "round"),
    CheckConstraint("state IN ('streams', 'closing', 'written', 'dropped')", name="archive_week_state"),
)

# How far the streams of each week are compacted (`circuit.storage.compaction`).
stream_compaction = Table(
    "stream_compaction",
    metadata,
    Column("week", Text, nullable=False),
    Column("lower_bound", Uuid, nullable=False),
    Column("upper_bound", Uuid, nullable=False),
    Column("done_before", Instant),
    Column("cutoff", Instant),
    Column("at_tenant", Integer, nullable=False, server_default=text("0")),
    Column("at_case", Uuid, nullable=False, server_default=text("'00000000-0000-0000-0000-000000000000'")),
    Column("at_firing", Integer, nullable=False, server_default=text("0")),
    Column("settled", Boolean, nullable=False, server_default=text("false")),
    Column("executions", BigInteger, nullable=False, server_default=text("0")),
    Column("frames", BigInteger, nullable=False, server_default=text("0")),
    Column("bytes", BigInteger, nullable=False, server_default=text("0")),
    Column("updated_at", Instant, nullable=False, server_default=text("now()")),
    PrimaryKeyConstraint("week"),
)
