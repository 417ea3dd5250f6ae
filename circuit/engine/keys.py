"""API keys and tenants: made, listed, revoked, and looked up when somebody shows one."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from circuit.engine.asking import check_idempotency_key, fingerprint
from circuit.engine.connecting import connected
from circuit.engine.reach import Reach
from circuit.errors import Conflict, Forbidden, InvalidRequest, NotFound, StorageError, Unauthenticated
from circuit.ids import DEFAULT_TENANT, DEPLOYMENT
from circuit.security.credentials import KEY_SUBJECT, KeyParts, digest, format_key, parse_key, same
from circuit.security.permissions import EVERY_ROLE, Permission
from circuit.security.principal import LOCAL, Principal
from circuit.storage import keys, ledger, publications, tenants
from circuit.storage.commands import OTHER_REQUEST
from circuit.storage.database import Database
from circuit.storage.ferry import Ferry
from circuit.storage.keys import KeyRow as KeyRow
from circuit.storage.publications import Publication
from circuit.storage.tenants import TenantRow

LONGEST_NAME = 100
MOST_ROLES = 50
REMEMBERED_SECONDS = 5.0
"""So long a key that was found is taken without asking the database again: so long a revoked one may live on."""
LONGEST_REMEMBERED_SECONDS = 300.0
"""So long where the database does not answer: whoever looks after the server sees its figures all the same."""
MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made. `text` is the key itself, which cannot be shown again: it is empty where the key was
    made before, by the same request."""

    row: KeyRow
    text: str


class Keys:
    """The door to credentials. `monotonic` is the clock by which what was found is forgotten again."""

    def __init__(self, database: Database, now: Callable[[], datetime], monotonic: Callable[[], float]) -> None:
        self._database = database
        self._now = now
        self._monotonic = monotonic
        self._reach = Reach(database, monotonic)
        self._unknown = Ferry(partial(_read, database), shared=True)
        self._known = Ferry(partial(_read, self._reach), shared=True)
        self._found: dict[KeyParts, tuple[float, KeyRow]] = {}
        self._revocations = 0
        self._tenants = {DEFAULT_TENANT}

    async def create(
        self,
        name: str,
        roles: Sequence[str],
        principal: Principal,
        *,
        scopes: Sequence[str] | None = None,
        lasts: timedelta | None = None,
        tenant: int | None = None,
        key: str | None = None,
    ) -> NewKey:
        """Make a key in the principal's tenant, or in `tenant` where the principal is this machine's own; with an
        idempotency `key`, at most once.

        Raises `Forbidden`, also where it would be let do more than the credential by which it is made, `InvalidRequest`
        for names, roles or scopes that cannot be, and `Conflict` for an idempotency key of another request.
        """
        principal.require(Permission.ADMINISTER)
        check_idempotency_key(key)
        where = principal.tenant if tenant is None else tenant
        if where != principal.tenant and EVERY_ROLE not in principal.roles:
            raise InvalidRequest("a key is made in the tenant of whoever makes it")
        _check(name, roles, scopes, lasts)
        if principal.scopes is not None and not (scopes is not None and principal.scopes.issuperset(scopes)):
            raise Forbidden(
                f"this credential is limited to the scopes {', '.join(sorted(principal.scopes))}: a key that it makes"
                " has some of these, and no others"
            )
        parts = KeyParts(where, _readable(10), secrets.token_urlsafe(32))
        expires_at = None if lasts is None else self._now() + lasts
        asked = {"name": name, "roles": sorted(roles), "scopes": scopes and sorted(scopes), "lasts": str(lasts)}
        kept = Publication(f"api_key:{fingerprint(key, asked)}", parts.id, "")
        async with self._database.transaction(where) as connection:
            if await tenants.find(connection, where) is None:
                raise NotFound(f"there is no tenant {where}; `circuit tenants list` names them")
            if key is not None and not await publications.keep(connection, where, key, kept):
                before = await publications.find(connection, where, key)
                if before is None or before.request != kept.request:
                    raise Conflict(OTHER_REQUEST)
                row = await keys.find(connection, where, before.id)
                assert row is not None, "a key is revoked, and its row stays"
                return NewKey(row, "")
            row = await keys.create(
                connection,
                where,
                parts.id,
                name=name,
                digest=digest(parts.secret),
                roles=roles,
                scopes=scopes,
                created_by=principal.subject,
                expires_at=expires_at,
            )
            await ledger.note(connection, principal, "key.create", row.id, tenant=where, name=name, roles=sorted(roles))
        return NewKey(row, format_key(parts))

    async def listed(
        self, principal: Principal, tenant: int | None = None, *, limit: int | None = None, after: str | None = None
    ) -> list[KeyRow]:
        """The keys of the principal's tenant, or of `tenant`, the newest first, revoked ones too: all of them, or so
        many behind the one of the id `after`."""
        principal.require(Permission.ADMINISTER)
        where = self._tenant(principal, tenant)
        async with self._database.transaction(where) as connection:
            return await keys.listed(connection, where, limit, after)

    async def revoke(self, key_id: str, principal: Principal, tenant: int | None = None) -> KeyRow:
        """End a key for good. Processes that know it take it for `REMEMBERED_SECONDS` more. Raises `NotFound`."""
        principal.require(Permission.ADMINISTER)
        where = self._tenant(principal, tenant)
        async with self._database.transaction(where) as connection:
            row = await keys.revoke(connection, where, key_id)
            if row is not None:
                await ledger.note(connection, principal, "key.revoke", key_id, tenant=where, name=row.name)
        if row is None:
            raise NotFound(f"there is no key {key_id[:LONGEST_NAME]!r}; `circuit keys list` names them")
        self._found = {parts: kept for parts, kept in self._found.items() if parts.id != key_id}
        self._revocations += 1
        return row

    async def principal(self, text: str) -> Principal:
        """Whom the key `text` speaks for. Raises `Unauthenticated`."""
        parts = parse_key(text)
        row = None if parts is None else await self._look_up(parts)
        if parts is None or row is None or not row.holds(self._now()) or not same(parts.secret, row.digest):
            raise Unauthenticated(
                "this API key does not hold: it is unknown, revoked or expired", key=None if parts is None else parts.id
            )
        scopes = None if row.scopes is None else frozenset(row.scopes)
        return Principal(f"{KEY_SUBJECT}{row.name}", row.tenant, frozenset(row.roles) - {EVERY_ROLE}, scopes)

    async def require_tenant(self, number: int) -> None:
        """Raise `Unauthenticated` where no tenant has this number: whatever were written there would be found by the
        one that gets it."""
        if number in self._tenants:
            return
        async with self._database.transaction(number) as connection:
            if await tenants.find(connection, number) is None:
                raise Unauthenticated(f"the token's `tenant`, {number}, does not exist", guessed=False)
        self._tenants.add(number)

    async def any(self) -> bool:
        """Whether there is a key that holds, in any tenant."""
        async with connected(self._database) as connection:
            return await keys.any_holds(connection)

    async def create_tenant(self, name: str, principal: Principal = LOCAL) -> TenantRow:
        """Make a tenant. Raises `InvalidRequest`, `Conflict` and `Forbidden`."""
        principal.require(Permission.ADMINISTER)
        if not name or len(name) > LONGEST_NAME or not name.isprintable():
            raise InvalidRequest(f"a tenant's name has 1 to {LONGEST_NAME} printable characters")
        async with connected(self._database) as connection:
            async with connection.transaction(isolation="read_committed"):
                made = await tenants.create(connection, name)
                await ledger.enter(connection, principal, "tenant.create", made.id, tenant=DEPLOYMENT, name=name)
            return made

    async def tenants(self) -> list[TenantRow]:
        """All tenants, by number."""
        async with connected(self._database) as connection:
            return await tenants.listed(connection)

    def _tenant(self, principal: Principal, tenant: int | None) -> int:
        if tenant is None or tenant == principal.tenant or EVERY_ROLE in principal.roles:
            return principal.tenant if tenant is None else tenant
        raise NotFound(f"there is no tenant {tenant} that is yours")

    async def _look_up(self, parts: KeyParts) -> KeyRow | None:
        now, revocations = self._monotonic(), self._revocations
        kept = self._found.get(parts)
        if kept is None or now - kept[0] >= LONGEST_REMEMBERED_SECONDS:
            row = await self._unknown.take(parts.tenant, parts.id)
        elif now - kept[0] < REMEMBERED_SECONDS or self._reach.lost:
            return kept[1]
        else:
            try:
                row = await self._known.take(parts.tenant, parts.id)
            except (StorageError, TimeoutError):
                return kept[1]  # said where it is found
        # What was read while some key was revoked may be that one, as it was before.
        if row is not None and same(parts.secret, row.digest) and revocations == self._revocations:
            if len(self._found) >= MOST_REMEMBERED:
                self._found.clear()
            self._found[parts] = (now, row)
        return row


async def _read(database: Database | Reach, tenant: int, ids: Sequence[str]) -> Sequence[KeyRow | None]:
    async with database.transaction(tenant) as connection:
        found = await keys.find_all(connection, tenant, ids)
    return [found.get(key_id) for key_id in ids]


def _check(name: str, roles: Sequence[str], scopes: Sequence[str] | None, lasts: timedelta | None) -> None:
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise InvalidRequest(f"a key's name has 1 to {LONGEST_NAME} printable characters")
    if not roles or len(roles) > MOST_ROLES:
        raise InvalidRequest(f"a key has 1 to {MOST_ROLES} roles: viewer, operator, editor, admin, or a workflow's own")
    for role in roles:
        if role == EVERY_ROLE or not role or len(role) > LONGEST_NAME or not role.isprintable():
            raise InvalidRequest(f"{role[:LONGEST_NAME]!r} is no role that a key can have")
    for scope in scopes or ():
        if scope not in set(Permission):
            raise InvalidRequest(f"there is no scope {scope[:LONGEST_NAME]!r}; there are {', '.join(Permission)}")
    if lasts is not None and lasts <= timedelta(0):
        raise InvalidRequest("a key must last for some time")


def _readable(count: int) -> str:
    return base64.b32encode(secrets.token_bytes(count)).decode().rstrip("=").lower()
