"""How many executions may run at once, and the workers' shares in that.

Revision ID: 0024
"""

from __future__ import annotations

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

THIS_TENANT = "tenant_id = nullif(current_setting('circuit.tenant', true), '')::int4"

STATEMENTS = (
    """
    CREATE TABLE circuit.concurrency_limit (
        tenant_id int4 NOT NULL,
        kind text NOT NULL,
        name text NOT NULL,
        executions int4 NOT NULL,
        updated_at timestamptz NOT NULL DEFAULT now(),
        updated_by text NOT NULL,
        PRIMARY KEY (tenant_id, kind, name),
        CONSTRAINT concurrency_limit_kind CHECK (kind IN ('agent', 'provider', 'tenant'))
    )
    """,
    """
    CREATE TABLE circuit.worker_share (
        worker_id uuid NOT NULL,
        tenant_id int4 NOT NULL,
        kind text NOT NULL,
        name text NOT NULL,
        amount int4 NOT NULL,
        wanted int4 NOT NULL,
        PRIMARY KEY (worker_id, tenant_id, kind, name)
    ) WITH (fillfactor = 50)
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
    for table in ("concurrency_limit", "worker_share"):
        op.execute(f"ALTER TABLE circuit.{table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON circuit.{table} TO circuit_engine")
        op.execute(f"CREATE POLICY engine ON circuit.{table} TO circuit_engine USING (true) WITH CHECK (true)")
    op.execute("GRANT SELECT ON circuit.concurrency_limit TO circuit_tenant")
    op.execute(f"CREATE POLICY tenant ON circuit.concurrency_limit TO circuit_tenant USING ({THIS_TENANT})")


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
