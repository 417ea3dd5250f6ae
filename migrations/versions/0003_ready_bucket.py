"""An index for claims: they go through the tenants of a bucket, one after the other, and take of each the oldest that
are due. It is made while everybody works, so this migration is nothing else, and can be run again after a failure."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # What a run that was cut off left behind is not valid.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS circuit.ready_bucket")
        op.execute("CREATE INDEX CONCURRENTLY ready_bucket ON circuit.ready (bucket, tenant_id, due_at)")


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
