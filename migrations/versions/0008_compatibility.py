"""Which older releases may work on this database beside this one.

`floor` is a revision: every release that knows it can work here. A migration that only adds leaves it alone; the one
that takes something away, a release later, raises it to the revision from which on nobody uses what it takes.

Revision ID: 0008
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE TABLE circuit.compatibility (floor text NOT NULL, PRIMARY KEY (floor))")
    op.execute("INSERT INTO circuit.compatibility (floor) VALUES ('0001')")
    op.execute("ALTER TABLE circuit.compatibility ENABLE ROW LEVEL SECURITY")
    for policy, role in (("engine", "circuit_engine"), ("tenant", "circuit_tenant")):
        op.execute(f"GRANT SELECT ON circuit.compatibility TO {role}")
        op.execute(f"CREATE POLICY {policy} ON circuit.compatibility FOR SELECT TO {role} USING (true)")


def downgrade() -> None:
    raise NotImplementedError("Circuit does not migrate backwards: restore a backup, or keep the newer release.")
