"""What is published: workflows, agents and prompts, by tenant and version."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    ForeignKeyConstraint,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)

from circuit.storage.tables.names import Document, Instant, Verbatim, metadata

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
    Column("starts_on", Text),
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

agent = Table(
    "agent",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("agent_id", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("updated_at", Instant, nullable=False, server_default=text("now()")),
    PrimaryKeyConstraint("tenant_id", "agent_id"),
    ForeignKeyConstraint(
        ["tenant_id", "agent_id", "hash"],
        ["agent_version.tenant_id", "agent_version.agent_id", "agent_version.hash"],
        name="agent_current_version",
    ),
)

# What was published with an idempotency key: `request` names what was asked for.
publication = Table(
    "publication",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("key", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Column("at", Instant, nullable=False, server_default=text("now()")),
    PrimaryKeyConstraint("tenant_id", "key"),
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
