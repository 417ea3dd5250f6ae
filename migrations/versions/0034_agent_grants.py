"""Which workflows may use which agents.

Revision ID: 0034
"""

from __future__ import annotations

from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

THIS_TENANT = "tenant_id = nullif(current_setting('circuit.tenant', true), '')::int4"

STATEMENTS = (
    """
    CREATE TABLE circuit.agent_grant (
        tenant_id int4 NOT NULL,
        agent_id text NOT NULL,
        pattern text NOT NULL,
        effect text NOT NULL,
        set_at timestamptz NOT NULL DEFAULT now(),
        set_by text NOT NULL,
        PRIMARY KEY (tenant_id, agent_id, pattern),
        CONSTRAINT agent_grant_effect CHECK (effect IN ('allow', 'deny'))
    )
    """,
    "ALTER TABLE circuit.agent_grant ENABLE ROW LEVEL SECURITY",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON circuit.agent_grant TO circuit_engine",
    "CREATE POLICY engine ON circuit.agent_grant TO circuit_engine USING (true) WITH CHECK (true)",
    "GRANT SELECT, INSERT (tenant_id, agent_id, pattern, effect, set_by), UPDATE (effect, set_at, set_by), DELETE"
    " ON circuit.agent_grant TO circuit_tenant",
    f"CREATE POLICY tenant ON circuit.agent_grant TO circuit_tenant USING ({THIS_TENANT}) WITH CHECK ({THIS_TENANT})",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
