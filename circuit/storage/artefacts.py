"""Artefacts: large values that rows refer to by their hash (`circuit.storage.payloads` says how a row does).

They belong to a tenant, and none is shared between tenants: else a hash would tell that somebody else has the same.
Whatever a case ever referred to it `uses`, until it leaves the database; what no case uses is collected.

**Locks.** Who refers to an artefact that is there holds it FOR KEY SHARE until that is committed. Who collects locks it
first, FOR UPDATE, and looks once more, in a second statement with a later snapshot, whether it is used. So whoever
comes first, an artefact that a committed row refers to is there.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import Integer, RowMapping, SmallInteger, Text, bindparam, cast, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from circuit.errors import ArtefactLost
from circuit.ids import CaseKey
from circuit.storage import payloads, tables
from circuit.storage.driver import Connection, Record
from circuit.storage.payloads import MARK, Artefact, Shape
from circuit.storage.shelf import FEATURE

PAYLOADS = ("data", "metadata", "body", "request", "awaits", "value", "parts")
"""The columns of rows that may refer to artefacts."""
COLLECTED_AT_ONCE = 500

_CONTENT = """
SELECT a.tenant_id, a.hash, a.content FROM unnest($1::int4[], $2::text[]) AS i(tenant_id, hash)
JOIN circuit.artefact a ON a.tenant_id = i.tenant_id AND a.hash = i.hash
"""
_PUT = text(
    """
    WITH known AS MATERIALIZED (
        SELECT a.hash FROM circuit.artefact a WHERE a.tenant_id = :tenant AND a.hash = ANY (:hashes) FOR KEY SHARE
    )
    INSERT INTO circuit.artefact (tenant_id, hash, size, content)
    SELECT :tenant, i.hash, i.size, i.content::json
    FROM unnest(:hashes, :sizes, :contents) AS i(hash, size, content)
    WHERE NOT EXISTS (SELECT FROM known k WHERE k.hash = i.hash)
    ORDER BY i.hash
    ON CONFLICT (tenant_id, hash) DO UPDATE SET put_at = now()
    """
).bindparams(
    bindparam("tenant", type_=Integer),
    bindparam("hashes", type_=ARRAY(Text)),
    bindparam("sizes", type_=ARRAY(Integer)),
    bindparam("contents", type_=ARRAY(Text)),
)
_UNUSED = """
SELECT a.tenant_id, a.hash FROM circuit.artefact a
WHERE (a.tenant_id, a.hash) > ($1, $2) AND NOT EXISTS (
    SELECT FROM circuit.artefact_use u WHERE u.tenant_id = a.tenant_id AND u.hash = a.hash
)
ORDER BY a.tenant_id, a.hash LIMIT $3 FOR UPDATE OF a SKIP LOCKED
"""
_LET_GO = "DELETE FROM circuit.artefact_use u WHERE u.tenant_id = $1 AND u.case_id = $2 RETURNING u.hash"
_LOCK = "SELECT FROM circuit.artefact a WHERE a.tenant_id = $1 AND a.hash = ANY($2::text[]) ORDER BY a.hash FOR UPDATE"
_COLLECT = """
DELETE FROM circuit.artefact a USING unnest($1::int4[], $2::text[]) AS i(tenant_id, hash)
WHERE a.tenant_id = i.tenant_id AND a.hash = i.hash AND NOT EXISTS (
    SELECT FROM circuit.artefact_use u WHERE u.tenant_id = a.tenant_id AND u.hash = a.hash
)
RETURNING a.size
"""

Contents = Mapping[tuple[int, str], str]


class Resolved(dict[str, Any]):
    """A row with its values, which referred to `hashes`. To ask for one that is lost raises `ArtefactLost`, so that it
    spoils no other row."""

    hashes: Sequence[str] = ()

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        if isinstance(value, ArtefactLost):
            raise value
        return value


# -- reading ----------------------------------------------------------------------------------------------------------


async def resolved(
    conn: AsyncConnection, tenant: int, found: Iterable[Mapping[str, Any] | RowMapping]
) -> Sequence[Mapping[str, Any]]:
    """These rows of a tenant, with the values of what they refer to: one statement more, and none where there is
    nothing. Where one is lost, asking for it raises `ArtefactLost`."""
    rows: list[Any] = list(found)
    if not rows:
        return rows
    columns = [name for name in PAYLOADS if name in rows[0]]
    some: dict[int, dict[str, Any]] = {}
    wanted: dict[str, None] = {}
    for place, row in enumerate(rows):
        for name in columns:
            value = row[name]
            # A statement that is text gives JSON as text; what a step returned may be text itself.
            if type(value) is str and name != "value" and MARK in value:
                value = orjson.loads(value)
            if payloads.marked(value):
                some.setdefault(place, {})[name] = value
                wanted |= {one[0]: None for one in payloads.references(value)}
    if not some:
        return rows
    contents: dict[tuple[int, str], str] = {}
    if wanted:
        table = tables.artefact.c
        # As text: each place gets a value of its own.
        query = select(table.hash, cast(table.content, Text)).where(
            table.tenant_id == tenant, table.hash.in_(list(wanted))
        )
        contents = {(tenant, name): content for name, content in await conn.execute(query)}
    for place, values in some.items():
        rows[place] = _resolved({**rows[place], **values}, list(values), tenant, contents)
    return rows


async def read(conn: Connection, found: Sequence[Record], *columns: str) -> Sequence[Any]:
    """These rows, as the driver gives them, with the values of what they refer to in `columns`. Where one is lost,
    asking for it raises `ArtefactLost`."""
    wanted: dict[tuple[int, str], None] = {}
    some: dict[int, dict[str, Any]] = {}
    for place, row in enumerate(found):
        for name in columns:
            value = row[name]
            if value is not None and MARK in value:
                decoded = orjson.loads(value)
                if payloads.marked(decoded):
                    some.setdefault(place, {})[name] = decoded
                    wanted |= {(row["tenant_id"], one[0]): None for one in payloads.references(decoded)}
    if not some:
        return found
    rows: list[Any] = list(found)
    given = await conn.fetch(_CONTENT, [tenant for tenant, _ in wanted], [name for _, name in wanted])
    contents = {(row["tenant_id"], row["hash"]): row["content"] for row in given}
    for place, values in some.items():
        row: Any = found[place]
        rows[place] = _resolved({**dict(row), **values}, list(values), row["tenant_id"], contents)
    return rows


async def whole(conn: Connection, tenant: int, found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a tenant as JSON has them, with the values of what they refer to. What refers to one that is lost stays
    as it is."""
    marked = [(row, name) for row in found for name in PAYLOADS if payloads.marked(row.get(name))]
    wanted = sorted({one[0] for row, name in marked for one in payloads.references(row[name])})
    given = await conn.fetch(_CONTENT, [tenant] * len(wanted), wanted) if wanted else []
    return whole_rows(found, {row["hash"]: orjson.loads(row["content"]) for row in given})


def whole_rows(found: Sequence[Mapping[str, Any]], contents: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`whole`, of rows whose artefacts are known by their hashes."""
    filled: list[dict[str, Any]] = []
    for row in found:
        copied = dict(row)
        for name in PAYLOADS:
            if payloads.marked(row.get(name)) and all(one[0] in contents for one in payloads.references(row[name])):
                copied[name] = payloads.filled(copy.deepcopy(row[name]), contents.__getitem__)
        filled.append(copied)
    return filled


def value(row: Record) -> Any:
    """What a row of the journal holds that was `read`."""
    return row["value"] if isinstance(row, Resolved) else orjson.loads(row["value"])


def hashes(row: Any) -> Sequence[str]:
    """What a row that was `read` referred to."""
    return row.hashes if isinstance(row, Resolved) else ()


def _resolved(row: dict[str, Any], columns: Sequence[str], tenant: int, contents: Contents) -> Resolved:
    def content(name: str) -> Any:
        return orjson.loads(contents[tenant, name])

    referred = [one[0] for name in columns for one in payloads.references(row[name])]
    for name in columns:
        try:
            row[name] = payloads.filled(row[name], content)
        except KeyError as missing:
            row[name] = lost(missing.args[0][1])
    whole = Resolved(row)
    whole.hashes = referred
    return whole


def lost(name: str) -> ArtefactLost:
    """The error for an artefact that is not there."""
    return ArtefactLost(
        f"the artefact {name[:12]} is not in the database any more, so what refers to it cannot be read: restore it"
        " from a backup; `circuit fsck` lists what refers to it"
    )


# -- writing ----------------------------------------------------------------------------------------------------------


class Placed(NamedTuple):
    """The payloads of a case that is being started, as the JSON that its rows hold, and the bucket that it belongs
    into."""

    texts: Sequence[str]
    bucket: int
    artefacts: Mapping[str, Artefact]


async def placed(conn: AsyncConnection, bucket: int, given: Sequence[tuple[Any, Shape]]) -> Placed:
    """What is stored for these values, each with its shape, of a new case of this bucket. Next is to `put` it."""
    encoded = [orjson.dumps(value) for value, _ in given]
    texts = [one.decode() for one in encoded]
    cuts = {
        place: payloads.cut(value, encoded[place], shape)
        for place, (value, shape) in enumerate(given)
        if not payloads.plain(value, encoded[place])
    }
    raised = None
    if cuts:
        raised = await conn.scalar(
            select(func.circuit.bucket_with(cast(bucket, SmallInteger), FEATURE, type_=SmallInteger))
        )
    if raised is None:
        return Placed(texts, bucket, {})
    for place, cut in cuts.items():
        texts[place] = orjson.dumps(cut.stored).decode()
    return Placed(texts, raised, {one.hash: one for cut in cuts.values() for one in cut.artefacts})


async def put(conn: AsyncConnection, tenant: int, given: Mapping[UUID, Mapping[str, Artefact]]) -> None:
    """Store the artefacts of these cases of a tenant, which this transaction started, where they are not there yet, and
    that the cases use them. All of them in one order: else two that put the same at once could wait for each other."""
    found = {name: artefact for artefacts in given.values() for name, artefact in artefacts.items()}
    if not found:
        return
    ordered = [found[name] for name in sorted(found)]
    await conn.execute(
        _PUT,
        {
            "tenant": tenant,
            "hashes": [one.hash for one in ordered],
            "sizes": [one.size for one in ordered],
            "contents": [one.text for one in ordered],
        },
    )
    uses = [
        {"tenant_id": tenant, "case_id": case, "hash": name} for case, artefacts in given.items() for name in artefacts
    ]
    await conn.execute(upsert(tables.artefact_use).on_conflict_do_nothing(), uses)


# -- collecting -------------------------------------------------------------------------------------------------------


class Collected(NamedTuple):
    """How many artefacts were collected, and how many bytes of JSON they had."""

    artefacts: int
    size: int


async def let_go(conn: Connection, key: CaseKey) -> int:
    """Delete what only this case used, which refers to nothing any more (in a transaction, under the engine's role).
    How many."""
    names = [row["hash"] for row in await conn.fetch(_LET_GO, *key)]
    if not names:
        return 0
    await conn.execute(_LOCK, key.tenant, names)
    return len(await conn.fetch(_COLLECT, [key.tenant] * len(names), names))


async def collect(conn: Connection) -> Collected:
    """Delete what no case uses (under the engine's role). Whoever puts the same again meanwhile waits, and puts it."""
    artefacts = size = 0
    after: tuple[int, str] = (-(2**31), "")
    while True:
        async with conn.transaction(isolation="read_committed"):
            locked = await conn.fetch(_UNUSED, *after, COLLECTED_AT_ONCE)
            if locked:
                names = [row["tenant_id"] for row in locked], [row["hash"] for row in locked]
                gone = await conn.fetch(_COLLECT, *names)
                artefacts += len(gone)
                size += sum(row["size"] for row in gone)
        if len(locked) < COLLECTED_AT_ONCE:
            return Collected(artefacts, size)
        after = (locked[-1]["tenant_id"], locked[-1]["hash"])
