"""API keys (under a tenant's row security): only a digest of each is here."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Row, func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.storage.driver import Connection
from circuit.storage.tables import api_key

_ANY = """
SELECT EXISTS (
    SELECT FROM circuit.api_key WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
)
"""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One key. `digest` is of its secret; `scopes` None means that its roles alone limit it."""

    tenant: int
    id: str
    name: str
    digest: bytes
    roles: tuple[str, ...]
    scopes: tuple[str, ...] | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None

    def holds(self, now: datetime) -> bool:
        """Whether the key lets anybody in at `now`."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


async def create(
    connection: AsyncConnection,
    tenant: int,
    key_id: str,
    *,
    name: str,
    digest: bytes,
    roles: Sequence[str],
    scopes: Sequence[str] | None,
    created_by: str,
    expires_at: datetime | None,
) -> KeyRow:
    """Enter a new key."""
    values = {
        "tenant_id": tenant,
        "key_id": key_id,
        "name": name,
        "digest": digest,
        "roles": sorted(roles),
        "scopes": None if scopes is None else sorted(scopes),
        "created_by": created_by,
        "expires_at": expires_at,
    }
    return _key((await connection.execute(insert(api_key).values(values).returning(*api_key.c))).one())


async def find(connection: AsyncConnection, tenant: int, key_id: str) -> KeyRow | None:
    """A key, whether it still holds or not."""
    return (await find_all(connection, tenant, [key_id])).get(key_id)


async def find_all(connection: AsyncConnection, tenant: int, ids: Collection[str]) -> dict[str, KeyRow]:
    """Those of these keys that there are, by their ids."""
    found = await connection.execute(select(*api_key.c).where(api_key.c.tenant_id == tenant, api_key.c.key_id.in_(ids)))
    return {row.id: row for row in map(_key, found)}


async def listed(
    connection: AsyncConnection, tenant: int, limit: int | None = None, after: str | None = None
) -> list[KeyRow]:
    """The keys of a tenant, the newest first: all of them, or so many behind the one of the id `after`."""
    place = tuple_(api_key.c.created_at, api_key.c.key_id)
    query = select(*api_key.c).where(api_key.c.tenant_id == tenant)
    if after is not None:
        known = select(api_key.c.created_at, api_key.c.key_id)
        known = known.where(api_key.c.tenant_id == tenant, api_key.c.key_id == after)
        query = query.where(place < known.scalar_subquery())
    query = query.order_by(api_key.c.created_at.desc(), api_key.c.key_id.desc()).limit(limit)
    return [_key(row) for row in await connection.execute(query)]


async def revoke(connection: AsyncConnection, tenant: int, key_id: str) -> KeyRow | None:
    """End a key for good; None if there is no such key. Twice is fine: the first time counts."""
    await connection.execute(
        update(api_key)
        .where(api_key.c.tenant_id == tenant, api_key.c.key_id == key_id, api_key.c.revoked_at.is_(None))
        .values(revoked_at=func.now())
    )
    return await find(connection, tenant, key_id)


async def any_holds(connection: Connection) -> bool:
    """Whether any key of any tenant holds (under the engine's role)."""
    return await connection.fetchval(_ANY)


def _key(row: Row[tuple[object, ...]]) -> KeyRow:
    values = row._mapping  # pyright: ignore[reportPrivateUsage]
    return KeyRow(
        tenant=values["tenant_id"],
        id=values["key_id"],
        name=values["name"],
        digest=values["digest"],
        roles=tuple(values["roles"]),
        scopes=None if values["scopes"] is None else tuple(values["scopes"]),
        created_at=values["created_at"],
        created_by=values["created_by"],
        expires_at=values["expires_at"],
        revoked_at=values["revoked_at"],
    )
