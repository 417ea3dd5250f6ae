"""What people and programs think of an execution. Rows are only ever added.

Revision ID: 0011
"""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

THIS_TENANT = "tenant_id = nullif(current_setting('circuit.tenant', true), '')::int4"


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE circuit.feedback (
            tenant_id int4 NOT NULL,
            case_id uuid NOT NULL,
            firing int4 NOT NULL,
            feedback_id uuid NOT NULL,
            score float8,
            comment text NOT NULL DEFAULT '',
            subject text NOT NULL,
            idempotency_key text,
            at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (tenant_id, case_id, feedback_id),
            CONSTRAINT feedback_idempotency UNIQUE (tenant_id, case_id, idempotency_key)
        ) PARTITION BY RANGE (case_id)
        """
    )
    op.execute("CREATE TABLE circuit.feedback_default PARTITION OF circuit.feedback DEFAULT WITH (fillfactor = 100)")
    op.execute(
        """
        CREATE FUNCTION circuit.refuse_change() RETURNS trigger
        LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            RAISE EXCEPTION USING ERRCODE = 'CT001', MESSAGE = format('%s never changes', TG_ARGV[0]);
        END
        $$
        """
    )
    op.execute(
        "CREATE TRIGGER unchanged BEFORE UPDATE ON circuit.feedback FOR EACH ROW"
        " EXECUTE FUNCTION circuit.refuse_change('feedback')"
    )
    op.execute("ALTER TABLE circuit.feedback ENABLE ROW LEVEL SECURITY")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON circuit.feedback TO circuit_engine")
    op.execute("CREATE POLICY engine ON circuit.feedback TO circuit_engine USING (true) WITH CHECK (true)")
    op.execute(
        "GRANT SELECT, INSERT (tenant_id, case_id, firing, feedback_id, score, comment, subject, idempotency_key)"
        " ON circuit.feedback TO circuit_tenant"
    )
    op.execute(
        f"CREATE POLICY tenant ON circuit.feedback TO circuit_tenant USING ({THIS_TENANT}) WITH CHECK ({THIS_TENANT})"
    )


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
