"""Answers of models that identical requests share, until their time is over.

Revision ID: 0016
"""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

THIS_TENANT = "tenant_id = nullif(current_setting('circuit.tenant', true), '')::int4"


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE circuit.cached_answer (
            tenant_id int4 NOT NULL,
            digest bytea NOT NULL,
            answer json NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            expires_at timestamptz NOT NULL,
            PRIMARY KEY (tenant_id, digest)
        )
        """
    )
    op.execute("CREATE INDEX cached_answer_expired ON circuit.cached_answer (expires_at)")
    op.execute("ALTER TABLE circuit.cached_answer ENABLE ROW LEVEL SECURITY")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON circuit.cached_answer TO circuit_engine")
    op.execute("CREATE POLICY engine ON circuit.cached_answer TO circuit_engine USING (true) WITH CHECK (true)")
    op.execute(
        "GRANT SELECT, INSERT (tenant_id, digest, answer, expires_at), UPDATE (answer, created_at, expires_at)"
        " ON circuit.cached_answer TO circuit_tenant"
    )
    op.execute(
        "CREATE POLICY tenant ON circuit.cached_answer TO circuit_tenant"
        f" USING ({THIS_TENANT}) WITH CHECK ({THIS_TENANT})"
    )


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
