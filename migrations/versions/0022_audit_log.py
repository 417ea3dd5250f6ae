"""The audit log: who did what to which, when, from where. The database itself refuses to change it."""

from __future__ import annotations

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

THIS_TENANT = "tenant_id = nullif(current_setting('circuit.tenant', true), '')::int4"

STATEMENTS = (
    """
    CREATE TABLE circuit.audit_log (
        tenant_id int4 NOT NULL,
        entry_id int8 GENERATED ALWAYS AS IDENTITY,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        subject text NOT NULL,
        action text NOT NULL,
        target text NOT NULL,
        origin text NOT NULL,
        details jsonb NOT NULL DEFAULT '{}',
        PRIMARY KEY (tenant_id, entry_id)
    )
    """,
    "CREATE INDEX audit_log_target ON circuit.audit_log (tenant_id, target, entry_id)",
    """
    CREATE FUNCTION circuit.refuse_audit_change() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
        RAISE EXCEPTION USING ERRCODE = 'CA001', MESSAGE = 'the audit log is only added to';
    END
    $$
    """,
    """
    CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON circuit.audit_log
    FOR EACH ROW EXECUTE FUNCTION circuit.refuse_audit_change()
    """,
    """
    CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON circuit.audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION circuit.refuse_audit_change()
    """,
    "ALTER TABLE circuit.audit_log ENABLE ROW LEVEL SECURITY",
    "GRANT SELECT, INSERT (tenant_id, subject, action, target, origin, details)"
    " ON circuit.audit_log TO circuit_engine, circuit_tenant",
    "CREATE POLICY engine ON circuit.audit_log TO circuit_engine USING (true) WITH CHECK (true)",
    f"CREATE POLICY tenant ON circuit.audit_log TO circuit_tenant USING ({THIS_TENANT}) WITH CHECK ({THIS_TENANT})",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
