"""Functions that write what is left of a week's streams anew.

Revision ID: 0039
"""

from __future__ import annotations

from alembic import op

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None

# Only the owner of a table can take its partitions out; so these run with the rights of the tables' owner. Which week
# it is they read themselves. A copy is no partition, so nobody reads it.
STATEMENTS = (
    """
    CREATE FUNCTION circuit.forget_stream_copies() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DECLARE
        copied name;
    BEGIN
        FOR copied IN
            SELECT c.relname FROM pg_class c
            WHERE c.relnamespace = 'circuit'::regnamespace AND c.relkind = 'r' AND NOT c.relispartition
                AND c.relname ~ '^stream_event_[0-9]{4}w[0-9]{2}_packed$'
        LOOP
            EXECUTE format('DROP TABLE circuit.%I', copied);
        END LOOP;
    END
    $$
    """,
    """
    CREATE FUNCTION circuit.copy_streams(suffix text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DECLARE
        child text := 'stream_event_' || suffix;
        copied text := child || '_packed';
        week record;
        columns text;
        options text;
    BEGIN
        SELECT w.lower_bound, w.upper_bound INTO week FROM circuit.stream_compaction w WHERE w.week = suffix;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the streams of week % are not compacted', suffix;
        END IF;
        SELECT array_to_string(c.reloptions, ', ') INTO options
        FROM pg_class c WHERE c.oid = to_regclass(format('circuit.%I', child)) AND c.relispartition;
        IF NOT FOUND THEN
            RETURN false;
        END IF;
        SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) INTO columns
        FROM pg_attribute a
        WHERE a.attrelid = 'circuit.stream_event'::regclass AND a.attnum > 0 AND NOT a.attisdropped;
        EXECUTE format(
            'CREATE TABLE circuit.%I (LIKE circuit.stream_event INCLUDING ALL) WITH (%s)',
            copied, coalesce(options, 'fillfactor = 100')
        );
        EXECUTE format(
            'INSERT INTO circuit.%1$I (%2$s) SELECT %2$s FROM circuit.%3$I'
            ' ORDER BY tenant_id, case_id, firing, start, seq',
            copied, columns, child
        );
        -- So that the exchange does not read it.
        EXECUTE format(
            'ALTER TABLE circuit.%I ADD CONSTRAINT of_the_week CHECK (case_id >= %L AND case_id < %L)',
            copied, week.lower_bound, week.upper_bound
        );
        RETURN true;
    END
    $$
    """,
    """
    CREATE FUNCTION circuit.exchange_streams(suffix text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
    DECLARE
        child text := 'stream_event_' || suffix;
        copied text := child || '_packed';
        week record;
        old_index name;
        new_index name;
    BEGIN
        SELECT w.lower_bound, w.upper_bound INTO week FROM circuit.stream_compaction w WHERE w.week = suffix;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the streams of week % are not compacted', suffix;
        END IF;
        EXECUTE format('ALTER TABLE circuit.stream_event DETACH PARTITION circuit.%I', child);
        SELECT c.relname INTO STRICT old_index
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE i.indrelid = format('circuit.%I', child)::regclass AND i.indisprimary;
        SELECT c.relname INTO STRICT new_index
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE i.indrelid = format('circuit.%I', copied)::regclass AND i.indisprimary;
        EXECUTE format('DROP TABLE circuit.%I', child);
        EXECUTE format('ALTER TABLE circuit.%I RENAME TO %I', copied, child);
        EXECUTE format('ALTER INDEX circuit.%I RENAME TO %I', new_index, old_index);
        EXECUTE format(
            'ALTER TABLE circuit.stream_event ATTACH PARTITION circuit.%I FOR VALUES FROM (%L) TO (%L)',
            child, week.lower_bound, week.upper_bound
        );
        EXECUTE format('ALTER TABLE circuit.%I DROP CONSTRAINT of_the_week', child);
    END
    $$
    """,
    *(
        statement
        for name in ("forget_stream_copies()", "copy_streams(text)", "exchange_streams(text)")
        for statement in (
            f"REVOKE EXECUTE ON FUNCTION circuit.{name} FROM PUBLIC",
            f"GRANT EXECUTE ON FUNCTION circuit.{name} TO circuit_engine",
        )
    ),
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
