"""Which weeks of cases were written out and dropped, and the function that drops a partition.

Revision ID: 0015
"""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# Only the owner of a table can detach its partitions; so this runs with the rights of the tables' owner, and looks
# itself whether the week may go. Detaching takes an exclusive lock on the parent, which everybody else waits for: so
# it waits for it a fifth of a second at most, and is tried again. The rows of the few cases that stay (`kept`) are
# carried over into the default partition in the same transaction: no reader or writer ever misses them.
RETIRE = """
CREATE FUNCTION circuit.retire_partition(parent text, suffix text, lower_bound uuid, upper_bound uuid) RETURNS int8
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms'
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    child text := parent || '_' || suffix;
    columns text;
    staying jsonb;
    streams_only boolean;
    moved int8 := 0;
BEGIN
    SELECT w.kept, w.state = 'streams' INTO staying, streams_only
    FROM circuit.archive_week w
    WHERE w.lower_bound = retire_partition.lower_bound AND w.upper_bound = retire_partition.upper_bound
        AND (w.state = 'written' OR (w.state = 'streams' AND parent = 'stream_event'))
    ORDER BY w.state = 'written' DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the week % is not written out', suffix;
    END IF;
    IF to_regclass(format('circuit.%I', child)) IS NULL THEN
        RETURN 0;
    END IF;
    SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) INTO columns
    FROM pg_attribute a
    WHERE a.attrelid = format('circuit.%I', parent)::regclass AND a.attnum > 0 AND NOT a.attisdropped;
    EXECUTE format('ALTER TABLE circuit.%I DETACH PARTITION circuit.%I', parent, child);
    IF NOT streams_only AND jsonb_array_length(staying) > 0 THEN
        EXECUTE format(
            'INSERT INTO circuit.%1$I (%2$s) SELECT %3$s FROM jsonb_array_elements($1) k JOIN circuit.%4$I t'
            ' ON t.tenant_id = (k->>0)::int4 AND t.case_id = (k->>1)::uuid',
            parent, columns, (
                SELECT string_agg('t.' || quote_ident(a.attname), ', ' ORDER BY a.attnum)
                FROM pg_attribute a
                WHERE a.attrelid = format('circuit.%I', parent)::regclass AND a.attnum > 0 AND NOT a.attisdropped
            ), child
        ) USING staying;
        GET DIAGNOSTICS moved = ROW_COUNT;
    END IF;
    EXECUTE format('DROP TABLE circuit.%I', child);
    RETURN moved;
END
$$
"""


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE circuit.archive_week (
            week text NOT NULL,
            round int4 NOT NULL,
            lower_bound uuid NOT NULL,
            upper_bound uuid NOT NULL,
            state text NOT NULL,
            folder text,
            cases int8 NOT NULL DEFAULT 0,
            kept jsonb NOT NULL DEFAULT '[]',
            manifest jsonb NOT NULL DEFAULT '{}',
            started_at timestamptz NOT NULL DEFAULT now(),
            finished_at timestamptz,
            PRIMARY KEY (week, round),
            CONSTRAINT archive_week_state CHECK (state IN ('streams', 'closing', 'written', 'dropped'))
        )
        """
    )
    op.execute("ALTER TABLE circuit.archive_week ENABLE ROW LEVEL SECURITY")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON circuit.archive_week TO circuit_engine")
    op.execute("CREATE POLICY engine ON circuit.archive_week TO circuit_engine USING (true) WITH CHECK (true)")
    # What a tenant may know: that a week is being closed, so that nothing is added to it any more.
    op.execute("GRANT SELECT (lower_bound, upper_bound, state) ON circuit.archive_week TO circuit_tenant")
    op.execute("CREATE POLICY tenant ON circuit.archive_week FOR SELECT TO circuit_tenant USING (true)")
    op.execute(RETIRE)
    op.execute("REVOKE EXECUTE ON FUNCTION circuit.retire_partition FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION circuit.retire_partition TO circuit_engine")


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
