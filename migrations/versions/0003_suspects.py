"""Which firing a worker runs alone, or is stuck in: the one to blame if it dies."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "ALTER TABLE circuit.worker_lease"
        " ADD COLUMN suspect_tenant int4, ADD COLUMN suspect_case uuid, ADD COLUMN suspect_firing int4"
    )


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
