"""Takes weeks out of the database: closes a week, writes it out, reads it again, and only then lets it go, with the
artefacts that no other case uses.

Each step is committed before the next begins and can be done again, so that whoever finds a week half-way (after a
crash, on another machine) goes on with it. Nothing here holds a lock that others wait for longer than a fifth of a
second.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson

from circuit.engine.archive.erasure import forget_others, rewrite
from circuit.engine.archive.folder import WeekWriter, find_case, read_manifest, verify
from circuit.engine.archive.patience import others_ended, until
from circuit.engine.archive.policy import MOST_STAYING, Policy, WeekPlan, judge
from circuit.engine.connecting import connected
from circuit.errors import ArchiveDamaged, Conflict, NotFound
from circuit.events import CaseMigrated
from circuit.ids import CaseKey
from circuit.storage import archive, artefacts, audit, compaction, payloads
from circuit.storage.archive import ArchiveRow
from circuit.storage.database import Database
from circuit.storage.driver import Connection
from circuit.storage.tables import PARTITIONED

logger = logging.getLogger(__name__)

Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Done:
    """A week that is out of the database: where it lies, and how many of its cases went and stayed."""

    week: str
    place: str
    cases: int
    stayed: int

    def as_dict(self) -> dict[str, Any]:
        return {"week": self.week, "place": self.place, "cases": self.cases, "stayed": self.stayed}


@dataclass(slots=True)
class Erased:
    """What an erasure found in the files: which of the cases, how many rows it changed, and where weeks lie that this
    machine cannot open."""

    held: set[CaseKey] = field(default_factory=set[CaseKey])
    changed: Counter[str] = field(default_factory=Counter[str])
    unreachable: list[str] = field(default_factory=list[str])


class Archive:
    """The archive of one database, in one folder."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder

    async def plan(self, policy: Policy, now: datetime) -> list[WeekPlan]:
        """What a round would do: the weeks that are old enough, the oldest first, and why some of them wait."""
        async with connected(self._database) as connection:
            return await _plan(connection, policy, now)

    async def run(self, policy: Policy, now: datetime, told: Told = lambda text: None) -> list[Done]:
        """Take out of the database what the policy says. Raises `Conflict` if another process is at it."""
        async with connected(self._database) as connection:
            await _alone(connection)
            done = [await self._go_on(connection, row, told) for row in await _half_way(connection)]
            for plan in await _plan(connection, policy, now):
                if not plan.goes:
                    for obstacle in plan.obstacles:
                        told(f"week {plan.week.suffix} waits: {obstacle}")
                    continue
                kept = [key for key, _ in plan.standing.staying]
                number = await _next_round(connection, plan.week.suffix)
                await archive.close(connection, plan.week, number, kept)
                [row] = [
                    one
                    for one in await archive.known(connection)
                    if (one.week, one.round) == (plan.week.suffix, number)
                ]
                done.append(await self._go_on(connection, row, told))
            if policy.streams_older_than is not None:
                await _drop_streams(connection, policy, now, told)
            return done

    async def weeks(self) -> list[ArchiveRow]:
        """The weeks that are, or were, on their way out."""
        async with connected(self._database) as connection:
            return await archive.known(connection)

    async def show(self, key: CaseKey) -> dict[str, Any]:
        """An archived case: its rows by table. Raises `NotFound`, and `ArchiveDamaged`."""
        found = await self.find(key)
        if found is None:
            raise NotFound(f"the archive holds no case {key}; `circuit archive list` lists what it holds")
        return found

    async def find(self, key: CaseKey) -> dict[str, Any] | None:
        """The same; None where the archive does not hold the case. Raises `NotFound` where the files lie elsewhere that
        may hold it, and `ArchiveDamaged`."""
        away = list[str]()
        for row in await self.weeks():
            if row.state != "dropped" or not row.lower <= key.case < row.upper or key in row.kept:
                continue
            place = self._place(row)
            if place is None:
                away.append(row.folder or row.week)
                continue
            found = await asyncio.to_thread(_find, place, key)
            if found is not None:
                return {"archive": str(place), "case_id": str(key.case), "rows": found}
        if away:
            raise NotFound(
                f"case {key} may lie in {', '.join(away)}, which is not here: say in CIRCUIT_ARCHIVE_DIR"
                " where the folders of its weeks lie now"
            )
        return None

    async def erase(self, connection: Connection, cases: Collection[CaseKey], *, dry_run: bool) -> Erased:
        """Erase cases from the files of their weeks. It takes the lock of the archive, which the connection keeps.
        Raises `Conflict` where others are at it or a week is half-way, `ArchiveDamaged`."""
        await _alone(connection)
        erased = Erased()
        for row in await archive.known(connection):
            here = [key for key in cases if row.lower <= key.case < row.upper]
            if not here or row.state == "streams":
                continue
            if row.state != "dropped":
                raise Conflict(
                    f"week {row.week} is half archived: run `circuit archive` to its end, and then this again"
                )
            place = self._place(row)
            if place is None:
                erased.unreachable.append(row.folder or row.week)
                continue
            manifest = await asyncio.to_thread(read_manifest, place)
            done = await asyncio.to_thread(partial(rewrite, place, manifest, here, dry_run=dry_run))
            erased.held |= done.held
            erased.changed += done.changed
            if dry_run:
                continue
            if done.place != place:
                await archive.moved(connection, row.week, row.round, str(done.place), done.manifest)
            await asyncio.to_thread(forget_others, done.place, done.manifest)
        return erased

    def _place(self, row: ArchiveRow) -> Path | None:
        """Where an archived week lies: where it was written to, or, if the folder was moved, in this archive's own."""
        written = Path(row.folder or "")
        return next((place for place in (written, self._folder / written.name) if row.folder and place.is_dir()), None)

    async def check(self) -> list[str]:
        """Read every archived week again; where each lies. Raises `ArchiveDamaged`."""
        places = [Path(row.folder) for row in await self.weeks() if row.folder and row.state in ("written", "dropped")]
        for place in places:
            await asyncio.to_thread(lambda: verify(place, read_manifest(place)))  # noqa: B023
        return [str(place) for place in places]

    # -- one week ---------------------------------------------------------------------------------------------------

    async def _go_on(self, connection: Connection, row: ArchiveRow, told: Told) -> Done:
        name = f"{row.week}-{row.round}"
        place, manifest, cases = row.folder or str(self._folder / name), dict(row.manifest), row.cases
        if row.state == "closing":
            told(f"week {row.week}: writing to {place}")
            await others_ended(connection)
            manifest = await self._write_out(connection, row, name)
            cases = manifest["cases"]
            await archive.settle(
                connection, row.week, row.round, "written", folder=place, manifest=manifest, cases=cases
            )
        told(f"week {row.week}: taking {cases} cases out of the database")
        await _delete(connection, row)
        await _drop(connection, row, PARTITIONED)
        # Of what nobody uses any more, only here does anything come into being: who is cut off before comes again.
        gone = await artefacts.collect(connection)
        if gone.artefacts:
            told(f"week {row.week}: {gone.artefacts} artefacts ({gone.size} bytes) were used by no other case")
        await archive.settle(connection, row.week, row.round, "dropped", folder=place, manifest=manifest, cases=cases)
        logger.warning("week %s is archived in %s: %d cases", row.week, place, cases)
        return Done(row.week, place, cases, len(row.kept))

    async def _write_out(self, connection: Connection, row: ArchiveRow, name: str) -> dict[str, Any]:
        writer = WeekWriter(self._folder, name)
        await asyncio.to_thread(writer.begin)
        try:
            versions: set[tuple[int, str, str]] = set()
            for tenant in await archive.tenants(connection):
                kept = [key.case for key in row.kept if key.tenant == tenant]
                after = UUID(int=max(row.lower.int - 1, 0))
                while page := await archive.page(connection, tenant, after, row.upper, kept):
                    keys = [key for key, _ in page]
                    others = {table: await archive.rows_of(connection, table, keys) for table in archive.ARCHIVED}
                    await asyncio.to_thread(_add, writer, page, others)
                    for _, text in page:
                        case = orjson.loads(text)
                        versions.add((tenant, case["workflow_id"], case["workflow_hash"]))
                    # A case that was migrated began on another version.
                    for key, text in others["history"]:
                        if '"case_migrated"' in text and (told := orjson.loads(text))["kind"] == CaseMigrated.kind:
                            versions.add((key.tenant, told["body"]["workflow"], told["body"]["from_hash"]))
                    after = keys[-1].case
            async for _, _, text in _keys(connection, row):
                await asyncio.to_thread(writer.add_row, "keys", "case_key", text)
            for tenant, workflow, version in sorted(versions):
                document = await audit.document(connection, tenant, workflow, version)
                about = {"tenant_id": tenant, "workflow_id": workflow, "hash": version, "document": document}
                await asyncio.to_thread(writer.add_row, "versions", "workflow_version", orjson.dumps(about).decode())
            about = {
                "week": row.week,
                "round": row.round,
                "lower": str(row.lower),
                "upper": str(row.upper),
                "schema": await self._database.revision(),
                "stayed": [[key.tenant, str(key.case)] for key in row.kept],
            }
            return await asyncio.to_thread(writer.finish, about)
        except BaseException:
            await asyncio.to_thread(writer.abandon)
            raise


async def _plan(connection: Connection, policy: Policy, now: datetime) -> list[WeekPlan]:
    oldest = await archive.oldest_week(connection)
    if policy.older_than is None or oldest is None:
        return []
    cutoff = now - policy.older_than
    plans: list[WeekPlan] = []
    for week in archive.weeks(oldest, cutoff):
        standing = await archive.standing(connection, week, cutoff, policy.keep_failed, MOST_STAYING + 1)
        if standing.cases:
            plans.append(judge(week, standing))
    return plans


async def _alone(connection: Connection) -> None:
    if not await archive.lock(connection):
        raise Conflict("another process archives this database at this moment; try again later")
    # Of who was cut off while it packed: what is erased from now on must not lie there still.
    await compaction.forget_copies(connection)


async def _half_way(connection: Connection) -> list[ArchiveRow]:
    return [row for row in await archive.known(connection) if row.state in ("closing", "written")]


async def _next_round(connection: Connection, week: str) -> int:
    rounds = [row.round for row in await archive.known(connection) if row.week == week and row.state != "streams"]
    return max(rounds, default=0) + 1


async def _delete(connection: Connection, row: ArchiveRow) -> None:
    """Delete the rows of the week in the tables that are not partitioned, some at a time."""
    gone: list[tuple[int, str]] = []
    async for tenant, key, _ in _keys(connection, row):
        gone.append((tenant, key))
        if len(gone) >= archive.DELETED_AT_ONCE:
            await archive.delete_keys(connection, gone)
            gone.clear()
    if gone:
        await archive.delete_keys(connection, gone)
    for tenant in await archive.tenants(connection):
        kept = [key.case for key in row.kept if key.tenant == tenant]
        while await archive.delete_cases(connection, tenant, row.lower, row.upper, kept):
            continue


async def _drop(connection: Connection, row: ArchiveRow, tables: Sequence[str]) -> None:
    for table in tables:

        async def dropped(table: str = table) -> bool:
            return await archive.retire(connection, table, row.week, row.lower, row.upper) is not None

        await until(dropped, f"the table {table}")
        while row.state != "streams" and await archive.delete_left(connection, table, row.lower, row.upper):
            continue


async def _drop_streams(connection: Connection, policy: Policy, now: datetime, told: Told) -> None:
    """Drop the frames of weeks whose cases have all ended long enough ago, and stay."""
    oldest = await archive.oldest_week(connection)
    assert policy.streams_older_than is not None
    cutoff = now - policy.streams_older_than
    known = {row.week for row in await archive.known(connection)}
    for week in archive.weeks(oldest, cutoff) if oldest is not None else []:
        if week.suffix in known:
            continue
        standing = await archive.standing(connection, week, cutoff, False, 1)
        if standing.staying:
            told(
                f"the streams of week {week.suffix} wait: {standing.open} cases are open, {standing.fresh} ended lately"
            )
            continue
        await archive.note_streams(connection, week, 0)
        [row] = [one for one in await archive.known(connection) if (one.week, one.round) == (week.suffix, 0)]
        await _drop(connection, row, ("stream_event",))
        told(f"the streams of week {week.suffix} are gone")


async def _keys(connection: Connection, row: ArchiveRow) -> AsyncGenerator[tuple[int, str, str]]:
    """The idempotency keys of the cases of a week that go: tenant, key, and the row as JSON."""
    stays = set(row.kept)
    after = (-(2**31), "")
    while page := await archive.keys_page(connection, after):
        for tenant, key, case, text in page:
            if row.lower <= case < row.upper and CaseKey(tenant, case) not in stays:
                yield tenant, key, text
        after = (page[-1][0], page[-1][1])


def _add(writer: WeekWriter, page: Sequence[tuple[CaseKey, str]], others: dict[str, list[tuple[CaseKey, str]]]) -> None:
    by_case: dict[CaseKey, dict[str, list[str]]] = {key: {} for key, _ in page}
    for table, found in others.items():
        for key, text in found:
            by_case[key].setdefault(table, []).append(text)
    for key, text in page:
        writer.add_case(key, text, by_case[key])


def _find(place: Path, key: CaseKey) -> dict[str, list[dict[str, Any]]] | None:
    found = find_case(place, read_manifest(place), key)
    return None if found is None else _whole(place, found)


def _whole(place: Path, found: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """The rows of a case with its artefacts where they belong. Raises `ArchiveDamaged`."""
    contents = {row["hash"]: row["content"] for row in found.pop("artefact", ())}
    try:
        for row in (row for rows in found.values() for row in rows):
            for name in artefacts.PAYLOADS:
                if name in row:
                    row[name] = payloads.filled(row[name], contents.__getitem__)
    except KeyError as missing:
        raise ArchiveDamaged(f"{place} lacks the artefact {missing} of a case that it holds") from None
    return found
