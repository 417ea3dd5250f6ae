"""In which trace a case was started, so that whoever works on it goes on with that.

Revision ID: 0029
"""

from __future__ import annotations

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute('ALTER TABLE circuit."case" ADD COLUMN traceparent text')
    op.execute("GRANT INSERT (traceparent) ON circuit.case TO circuit_tenant")


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
