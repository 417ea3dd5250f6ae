"""What somebody asks of a worker: to end in good order, or to give cases up for others.

Revision ID: 0009
"""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE circuit.worker_request (
            id uuid NOT NULL,
            worker_id uuid NOT NULL,
            kind text NOT NULL,
            payload jsonb NOT NULL DEFAULT '{}',
            asked_by text NOT NULL,
            asked_at timestamptz NOT NULL DEFAULT now(),
            settled_at timestamptz,
            result jsonb,
            PRIMARY KEY (worker_id, id)
        )
        """
    )
    op.execute("ALTER TABLE circuit.worker_request ENABLE ROW LEVEL SECURITY")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON circuit.worker_request TO circuit_engine")
    op.execute("CREATE POLICY engine ON circuit.worker_request TO circuit_engine USING (true) WITH CHECK (true)")


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
