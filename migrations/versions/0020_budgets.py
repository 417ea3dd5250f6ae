"""Budgets of cases, workflows and tenants, and the charges of calls of models.

Revision ID: 0020
"""

from __future__ import annotations

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

THIS_TENANT = "tenant_id = nullif(current_setting('circuit.tenant', true), '')::int4"

STATEMENTS = (
    """
    CREATE TABLE circuit.budget (
        tenant_id int4 NOT NULL,
        scope text NOT NULL,
        subject text NOT NULL,
        calls int8,
        tokens int8,
        microdollars int8,
        period text,
        since timestamptz NOT NULL DEFAULT now(),
        spent_calls int8 NOT NULL DEFAULT 0,
        spent_tokens int8 NOT NULL DEFAULT 0,
        spent_microdollars int8 NOT NULL DEFAULT 0,
        updated_at timestamptz NOT NULL DEFAULT now(),
        updated_by text NOT NULL,
        PRIMARY KEY (tenant_id, scope, subject),
        CONSTRAINT budget_scope CHECK (scope IN ('case', 'tenant', 'workflow')),
        CONSTRAINT budget_period CHECK (period IN ('day', 'month'))
    ) WITH (fillfactor = 50)
    """,
    # A row changes once, from open to settled, and no index holds what changes.
    """
    CREATE TABLE circuit.charge (
        tenant_id int4 NOT NULL,
        case_id uuid NOT NULL,
        firing int4 NOT NULL,
        start int4 NOT NULL,
        number int4 NOT NULL,
        workflow_id text NOT NULL,
        worker uuid NOT NULL,
        calls int4 NOT NULL,
        tokens int8 NOT NULL,
        microdollars int8 NOT NULL,
        held_at timestamptz NOT NULL DEFAULT now(),
        settled_at timestamptz,
        PRIMARY KEY (tenant_id, case_id, firing, start, number)
    ) WITH (fillfactor = 50)
    """,
    "CREATE INDEX charge_workflow ON circuit.charge (tenant_id, workflow_id)",
)
RIGHTS = {"budget": "SELECT, INSERT, UPDATE, DELETE", "charge": "SELECT"}


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
