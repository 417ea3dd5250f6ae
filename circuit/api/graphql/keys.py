"""API keys: made, listed and revoked by administrators."""

from __future__ import annotations

from datetime import datetime, timedelta

import strawberry

from circuit.api.graphql.context import Resolving
from circuit.api.graphql.paging import DEFAULT_PAGE, page
from circuit.engine import keys
from circuit.errors import Conflict, InvalidRequest

LONGEST_LIFE_SECONDS = 100 * 365 * 86_400


@strawberry.type(description="An API key. What it is made of is not here: only a digest of it is kept.")
class ApiKey:
    id: str = strawberry.field(description="Give it as `after` to go on with older keys, and to `revokeApiKey`.")
    name: str
    roles: list[str]
    scopes: list[str] | None = strawberry.field(description="Null: its roles alone limit it.")
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None

    @classmethod
    def of(cls, row: keys.KeyRow) -> ApiKey:
        return cls(
            id=row.id,
            name=row.name,
            roles=list(row.roles),
            scopes=None if row.scopes is None else list(row.scopes),
            created_at=row.created_at,
            created_by=row.created_by,
            expires_at=row.expires_at,
            revoked_at=row.revoked_at,
        )


@strawberry.type(description="An API key that was made.")
class CreatedApiKey:
    api_key: ApiKey
    text: str | None = strawberry.field(
        description="The key itself, to be sent as `Authorization: Bearer`. It is shown this once: asked again with the"
        " same `idempotencyKey`, it is null."
    )


@strawberry.type
class KeyQueries:
    @strawberry.field(
        description="The API keys of the tenant, the newest first, revoked ones too. It takes the permission to "
        "administer. `after` is the `id` of the last one that is known."
    )
    async def api_keys(self, info: Resolving, first: int = DEFAULT_PAGE, after: str | None = None) -> list[ApiKey]:
        found = await _door(info).listed(info.context.principal, limit=page(first), after=after)
        return [ApiKey.of(row) for row in found]


@strawberry.type
class KeyMutations:
    @strawberry.mutation(
        description="Make an API key of the tenant. It takes the permission to administer, and gives no more than"
        " whoever makes it has: a credential that is limited to scopes makes keys with some of these. Without"
        " `lifetimeSeconds` it holds until it is revoked."
    )
    async def create_api_key(
        self,
        info: Resolving,
        name: str,
        roles: list[str],
        scopes: list[str] | None = None,
        lifetime_seconds: float | None = None,
        idempotency_key: str | None = None,
    ) -> CreatedApiKey:
        if lifetime_seconds is not None and not 0 < lifetime_seconds <= LONGEST_LIFE_SECONDS:
            raise InvalidRequest(f"`lifetimeSeconds` is more than 0, and {LONGEST_LIFE_SECONDS} at most")
        lasts = None if lifetime_seconds is None else timedelta(seconds=lifetime_seconds)
        made = await _door(info).create(
            name, roles, info.context.principal, scopes=scopes, lasts=lasts, key=idempotency_key
        )
        return CreatedApiKey(api_key=ApiKey.of(made.row), text=made.text or None)

    @strawberry.mutation(
        description="End an API key for good. Servers that know it take it for five seconds more. It takes the"
        " permission to administer."
    )
    async def revoke_api_key(self, info: Resolving, id: str) -> ApiKey:  # noqa: A002
        return ApiKey.of(await _door(info).revoke(id, info.context.principal))


def _door(info: Resolving) -> keys.Keys:
    door = info.context.services.keys
    if door is None:
        raise Conflict("this server has no API keys")
    return door
