"""Firings that wait without a worker: until when, and for what."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Nullable columns without a default: no row is rewritten, and the release before never looks at them.
    op.execute("ALTER TABLE circuit.firing ADD COLUMN wake_at timestamptz, ADD COLUMN awaits jsonb")


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
