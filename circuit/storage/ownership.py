"""Which cases an incarnation owns, for a worker that cannot be sure of what it claimed last.

When a connection breaks during a claim, the claim may be committed all the same: nobody else takes these cases, and
their owner does not know of them. So a worker asks on each new connection.
"""

from __future__ import annotations

from uuid import UUID

from circuit.ids import CaseKey
from circuit.storage import rows
from circuit.storage.driver import Connection

_OWNED = """
SELECT tenant_id, case_id FROM circuit."case" WHERE owner = $1 ORDER BY tenant_id, case_id
"""


async def owned(conn: Connection, worker: UUID) -> list[CaseKey]:
    """The cases that belong to this incarnation."""
    return [rows.key(row) for row in await conn.fetch(_OWNED, worker)]
