"""Budgets, and what calls of models cost them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)

from circuit.storage.tables.names import Instant, metadata

# What is spent of a budget is `spent_*`, and the charges since `since`, which join it one day; nobody else counts it.
budget = Table(
    "budget",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("scope", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("calls", BigInteger),
    Column("tokens", BigInteger),
    Column("microdollars", BigInteger),
    Column("period", Text),
    Column("since", Instant, nullable=False, server_default=text("now()")),
    Column("spent_calls", BigInteger, nullable=False, server_default=text("0")),
    Column("spent_tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("spent_microdollars", BigInteger, nullable=False, server_default=text("0")),
    Column("updated_at", Instant, nullable=False, server_default=text("now()")),
    Column("updated_by", Text, nullable=False),
    PrimaryKeyConstraint("tenant_id", "scope", "subject"),
    CheckConstraint("scope IN ('case', 'tenant', 'workflow')", name="budget_scope"),
    CheckConstraint("period IN ('day', 'month')", name="budget_period"),
)

# A row from before a call of a model until its cost has joined the budgets: open, it stands at what the call may cost
# at most, and settled at what it did cost.
charge = Table(
    "charge",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("case_id", Uuid, nullable=False),
    Column("firing", Integer, nullable=False),
    Column("start", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column("workflow_id", Text, nullable=False),
    Column("worker", Uuid, nullable=False),
    Column("calls", Integer, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("microdollars", BigInteger, nullable=False),
    Column("held_at", Instant, nullable=False, server_default=text("now()")),
    Column("settled_at", Instant),
    Column("payer", Uuid),
    PrimaryKeyConstraint("tenant_id", "case_id", "firing", "start", "number"),
    Index("charge_workflow", "tenant_id", "workflow_id"),
)
