"""What agents keep between their runs."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)

from circuit.storage.tables.names import Instant, Verbatim, metadata

# By the digest of the request. An answer counts until it expires, and a sweep takes it away after that.
cached_answer = Table(
    "cached_answer",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("answer", Verbatim, nullable=False),
    Column("created_at", Instant, nullable=False, server_default=text("now()")),
    Column("expires_at", Instant, nullable=False),
    PrimaryKeyConstraint("tenant_id", "digest"),
    Index("cached_answer_expired", "expires_at"),
)

# Which workflows may use an agent: `effect` is `allow` or `deny`.
agent_grant = Table(
    "agent_grant",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("agent_id", Text, nullable=False),
    Column("pattern", Text, nullable=False),
    Column("effect", Text, nullable=False),
    Column("set_at", Instant, nullable=False, server_default=text("now()")),
    Column("set_by", Text, nullable=False),
    PrimaryKeyConstraint("tenant_id", "agent_id", "pattern"),
    CheckConstraint("effect IN ('allow', 'deny')", name="agent_grant_effect"),
)

# What an agent and those whom it answers said to one another. Of a case and perhaps of one of its tokens, or a fork
# that belongs to no case; the id of one of a case sorts with the case's own.
conversation = Table(
    "conversation",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("conversation_id", Uuid, nullable=False),
    Column("agent_id", Text, nullable=False),
    Column("workflow_id", Text),
    Column("case_id", Uuid),
    Column("token", Integer),
    Column("forked_from", Uuid),
    Column("forked_after", Integer),
    Column("created_at", Instant, nullable=False, server_default=text("now()")),
    Column("created_by", Text),
    PrimaryKeyConstraint("tenant_id", "conversation_id"),
    Index("conversation_agent", "tenant_id", "agent_id", "conversation_id"),
    Index("conversation_case", "tenant_id", "case_id", postgresql_where=text("case_id IS NOT NULL")),
)

# Only ever added to. `case_id` and `firing` say in which execution it was said.
message = Table(
    "message",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("conversation_id", Uuid, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("role", Text, nullable=False),
    Column("parts", Verbatim, nullable=False),
    Column("agent_id", Text),
    Column("case_id", Uuid),
    Column("firing", Integer),
    Column("covers", Integer),
    Column("at", Instant, nullable=False, server_default=text("now()")),
    PrimaryKeyConstraint("tenant_id", "conversation_id", "seq"),
)
