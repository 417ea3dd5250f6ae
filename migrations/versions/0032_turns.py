"""Firings that wait for their turn at an agent, or at a provider of their tenant: who is next, and who was called in.
The indexes are made while everybody works, so this migration is nothing else, and can be run again after a failure."""

from __future__ import annotations

from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # What a run that was cut off left behind is not valid.
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS circuit.hold_turn")
        op.execute(
            "CREATE INDEX CONCURRENTLY hold_turn ON circuit.hold (tenant_id, place, asked_at, case_id, firing)"
            " WHERE granted_at IS NULL AND place LIKE '%:%'"
        )
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS circuit.hold_called")
        op.execute(
            "CREATE INDEX CONCURRENTLY hold_called ON circuit.hold (tenant_id, place, case_id, firing)"
            " WHERE granted_at IS NOT NULL AND place LIKE '%:%'"
        )


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
