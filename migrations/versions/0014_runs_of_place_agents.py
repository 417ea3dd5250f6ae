"""What the agents of a place did on a token that stays there."""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A nullable column without a default: no row is rewritten, and the release before never looks at it.
    op.execute("ALTER TABLE circuit.token ADD COLUMN runs jsonb")


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
