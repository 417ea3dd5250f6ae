"""What agents keep between their runs."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, LargeBinary, PrimaryKeyConstraint, Table, text

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
