"""How often principals may ask, and addresses be wrong, over all processes.

Revision ID: 0036
"""

from __future__ import annotations

from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None

THIS_TENANT = "tenant_id = nullif(current_setting('circuit.tenant', true), '')::int4"
DEPLOYMENT = "nullif(current_setting('circuit.tenant', true), '')::int4 = 0"

STATEMENTS = (
    """
    CREATE TABLE circuit.request_rate (
        tenant_id int4 NOT NULL,
        part text NOT NULL,
        subject text NOT NULL,
        full_at timestamptz NOT NULL,
        PRIMARY KEY (tenant_id, part, subject)
    ) WITH (fillfactor = 50)
    """,
    "ALTER TABLE circuit.request_rate ENABLE ROW LEVEL SECURITY",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON circuit.request_rate TO circuit_engine",
    "CREATE POLICY engine ON circuit.request_rate TO circuit_engine USING (true) WITH CHECK (true)",
    "GRANT SELECT, INSERT, UPDATE (full_at) ON circuit.request_rate TO circuit_tenant",
    f"CREATE POLICY tenant ON circuit.request_rate TO circuit_tenant USING ({THIS_TENANT}) WITH CHECK ({THIS_TENANT})",
    """
    CREATE TABLE circuit.wrong_credential (
        address text PRIMARY KEY,
        wrong int4 NOT NULL,
        until timestamptz NOT NULL,
        forgotten_at timestamptz NOT NULL
    ) WITH (fillfactor = 50)
    """,
    "ALTER TABLE circuit.wrong_credential ENABLE ROW LEVEL SECURITY",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON circuit.wrong_credential TO circuit_engine",
    "CREATE POLICY engine ON circuit.wrong_credential TO circuit_engine USING (true) WITH CHECK (true)",
    "GRANT SELECT, INSERT, UPDATE (wrong, until, forgotten_at) ON circuit.wrong_credential TO circuit_tenant",
    # Whoever has yet to say who he is belongs to no tenant: what is asked of the deployment alone sees it.
    f"""
    CREATE POLICY tenant ON circuit.wrong_credential TO circuit_tenant USING ({DEPLOYMENT}) WITH CHECK ({DEPLOYMENT})
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
