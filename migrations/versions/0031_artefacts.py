"""Large values by their hash, which cases use which, and the bucket of cases that need workers who know of them.

Revision ID: 0031
"""

from __future__ import annotations

from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

THIS_TENANT = "tenant_id = nullif(current_setting('circuit.tenant', true), '')::int4"

STATEMENTS = (
    """
    CREATE TABLE circuit.artefact (
        tenant_id int4 NOT NULL,
        hash text NOT NULL,
        size int4 NOT NULL,
        content json NOT NULL,
        put_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant_id, hash)
    )
    """,
    """
    CREATE TABLE circuit.artefact_use (
        tenant_id int4 NOT NULL,
        case_id uuid NOT NULL,
        hash text NOT NULL,
        PRIMARY KEY (tenant_id, case_id, hash)
    ) PARTITION BY RANGE (case_id)
    """,
    "CREATE INDEX artefact_use_hash ON circuit.artefact_use (tenant_id, hash)",
    "CREATE TABLE circuit.artefact_use_default PARTITION OF circuit.artefact_use DEFAULT WITH (fillfactor = 100)",
    # The bucket of cases that need what those of `known` need, and a feature. There is none as long as a worker lives
    # that heeds no buckets (one says nothing of what it can), nor when all numbers are taken.
    """
    CREATE FUNCTION circuit.bucket_with(known int2, feature text) RETURNS int2
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DECLARE
        needs jsonb;
    BEGIN
        IF EXISTS (SELECT FROM circuit.worker w WHERE NOT w.fenced AND w.capabilities = '{}'::jsonb) THEN
            RETURN NULL;
        END IF;
        SELECT b.requires INTO needs FROM circuit.bucket b WHERE b.bucket = known;
        needs := coalesce(needs, '{}'::jsonb);
        RETURN nullif(circuit.bucket_of(jsonb_set(needs, '{features}', (
            SELECT jsonb_agg(DISTINCT f.name ORDER BY f.name)
            FROM jsonb_array_elements_text(coalesce(needs -> 'features', '[]'::jsonb) || to_jsonb(feature)) AS f(name)
        ))), 0);
    END
    $$
    """,
    "REVOKE EXECUTE ON FUNCTION circuit.bucket_with FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION circuit.bucket_with TO circuit_tenant, circuit_engine",
)
# To lock a row against who collects it takes the right to change it.
RIGHTS = {"artefact": "SELECT, INSERT, UPDATE (put_at)", "artefact_use": "SELECT, INSERT"}
# A hash is what it says, and only who starts a case writes for it: its owner is the engine's.
TENANT_INSERTS = {
    "artefact": "hash = encode(sha256(convert_to(content::text, 'UTF8')), 'hex')",
    "artefact_use": (
        "EXISTS (SELECT 1 FROM circuit.case started WHERE started.tenant_id = artefact_use.tenant_id"
        " AND started.case_id = artefact_use.case_id AND started.owner IS NULL AND started.seq = 1"
        " AND started.xmin = pg_current_xact_id()::xid)"
    ),
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
        op.execute(
            f"CREATE POLICY tenant_insert ON circuit.{table} AS RESTRICTIVE FOR INSERT TO circuit_tenant"
            f" WITH CHECK ({TENANT_INSERTS[table]})"
        )


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
