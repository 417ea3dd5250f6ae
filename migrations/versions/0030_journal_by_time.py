"""The journal by when its rows came, for what answers cost in a period: a summary of ranges of pages, which costs those
who write next to nothing. It is made while everybody works, so this migration is nothing else, and can be run again
after a failure."""

from __future__ import annotations

from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

PARTITIONS = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'circuit.journal'::regclass ORDER BY 1
"""


def upgrade() -> None:
    context = op.get_context()
    assert context.connection is not None
    partitions = [row[0] for row in context.connection.exec_driver_sql(PARTITIONS)]
    with context.autocommit_block():
        for partition in partitions:
            # What a run that was cut off left behind is not valid.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS circuit.{partition}_at")
            op.execute(f"CREATE INDEX CONCURRENTLY {partition}_at ON circuit.{partition} USING brin (at)")
    op.execute("CREATE INDEX journal_at ON ONLY circuit.journal USING brin (at)")
    for partition in partitions:
        op.execute(f"ALTER INDEX circuit.journal_at ATTACH PARTITION circuit.{partition}_at")


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
