"""Messages from outside, and which of them cases wait for."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from circuit.storage.tables.names import Document, Instant, metadata

# `new` until somebody has looked for a case that waits for it, then `kept` until a case does; `assigned` while a
# command with it waits to be answered. The indexes hold what is new, what is kept and what is under way, so that a
# look at either never sees the others.
sent_message = Table(
    "sent_message",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("message_id", Uuid, nullable=False),
    Column("name", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("delivery_id", Text, nullable=False),
    Column("data", Document, nullable=False),
    Column("principal", Document, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'new'")),
    Column("sent_at", Instant, nullable=False, server_default=text("now()")),
    Column("due_at", Instant, nullable=False, server_default=text("now()")),
    Column("expires_at", Instant, nullable=False),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("case_id", Uuid),
    Column("command_id", Uuid),
    Column("error", Document),
    PrimaryKeyConstraint("tenant_id", "message_id"),
    UniqueConstraint("tenant_id", "name", "delivery_id", name="sent_message_delivery"),
    CheckConstraint(
        "state IN ('new', 'kept', 'assigned', 'delivered', 'refused', 'expired')", name="sent_message_state"
    ),
    Index(
        "sent_message_open",
        "tenant_id",
        "name",
        "key",
        "message_id",
        postgresql_where=text("state IN ('new', 'kept')"),
    ),
    Index("sent_message_new", "due_at", postgresql_where=text("state = 'new'")),
    Index("sent_message_assigned", "tenant_id", "case_id", postgresql_where=text("state = 'assigned'")),
    Index("sent_message_expiry", "expires_at"),
)

# A row for each message (by name and key) that a case waits for, written by its owner. `sought`: somebody has looked
# for kept messages since.
awaited_message = Table(
    "awaited_message",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("case_id", Uuid, nullable=False),
    Column("transition", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("since", Instant, nullable=False, server_default=text("now()")),
    Column("sought", Boolean, nullable=False, server_default=text("false")),
    PrimaryKeyConstraint("tenant_id", "case_id", "transition", "name", "key"),
    Index("awaited_message_found", "tenant_id", "name", "key", "since", "case_id"),
    Index("awaited_message_unsought", "since", postgresql_where=text("NOT sought")),
)
