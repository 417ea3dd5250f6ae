"""How often principals may start agents, over all processes.

Revision ID: 0035
"""

from __future__ import annotations

from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None

THIS_TENANT = "tenant_id = nullif(current_setting('circuit.tenant', true), '')::int4"

STATEMENTS = (
    """
    CREATE TABLE circuit.start_rate (
        tenant_id int4 NOT NULL,
        subject text NOT NULL,
        full_at timestamptz NOT NULL,
        PRIMARY KEY (tenant_id, subject)
    ) WITH (fillfactor = 50)
    """,
    "ALTER TABLE circuit.start_rate ENABLE ROW LEVEL SECURITY",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON circuit.start_rate TO circuit_engine",
    "CREATE POLICY engine ON circuit.start_rate TO circuit_engine USING (true) WITH CHECK (true)",
    "GRANT SELECT, INSERT (tenant_id, subject, full_at), UPDATE (full_at) ON circuit.start_rate TO circuit_tenant",
    f"CREATE POLICY tenant ON circuit.start_rate TO circuit_tenant USING ({THIS_TENANT}) WITH CHECK ({THIS_TENANT})",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
