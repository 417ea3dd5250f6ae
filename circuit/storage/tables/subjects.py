"""Whom cases are about."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, LargeBinary, PrimaryKeyConstraint, Table, Text, Uuid, text

from circuit.storage.tables.names import Instant, metadata

# `subject` is the SHA-256 of the subject's name, which is personal itself. The row outlives its case, so that what lies
# in the archive is found.
case_subject = Table(
    "case_subject",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("subject", LargeBinary, nullable=False),
    Column("case_id", Uuid, nullable=False),
    Column("added_at", Instant, nullable=False, server_default=text("now()")),
    Column("added_by", Text, nullable=False),
    Column("erased_at", Instant),
    PrimaryKeyConstraint("tenant_id", "subject", "case_id"),
    Index("case_subject_case", "tenant_id", "case_id"),
)
