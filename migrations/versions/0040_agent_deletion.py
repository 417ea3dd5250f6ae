"""Agents may be taken away by whoever may publish them.

Revision ID: 0040
"""

from __future__ import annotations

from alembic import op

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("GRANT DELETE ON circuit.agent TO circuit_tenant")


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
