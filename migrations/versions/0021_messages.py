"""Messages from outside: what was sent, what cases wait for, and which workflows a message starts."""

from __future__ import annotations

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

THIS_TENANT = "tenant_id = nullif(current_setting('circuit.tenant', true), '')::int4"

STATEMENTS = (
    """
    CREATE TABLE circuit.sent_message (
        tenant_id int4 NOT NULL,
        message_id uuid NOT NULL,
        name text NOT NULL,
        key text NOT NULL,
        delivery_id text NOT NULL,
        data jsonb NOT NULL,
        principal jsonb NOT NULL,
        state text NOT NULL DEFAULT 'new',
        sent_at timestamptz NOT NULL DEFAULT now(),
        due_at timestamptz NOT NULL DEFAULT now(),
        expires_at timestamptz NOT NULL,
        tries int4 NOT NULL DEFAULT 0,
        case_id uuid,
        command_id uuid,
        error jsonb,
        PRIMARY KEY (tenant_id, message_id),
        CONSTRAINT sent_message_delivery UNIQUE (tenant_id, name, delivery_id),
        CONSTRAINT sent_message_state
            CHECK (state IN ('new', 'kept', 'assigned', 'delivered', 'refused', 'expired'))
    )
    """,
    "CREATE INDEX sent_message_open ON circuit.sent_message (tenant_id, name, key, message_id)"
    " WHERE state IN ('new', 'kept')",
    "CREATE INDEX sent_message_new ON circuit.sent_message (due_at) WHERE state = 'new'",
    "CREATE INDEX sent_message_assigned ON circuit.sent_message (tenant_id, case_id) WHERE state = 'assigned'",
    "CREATE INDEX sent_message_expiry ON circuit.sent_message (expires_at)",
    """
    CREATE TABLE circuit.awaited_message (
        tenant_id int4 NOT NULL,
        case_id uuid NOT NULL,
        transition text NOT NULL,
        name text NOT NULL,
        key text NOT NULL,
        since timestamptz NOT NULL DEFAULT now(),
        sought boolean NOT NULL DEFAULT false,
        PRIMARY KEY (tenant_id, case_id, transition, name, key)
    )
    """,
    "CREATE INDEX awaited_message_found ON circuit.awaited_message (tenant_id, name, key, since, case_id)",
    "CREATE INDEX awaited_message_unsought ON circuit.awaited_message (since) WHERE NOT sought",
    "ALTER TABLE circuit.workflow ADD COLUMN starts_on text",
    "GRANT INSERT (starts_on), UPDATE (starts_on) ON circuit.workflow TO circuit_tenant",
)
RIGHTS = {
    "sent_message": "SELECT, INSERT (tenant_id, message_id, name, key, delivery_id, data, principal, state, expires_at,"
    " case_id)",
    "awaited_message": "SELECT",
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


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
