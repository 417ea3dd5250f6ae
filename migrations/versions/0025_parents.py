"""Cases that other cases opened: which firing of which case did, and how deep they lie in one another."""

from __future__ import annotations

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Two nullable columns and one with a constant default: no row is rewritten.
    op.execute(
        'ALTER TABLE circuit."case" ADD COLUMN parent_case uuid, ADD COLUMN parent_firing int4,'
        " ADD COLUMN depth int2 NOT NULL DEFAULT 0"
    )


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
