"""What the processes claim of the limits of providers: a document for each limit, put in place of what was read.

Runs under the engine's role. Who puts a document names the version that it was made of; where another was faster it is
not put, and who wanted that looks again. So no statement waits for another process, whatever became of that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from circuit.storage.driver import Connection


class Claims(NamedTuple):
    """The claims to one limit, by process, and the version that they are of."""

    version: int
    by_process: Mapping[str, Any]


NOBODY = Claims(0, {})

_LOOK = """
SELECT extract(epoch FROM clock_timestamp())::float8 AS now, r.name, r.version, r.claims::text AS claims
FROM (SELECT) AS once LEFT JOIN circuit.provider_ration r ON r.name = ANY($1::text[])
"""
_PUT = """
INSERT INTO circuit.provider_ration AS r (name, version, claims)
SELECT name, version + 1, claims::jsonb FROM unnest($1::text[], $2::int8[], $3::text[]) AS i(name, version, claims)
ORDER BY name
ON CONFLICT (name) DO UPDATE SET version = excluded.version, claims = excluded.claims, changed_at = clock_timestamp()
WHERE r.version = excluded.version - 1
RETURNING r.name
"""
_SWEEP = "DELETE FROM circuit.provider_ration WHERE changed_at < clock_timestamp() - interval '1 hour'"


async def look(conn: Connection, names: Sequence[str]) -> tuple[float, dict[str, Claims]]:
    """The present instant of the database, in seconds, and the claims to these limits."""
    rows = await conn.fetch(_LOOK, names)
    found = {
        row["name"]: Claims(row["version"], orjson.loads(row["claims"])) for row in rows if row["name"] is not None
    }
    return rows[0]["now"], found


async def put(conn: Connection, made: Mapping[str, Claims]) -> set[str]:
    """Put claims that were made of those of the version that they name. Returns the limits of which it was the
    newest."""
    rows = await conn.fetch(
        _PUT,
        list(made),
        [claims.version for claims in made.values()],
        [orjson.dumps(claims.by_process).decode() for claims in made.values()],
    )
    return {row["name"] for row in rows}


async def sweep(conn: Connection) -> None:
    """Forget the limits that nobody has claimed anything of for long."""
    await conn.execute(_SWEEP)
