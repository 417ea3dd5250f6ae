"""What cases need of a worker, and what workers can run: claims are filtered and spread by it."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

STATEMENTS = (
    # One row for each set of requirements that any case ever had. Bucket 0 has none: it holds what a release before
    # this one wrote, which says nothing of what it needs.
    """
    CREATE TABLE circuit.bucket (
        bucket int2 GENERATED ALWAYS AS IDENTITY,
        requires jsonb NOT NULL,
        PRIMARY KEY (bucket),
        CONSTRAINT bucket_requires UNIQUE (requires)
    )
    """,
    "ALTER TABLE circuit.bucket ENABLE ROW LEVEL SECURITY",
    "GRANT SELECT ON circuit.bucket TO circuit_engine",
    "CREATE POLICY engine ON circuit.bucket TO circuit_engine USING (true) WITH CHECK (true)",
    "ALTER TABLE circuit.case ADD COLUMN bucket int2 NOT NULL DEFAULT 0",
    "ALTER TABLE circuit.worker ADD COLUMN capabilities jsonb NOT NULL DEFAULT '{}'",
    "GRANT INSERT (bucket) ON circuit.case TO circuit_tenant",
    "GRANT INSERT (bucket) ON circuit.ready TO circuit_tenant",
    # The release before this one leaves the bucket out.
    """
    CREATE POLICY tenant_insert ON circuit.ready AS RESTRICTIVE FOR INSERT TO circuit_tenant WITH CHECK (
        bucket = 0 OR EXISTS (
            SELECT 1 FROM circuit.case c
            WHERE c.tenant_id = ready.tenant_id AND c.case_id = ready.case_id AND c.bucket = ready.bucket
        )
    )
    """,
    # A tenant may name what it needs without seeing what others need. When all numbers are taken, bucket 0 takes the
    # rest: everybody may claim from it.
    """
    CREATE FUNCTION circuit.bucket_of(wanted jsonb) RETURNS int2
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DECLARE
        found int2;
    BEGIN
        SELECT b.bucket INTO found FROM circuit.bucket b WHERE b.requires = wanted;
        IF found IS NULL THEN
            BEGIN
                INSERT INTO circuit.bucket (requires) VALUES (wanted) ON CONFLICT DO NOTHING;
            EXCEPTION WHEN sequence_generator_limit_exceeded THEN
                RETURN 0;
            END;
            SELECT b.bucket INTO found FROM circuit.bucket b WHERE b.requires = wanted;
        END IF;
        RETURN coalesce(found, 0);
    END
    $$
    """,
    # Of these buckets, those that no living worker takes cases from, with what they ask for. A worker of the release
    # before says nothing of what it can run, and takes from all.
    """
    CREATE FUNCTION circuit.unserved(buckets int2[]) RETURNS TABLE (bucket int2, requires jsonb)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        SELECT b.bucket, b.requires
        FROM circuit.bucket b
        WHERE b.bucket = ANY (buckets) AND NOT EXISTS (
            SELECT FROM circuit.worker w JOIN circuit.worker_lease l ON l.worker_id = w.id
            WHERE NOT w.fenced AND l.expires_at > now()
                AND (w.capabilities = '{}'::jsonb OR b.requires <@ w.capabilities)
        )
    $$
    """,
    "REVOKE EXECUTE ON FUNCTION circuit.bucket_of, circuit.unserved FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION circuit.bucket_of, circuit.unserved TO circuit_tenant, circuit_engine",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
