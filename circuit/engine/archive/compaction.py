"""Compacts what ended executions said: pieces of one text that follow each other become one frame.

It goes through the weeks of cases, the oldest first, in transactions of some thousand frames. Whoever is cut off loses
what one of them would have done; the next one goes on there, on whichever machine.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from circuit.engine.archive.packing import pack
from circuit.engine.connecting import connected
from circuit.errors import Conflict
from circuit.storage import archive, compaction
from circuit.storage.compaction import CompactionRow, ExecutionKey, FrameRow, Replacement, StreamPlace
from circuit.storage.database import Database
from circuit.storage.driver import Connection
from circuit.storage.partitions import Week, week_of
from circuit.streams.merging import Entry, merge

PAGE_FRAMES = 2_000
"""Frames that are merged in one transaction."""
AT_ONCE = 4
"""Streams of which some are merged in one transaction."""
TRIES = 8
FIRST_PAUSE_SECONDS = 0.05
TELL_SECONDS = 5.0

Told = Callable[[str], None]


@dataclass(slots=True)
class Compacted:
    """What a pass made of the streams of a week: of so many executions, by how many frames and bytes they are less.
    `frames` are all that it looked at."""

    week: str
    executions: int = 0
    frames: int = 0
    gone: int = 0
    bytes: int = 0

    def as_dict(self) -> dict[str, Any]:
        return {
            "week": self.week,
            "executions": self.executions,
            "frames": self.frames,
            "frames_gone": self.gone,
            "bytes_gone": self.bytes,
        }


class Compaction:
    """Compacts the streams of one database. It works for that `share` of the time and rests else."""

    def __init__(self, database: Database, *, share: float = 1.0) -> None:
        self._database = database
        self._share = share

    async def run(self, older_than: timedelta, now: datetime, told: Told = lambda text: None) -> list[Compacted]:
        """Compact the streams of all executions that ended so long ago. Raises `Conflict` if another process is at it,
        or holds what is to be changed."""
        cutoff = now - older_than
        done: list[Compacted] = []
        async with connected(self._database) as connection:
            await compaction.prepare(connection)
            if not await compaction.lock(connection):
                raise Conflict("another process compacts the streams of this database at this moment; try again later")
            for week in await _weeks(connection, cutoff):
                while (row := await compaction.begin(connection, week, cutoff)) is not None:
                    until = row.cutoff or cutoff
                    tenants = await archive.tenants(connection)
                    made = await _Pass(connection, row, until, told, share=self._share).through(tenants)
                    over = archive.born(week.upper) <= until
                    settled = over and await compaction.settled(connection, tenants, week, until)
                    # The pass is not over before: who is cut off in between comes here again.
                    gone = (await compaction.find(connection, week)).frames
                    await compaction.finish(
                        connection, week, settled=settled and await pack(connection, week, gone, told)
                    )
                    done.append(made)
        return [one for one in done if one.gone]

    async def plan(self, older_than: timedelta, now: datetime, told: Told = lambda text: None) -> list[Compacted]:
        """What `run` would do. Nothing is changed."""
        cutoff = now - older_than
        found: list[Compacted] = []
        async with connected(self._database) as connection:
            await compaction.prepare(connection)
            tenants = await archive.tenants(connection)
            for week in await _weeks(connection, cutoff):
                row = await compaction.find(connection, week)
                if not row.settled and (row.done_before is None or row.done_before < cutoff):
                    found.append(await _Pass(connection, row, cutoff, told, dry=True).through(tenants))
        return [one for one in found if one.gone]

    async def weeks(self) -> list[CompactionRow]:
        """How far each week has come."""
        async with connected(self._database) as connection:
            return await compaction.listed(connection)


class _Course(NamedTuple):
    """How far a stream has come: behind which place it is read next, and, where nothing is written, the last frame as
    it would be by now."""

    place: StreamPlace
    carried: Entry | None = None


@dataclass(slots=True)
class _Work:
    """What is to be done about a page of each of some streams. `courses` are those of which there is more."""

    replacements: list[Replacement] = field(default_factory=list[Replacement])
    courses: list[_Course] = field(default_factory=list[_Course])
    frames: int = 0
    gone: int = 0
    bytes: int = 0


class _Pass:
    """One pass over the executions of a week. A `dry` one writes nothing, and begins at the beginning: what is merged
    already adds nothing."""

    def __init__(
        self,
        connection: Connection,
        row: CompactionRow,
        cutoff: datetime,
        told: Told,
        *,
        share: float = 1.0,
        dry: bool = False,
    ) -> None:
        self._connection = connection
        self._week = row.week
        self._since = row.since
        self._cutoff = cutoff
        self._told = told
        self._share = share
        self._dry = dry
        self._place = compaction.BEGINNING if dry else row.place
        self._loop = asyncio.get_running_loop()
        self._told_at = self._loop.time()
        self._compacted = Compacted(row.week.suffix)

    async def through(self, tenants: Sequence[int]) -> Compacted:
        """Go on from where the pass is, to its end."""
        for tenant in tenants:
            if tenant > self._place.tenant:
                self._place = compaction.BEGINNING._replace(tenant=tenant)
            if tenant == self._place.tenant:
                await self._tenant(tenant)
        if self._compacted.gone:
            self._tell()
        return self._compacted

    async def _tenant(self, tenant: int) -> None:
        place: ExecutionKey | None = self._place
        while place is not None:
            due, place = await compaction.executions(
                self._connection, tenant, self._week, place, self._cutoff, self._since
            )
            for first in range(0, len(due), AT_ONCE):
                await self._streams(due[first : first + AT_ONCE])

    async def _streams(self, keys: Sequence[ExecutionKey]) -> None:
        """Compact some streams, page by page."""
        courses = [_Course(StreamPlace(key, 0, 0)) for key in keys]
        touched: set[ExecutionKey] = set()
        compacted = self._compacted
        while courses:
            began = self._loop.time()
            work = await self._patiently(courses)
            touched.update(one.key for one in work.replacements)
            courses = work.courses
            compacted.frames += work.frames
            compacted.gone += work.gone
            compacted.bytes += work.bytes
            now = self._loop.time()
            if now - self._told_at >= TELL_SECONDS:
                self._told_at = now
                self._tell()
            await asyncio.sleep((now - began) * (1 / self._share - 1))
        compacted.executions += len(touched)
        if touched:
            await self._advance(keys[-1], executions=len(touched))

    async def _patiently(self, courses: Sequence[_Course]) -> _Work:
        """A page of each stream; again where others have changed it meanwhile."""
        for tried in range(TRIES):
            try:
                async with self._connection.transaction(isolation="repeatable_read", readonly=self._dry):
                    return await self._page(courses)
            except Exception as error:
                if not compaction.moved(error):
                    raise
            await asyncio.sleep(random.uniform(0, FIRST_PAUSE_SECONDS * 2**tried))
        raise Conflict(f"the streams of week {self._week.suffix} are in use; their compaction goes on the next time")

    async def _page(self, courses: Sequence[_Course]) -> _Work:
        places = [course.place for course in courses]
        # Two at least: the last of a page is read again with what follows.
        limit = max(2, PAGE_FRAMES // len(courses))
        pages = await compaction.frames(self._connection, self._week, places, limit)
        # Elsewhere, so that the loop of a worker goes on meanwhile.
        work = await asyncio.to_thread(_merged, courses, pages, limit, dry=self._dry)
        if work.replacements and not self._dry:
            await compaction.replace(self._connection, self._week, work.replacements, work.gone)
            await self._advance(self._place, frames=work.gone, size=work.bytes)
        return work

    async def _advance(self, place: ExecutionKey, **counts: int) -> None:
        self._place = place
        if not self._dry:
            await compaction.advance(self._connection, self._week, place, **counts)

    def _tell(self) -> None:
        done = self._compacted
        self._told(
            f"week {done.week}: {done.gone} of {done.frames} frames go, with {done.bytes} bytes, of {done.executions}"
            " executions"
        )


def _merged(courses: Sequence[_Course], pages: Sequence[Sequence[FrameRow]], limit: int, *, dry: bool) -> _Work:
    work = _Work()
    for course, page in zip(courses, pages, strict=True):
        if not page:
            continue
        key = course.place.key
        entries = [Entry(row.start, row.first, row.seq, row.frame, row.lengths) for row in page]
        found = merge(entries if course.carried is None else [course.carried, *entries])
        work.frames += len(entries)
        for entry, frames, saved in found.merged:
            work.replacements.append(Replacement(key, FrameRow(*entry)))
            work.gone += frames - 1
            work.bytes += saved
        if len(page) < limit:
            continue
        last = found.last
        if dry:
            work.courses.append(_Course(StreamPlace(key, last.start, last.sequence), last))
        else:
            # What comes next may belong to the last frame: it is read again with it.
            work.frames -= 1
            work.courses.append(_Course(StreamPlace(key, last.start, last.first - 1)))
    return work


async def _weeks(connection: Connection, cutoff: datetime) -> list[Week]:
    """The weeks of which executions may have ended before the cutoff, the oldest first; but those that are leaving the
    database, or whose streams are gone."""
    instant = await archive.oldest_week(connection)
    leaving = {row.week for row in await archive.known(connection) if row.state != "dropped"}
    found: list[Week] = []
    while instant is not None and archive.born((week := week_of(instant)).lower) <= cutoff:
        if week.suffix not in leaving:
            found.append(week)
        instant += timedelta(weeks=1)
    return found
