"""A workflow can be retired: no new cases of it begin, and those that run go on."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE circuit.workflow ADD COLUMN retired_at timestamptz")
    op.execute("GRANT UPDATE (retired_at) ON circuit.workflow TO circuit_tenant")


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
