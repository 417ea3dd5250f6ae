"""API keys, of which only digests are stored."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

THIS_TENANT = "tenant_id = nullif(current_setting('circuit.tenant', true), '')::int4"

STATEMENTS = (
    """
    CREATE TABLE circuit.api_key (
        tenant_id int4 NOT NULL,
        key_id text NOT NULL,
        name text NOT NULL,
        digest bytea NOT NULL,
        roles jsonb NOT NULL,
        scopes jsonb,
        created_at timestamptz NOT NULL DEFAULT now(),
        created_by text NOT NULL,
        expires_at timestamptz,
        revoked_at timestamptz,
        PRIMARY KEY (tenant_id, key_id)
    )
    """,
    "ALTER TABLE circuit.api_key ENABLE ROW LEVEL SECURITY",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON circuit.api_key TO circuit_engine",
    "CREATE POLICY engine ON circuit.api_key TO circuit_engine USING (true) WITH CHECK (true)",
    "GRANT SELECT, UPDATE (revoked_at), INSERT (tenant_id, key_id, name, digest, roles, scopes, created_by, expires_at)"
    " ON circuit.api_key TO circuit_tenant",
    f"CREATE POLICY tenant ON circuit.api_key TO circuit_tenant USING ({THIS_TENANT}) WITH CHECK ({THIS_TENANT})",
    # A key that was revoked stays revoked.
    """
    CREATE TRIGGER terminal BEFORE UPDATE ON circuit.api_key FOR EACH ROW
    WHEN (OLD.revoked_at IS NOT NULL AND OLD.revoked_at IS DISTINCT FROM NEW.revoked_at)
    EXECUTE FUNCTION circuit.refuse_revived()
    """,
)
REFUSE_REVIVED = """
CREATE FUNCTION circuit.refuse_revived() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'CT001', MESSAGE = 'a key that was revoked stays revoked';
END
$$
"""


def upgrade() -> None:
    op.execute(REFUSE_REVIVED)
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
