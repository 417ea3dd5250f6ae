"""What was published with an idempotency key; and workflows that nobody has cases of may be deleted."""

from __future__ import annotations

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

THIS_TENANT = "tenant_id = nullif(current_setting('circuit.tenant', true), '')::int4"

STATEMENTS = (
    """
    CREATE TABLE circuit.publication (
        tenant_id int4 NOT NULL,
        key text NOT NULL,
        request text NOT NULL,
        id text NOT NULL,
        hash text NOT NULL,
        at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant_id, key)
    )
    """,
    "ALTER TABLE circuit.publication ENABLE ROW LEVEL SECURITY",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON circuit.publication TO circuit_engine",
    "CREATE POLICY engine ON circuit.publication TO circuit_engine USING (true) WITH CHECK (true)",
    "GRANT SELECT, INSERT (tenant_id, key, request, id, hash) ON circuit.publication TO circuit_tenant",
    f"CREATE POLICY tenant ON circuit.publication TO circuit_tenant USING ({THIS_TENANT}) WITH CHECK ({THIS_TENANT})",
    # The pointer alone: versions stay, for the cases that ran them.
    "GRANT DELETE ON circuit.workflow TO circuit_tenant",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
