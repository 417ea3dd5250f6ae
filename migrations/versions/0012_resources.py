"""Shared places as counted resources: how much there is, who holds it, and who waits for it."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

THIS_TENANT = "tenant_id = nullif(current_setting('circuit.tenant', true), '')::int4"

STATEMENTS = (
    """
    CREATE TABLE circuit.resource (
        tenant_id int4 NOT NULL,
        workflow_id text NOT NULL,
        place text NOT NULL,
        capacity int4 NOT NULL,
        interval_seconds float8,
        updated_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant_id, workflow_id, place)
    )
    """,
    # A row from the begin of a firing to its end. It waits while granted_at is null; what is paced stays until then.
    """
    CREATE TABLE circuit.hold (
        tenant_id int4 NOT NULL,
        workflow_id text NOT NULL,
        place text NOT NULL,
        case_id uuid NOT NULL,
        firing int4 NOT NULL,
        amount int4 NOT NULL,
        asked_at timestamptz NOT NULL,
        granted_at timestamptz,
        held_until timestamptz,
        PRIMARY KEY (tenant_id, workflow_id, place, case_id, firing)
    )
    """,
    "CREATE INDEX hold_waiting ON circuit.hold (tenant_id, workflow_id, asked_at, case_id, firing)"
    " WHERE granted_at IS NULL",
    "CREATE INDEX hold_paced ON circuit.hold (held_until) WHERE held_until IS NOT NULL",
)
RIGHTS = {
    "resource": "SELECT, INSERT (tenant_id, workflow_id, place, capacity, interval_seconds),"
    " UPDATE (capacity, interval_seconds, updated_at)",
    "hold": "SELECT",
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
