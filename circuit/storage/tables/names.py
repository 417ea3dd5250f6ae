"""Names, types and the metadata that all tables share."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    DateTime,
    MetaData,
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
