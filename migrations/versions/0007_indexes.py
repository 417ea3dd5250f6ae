"""Indexes on tables that are in use: for claims, which go through the tenants of a bucket one after the other and take
of each the oldest that are due, and for the open incidents of a tenant. They are made while everybody works, so this
migration is nothing else, and can be run again after a failure."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

OPEN = "(tenant_id, case_id, number) WHERE resolved_at IS NULL"
PARTITIONS = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'circuit.incident'::regclass ORDER BY 1
"""


def upgrade() -> None:
    context = op.get_context()
    assert context.connection is not None
    partitions = [row[0] for row in context.connection.exec_driver_sql(PARTITIONS)]
    with context.autocommit_block():
        # What a run that was cut off left behind is not valid.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS circuit.ready_bucket")
        op.execute("CREATE INDEX CONCURRENTLY ready_bucket ON circuit.ready (bucket, tenant_id, due_at)")
        # A partitioned table has no index of its own: its partitions get theirs, one after the other, and then they
        # are put together.
        for partition in partitions:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS circuit.{partition}_open")
            op.execute(f"CREATE INDEX CONCURRENTLY {partition}_open ON circuit.{partition} {OPEN}")
    op.execute(f"CREATE INDEX incident_open ON ONLY circuit.incident {OPEN}")
    for partition in partitions:
        op.execute(f"ALTER INDEX circuit.incident_open ATTACH PARTITION circuit.{partition}_open")


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
