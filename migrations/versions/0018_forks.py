"""What a fork of a case has behind it: how often its transitions fired, and what ran on its tokens."""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("GRANT INSERT (fired) ON circuit.case TO circuit_tenant")
    op.execute("GRANT INSERT (runs) ON circuit.token TO circuit_tenant")


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
