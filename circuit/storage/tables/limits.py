"""How many executions may run at once and the workers' shares in that; how often anybody may ask, and be wrong; what
processes may send to providers."""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, Integer, PrimaryKeyConstraint, Table, Text, Uuid, text

from circuit.storage.tables.names import Document, Instant, metadata

# The tenant 0 stands for all of them together.
concurrency_limit = Table(
    "concurrency_limit",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("executions", Integer, nullable=False),
    Column("updated_at", Instant, nullable=False, server_default=text("now()")),
    Column("updated_by", Text, nullable=False),
    PrimaryKeyConstraint("tenant_id", "kind", "name"),
    CheckConstraint("kind IN ('agent', 'provider', 'tenant')", name="concurrency_limit_kind"),
)

# What runs in a worker is never more than its share; so what runs anywhere is never more than the shares of the workers
# that are not fenced. A share ends with its worker, without anybody's doing.
worker_share = Table(
    "worker_share",
    metadata,
    Column("worker_id", Uuid, nullable=False),
    Column("tenant_id", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("amount", Integer, nullable=False),
    Column("wanted", Integer, nullable=False),
    PrimaryKeyConstraint("worker_id", "tenant_id", "kind", "name"),
)

# One bucket for each principal: it is full at `full_at`, and who draws from it moves that on.
start_rate = Table(
    "start_rate",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("subject", Text, nullable=False),
    Column("full_at", Instant, nullable=False),
    PrimaryKeyConstraint("tenant_id", "subject"),
)

# The same for what it asks of a part of the server.
request_rate = Table(
    "request_rate",
    metadata,
    Column("tenant_id", Integer, nullable=False),
    Column("part", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("full_at", Instant, nullable=False),
    PrimaryKeyConstraint("tenant_id", "part", "subject"),
)

# Credentials that did not hold, by the address that they came from: nobody knows yet to which tenant they would belong.
wrong_credential = Table(
    "wrong_credential",
    metadata,
    Column("address", Text, primary_key=True),
    Column("wrong", Integer, nullable=False),
    Column("until", Instant, nullable=False),
    Column("forgotten_at", Instant, nullable=False),
)

# What processes claim of what an endpoint allows in a minute: `circuit.ration` says how.
provider_ration = Table(
    "provider_ration",
    metadata,
    Column("name", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("claims", Document, nullable=False),
    Column("changed_at", Instant, nullable=False, server_default=text("clock_timestamp()")),
)
