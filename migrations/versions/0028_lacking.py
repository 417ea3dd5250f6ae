"""What each living worker lacks of what a case needs, for whoever waits for the case.

Revision ID: 0028
"""

from __future__ import annotations

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

STATEMENTS = (
    # A tenant is told what workers lack of its own needs, and nothing else of what they can run. A worker that takes
    # cases of this bucket lacks nothing.
    """
    CREATE FUNCTION circuit.lacking(wanted int2) RETURNS TABLE (worker_id uuid, lacks jsonb)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        SELECT w.id, coalesce((
            SELECT jsonb_object_agg(asked.kind, asked.names)
            FROM (
                SELECT r.key AS kind, jsonb_agg(n.name ORDER BY n.name) AS names
                FROM jsonb_each(b.requires) r, jsonb_array_elements_text(r.value) AS n(name)
                WHERE w.capabilities <> '{}'::jsonb AND NOT coalesce(w.capabilities -> r.key, '[]') ? n.name
                GROUP BY r.key
            ) asked
        ), '{}')
        FROM circuit.bucket b
        CROSS JOIN circuit.worker w JOIN circuit.worker_lease l ON l.worker_id = w.id
        WHERE b.bucket = wanted AND NOT w.fenced AND l.expires_at > now()
        ORDER BY w.started_at, w.id
    $$
    """,
    "REVOKE EXECUTE ON FUNCTION circuit.lacking FROM PUBLIC",
    "GRANT EXECUTE ON FUNCTION circuit.lacking TO circuit_tenant, circuit_engine",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
