"""Finds the cases that a case opened. The index is made while everybody works, so this migration is nothing else."""

from __future__ import annotations

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # What a run that was cut off left behind is not valid.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS circuit.case_parent")
        op.execute(
            'CREATE INDEX CONCURRENTLY case_parent ON circuit."case" (tenant_id, parent_case)'
            " WHERE parent_case IS NOT NULL"
        )


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
