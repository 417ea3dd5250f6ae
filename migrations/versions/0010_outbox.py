"""Events that leave Circuit, written in the same commit as what they tell, and how far each consumer has come.

Revision ID: 0010
"""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

THIS_TENANT = "tenant_id = nullif(current_setting('circuit.tenant', true), '')::int4"
TABLES = {
    # `xid` orders the rows and says below which no row will come any more. It is a plain integer, not xid8: what the
    # transaction's number is stays the same, and every driver knows the type.
    "outbox": (
        """
        tenant_id int4 NOT NULL,
        xid int8 NOT NULL DEFAULT (pg_current_xact_id()::text)::int8,
        case_id uuid NOT NULL,
        seq int4 NOT NULL,
        PRIMARY KEY (tenant_id, xid, case_id, seq)
        """,
        "SELECT, DELETE, INSERT (tenant_id, case_id, seq)",
    ),
    "outbox_consumer": (
        """
        tenant_id int4 NOT NULL,
        name text NOT NULL,
        xid int8 NOT NULL,
        case_id uuid NOT NULL,
        seq int4 NOT NULL,
        updated_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant_id, name)
        """,
        "SELECT, INSERT, UPDATE, DELETE",
    ),
}


def upgrade() -> None:
    for table, (columns, rights) in TABLES.items():
        op.execute(f"CREATE TABLE circuit.{table} ({columns})")
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
