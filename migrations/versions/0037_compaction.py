"""Streams that are compacted: what a merged frame holds, and how far the weeks have come.

Revision ID: 0037
"""

from __future__ import annotations

from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None

STATEMENTS = (
    "ALTER TABLE circuit.stream_event ADD COLUMN first_seq int4, ADD COLUMN lengths json",
    """
    CREATE TABLE circuit.stream_compaction (
        week text PRIMARY KEY,
        lower_bound uuid NOT NULL,
        upper_bound uuid NOT NULL,
        done_before timestamptz,
        cutoff timestamptz,
        at_tenant int4 NOT NULL DEFAULT 0,
        at_case uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
        at_firing int4 NOT NULL DEFAULT 0,
        settled boolean NOT NULL DEFAULT false,
        executions int8 NOT NULL DEFAULT 0,
        frames int8 NOT NULL DEFAULT 0,
        bytes int8 NOT NULL DEFAULT 0,
        updated_at timestamptz NOT NULL DEFAULT now()
    ) WITH (fillfactor = 50)
    """,
    "ALTER TABLE circuit.stream_compaction ENABLE ROW LEVEL SECURITY",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON circuit.stream_compaction TO circuit_engine",
    "CREATE POLICY engine ON circuit.stream_compaction TO circuit_engine USING (true) WITH CHECK (true)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
