"""Whom cases are about, so that what is personal is found, exported and erased.

Revision ID: 0033
"""

from __future__ import annotations

from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

THIS_TENANT = "tenant_id = nullif(current_setting('circuit.tenant', true), '')::int4"

STATEMENTS = (
    """
    CREATE TABLE circuit.case_subject (
        tenant_id int4 NOT NULL,
        subject bytea NOT NULL,
        case_id uuid NOT NULL,
        added_at timestamptz NOT NULL DEFAULT now(),
        added_by text NOT NULL,
        erased_at timestamptz,
        PRIMARY KEY (tenant_id, subject, case_id)
    )
    """,
    "CREATE INDEX case_subject_case ON circuit.case_subject (tenant_id, case_id)",
    "ALTER TABLE circuit.case_subject ENABLE ROW LEVEL SECURITY",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON circuit.case_subject TO circuit_engine",
    "CREATE POLICY engine ON circuit.case_subject TO circuit_engine USING (true) WITH CHECK (true)",
    "GRANT SELECT, INSERT (tenant_id, subject, case_id, added_by) ON circuit.case_subject TO circuit_tenant",
    f"CREATE POLICY tenant ON circuit.case_subject TO circuit_tenant USING ({THIS_TENANT}) WITH CHECK ({THIS_TENANT})",
    # Feedback never changes, but that its words are erased.
    """
    CREATE OR REPLACE FUNCTION circuit.refuse_change() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
        IF TG_TABLE_NAME LIKE 'feedback%' AND to_jsonb(OLD) - 'comment' = to_jsonb(NEW) - 'comment'
            AND NEW.comment ~ '^\\[erased sha256:[0-9a-f]{64}\\]$'
        THEN
            RETURN NEW;
        END IF;
        RAISE EXCEPTION USING ERRCODE = 'CT001', MESSAGE = format('%s never changes', TG_ARGV[0]);
    END
    $$
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
