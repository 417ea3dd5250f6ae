"""Conversations of agents: what was said, as typed parts, from firing to firing.

Revision ID: 0019
"""

from __future__ import annotations

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

THIS_TENANT = "tenant_id = nullif(current_setting('circuit.tenant', true), '')::int4"

STATEMENTS = (
    """
    CREATE TABLE circuit.conversation (
        tenant_id int4 NOT NULL,
        conversation_id uuid NOT NULL,
        agent_id text NOT NULL,
        workflow_id text,
        case_id uuid,
        token int4,
        forked_from uuid,
        forked_after int4,
        created_at timestamptz NOT NULL DEFAULT now(),
        created_by text,
        PRIMARY KEY (tenant_id, conversation_id)
    )
    """,
    "CREATE INDEX conversation_agent ON circuit.conversation (tenant_id, agent_id, conversation_id)",
    "CREATE INDEX conversation_case ON circuit.conversation (tenant_id, case_id) WHERE case_id IS NOT NULL",
    """
    CREATE TABLE circuit.message (
        tenant_id int4 NOT NULL,
        conversation_id uuid NOT NULL,
        seq int4 NOT NULL,
        role text NOT NULL,
        parts json NOT NULL,
        agent_id text,
        case_id uuid,
        firing int4,
        covers int4,
        at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant_id, conversation_id, seq)
    )
    """,
)
# A request forks conversations, and adds to none.
RIGHTS = {
    "conversation": "SELECT, INSERT (tenant_id, conversation_id, agent_id, workflow_id, case_id, token, forked_from,"
    " forked_after, created_by)",
    "message": "SELECT, INSERT (tenant_id, conversation_id, seq, role, parts, agent_id, case_id, firing, covers, at)",
}


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
    for table, rights in RIGHTS.items():
        op.execute(f"ALTER TABLE circuit.{table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON circuit.{table} TO circuit_engine")
        op.execute(f"CREATE POLICY engine ON circuit.{table} TO circuit_engine USING (true) WITH CHECK (true)")
        op.execute(f"GRANT {rights} ON circuit.{table} TO circuit_tenant")
        op.execute(
            f"CREATE POLICY tenant ON circuit.{table} TO circuit_tenant"
            f" USING ({THIS_TENANT}) WITH CHECK ({THIS_TENANT})"
        )


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
