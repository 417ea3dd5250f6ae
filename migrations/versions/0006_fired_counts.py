"""How often each transition of a case has fired, as of an event of the case: its history is counted only from there."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A release before this one leaves both as they are: then more of the history is counted, and the sum is the same.
    op.execute("ALTER TABLE circuit.case ADD COLUMN fired jsonb NOT NULL DEFAULT '{}'")
    op.execute("ALTER TABLE circuit.case ADD COLUMN fired_seq int4 NOT NULL DEFAULT 0")


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
