"""What processes may send of the limits of providers, over all of them.

Revision ID: 0041
"""

from __future__ import annotations

from alembic import op

revision = "0041"
down_revision = "0040"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE circuit.provider_ration (
        name text PRIMARY KEY,
        version int8 NOT NULL,
        claims jsonb NOT NULL,
        changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
    ) WITH (fillfactor = 50)
    """,
    "ALTER TABLE circuit.provider_ration ENABLE ROW LEVEL SECURITY",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON circuit.provider_ration TO circuit_engine",
    "CREATE POLICY engine ON circuit.provider_ration TO circuit_engine USING (true) WITH CHECK (true)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
