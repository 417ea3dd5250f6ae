"""Agents by their ids: which version of each is the current one, whichever workflow published it."""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

THIS_TENANT = "tenant_id = nullif(current_setting('circuit.tenant', true), '')::int4"

STATEMENTS = (
    """
    CREATE TABLE circuit.agent (
        tenant_id int4 NOT NULL,
        agent_id text NOT NULL,
        hash text NOT NULL,
        updated_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant_id, agent_id),
        CONSTRAINT agent_current_version FOREIGN KEY (tenant_id, agent_id, hash)
            REFERENCES circuit.agent_version (tenant_id, agent_id, hash)
    )
    """,
    # What was published before: the youngest version of each agent.
    """
    INSERT INTO circuit.agent (tenant_id, agent_id, hash, updated_at)
    SELECT DISTINCT ON (tenant_id, agent_id) tenant_id, agent_id, hash, published_at
    FROM circuit.agent_version ORDER BY tenant_id, agent_id, published_at DESC, hash
    """,
    "ALTER TABLE circuit.agent ENABLE ROW LEVEL SECURITY",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON circuit.agent TO circuit_engine",
    "CREATE POLICY engine ON circuit.agent TO circuit_engine USING (true) WITH CHECK (true)",
    "GRANT SELECT, INSERT (tenant_id, agent_id, hash), UPDATE (hash, updated_at) ON circuit.agent TO circuit_tenant",
    f"CREATE POLICY tenant ON circuit.agent TO circuit_tenant USING ({THIS_TENANT}) WITH CHECK ({THIS_TENANT})",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
