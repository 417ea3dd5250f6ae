"""Wake-ups between processes over NOTIFY: ids only, coalesced, and never inside a transaction that writes data.

A NOTIFY takes a lock that is common to the whole server until its transaction is committed; inside the writer's
commits it would make them wait for each other. So one notifier a process collects ids for some milliseconds and sends
them on a connection of its own. A wake-up is a hint: whoever gets one looks into the tables, and whoever gets none
looks now and then.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from circuit.errors import CircuitError
from circuit.storage.driver import Connection
from circuit.storage.lane import Source

CHANNEL = "circuit"
COLLECT_SECONDS = 0.015
"""How long ids are collected before they are sent."""
LARGEST_PAYLOAD = 7_900
"""Bytes of ids in one NOTIFY; the server takes less than 8,000."""
MOST_WAITING = 10_000
"""Ids that wait while the database is away; what comes on top is dropped."""
CLOSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 5.0
CHECK_SECONDS = 20.0
"""How often a listener asks whether its connection is there: on one that is half open it would hear nothing, ever."""
ANSWER_SECONDS = 10.0

logger = logging.getLogger(__name__)

_BROKEN = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, CircuitError)


class Notifier:
    """Sends hints. `notify` never waits and never fails; what cannot be sent is dropped."""

    def __init__(
        self, database: Source, *, collect_seconds: float = COLLECT_SECONDS, rng: random.Random | None = None
    ) -> None:
        self._database = database
        self._collect_seconds = collect_seconds
        self._rng = rng or random.Random()
        # A dict and not a set: ids are sent in the order in which they came.
        self._waiting: dict[str, None] = {}
        self._woken = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self.sent = 0
        self.pid: int | None = None
        """The server process of the connection, by which a listener knows what this notifier sent."""

    def start(self) -> None:
        """Begin to send; starting twice is fine. The connection is made when there is something to send."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="circuit-notifier")

    def notify(self, name: str) -> None:
        """Something of `name` (an id without a space in it) is new."""
        if len(self._waiting) < MOST_WAITING:
            self._waiting[name] = None
            self._woken.set()

    async def stop(self) -> None:
        """Send what waits if the database is there, and end. Stopping twice is fine."""
        self._closing = True
        self._woken.set()
        task, self._task = self._task, None
        if task is None:
            return
        _, late = await asyncio.wait([task], timeout=CLOSE_SECONDS)
        for left in late:
            left.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        connection: Connection | None = None
        failures = 0
        try:
            while True:
                await self._woken.wait()
                if not self._closing:
                    await asyncio.sleep(self._collect_seconds)
                self._woken.clear()
                names, self._waiting = self._waiting, {}
                try:
                    if connection is None or connection.is_closed():
                        connection = await self._database.raw()
                        # A hint may be lost: no disk has to have it before the next one is sent.
                        await connection.execute("SET synchronous_commit = off")
                        self.pid = connection.get_server_pid()
                    for payload in _payloads(names):
                        await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, payload)
                        self.sent += 1
                    failures = 0
                except _BROKEN as error:
                    logger.warning("%d hints were lost: %s: %s", len(names), type(error).__name__, error)
                    await _close(connection)
                    connection = self.pid = None
                    failures += 1
                    if not self._closing:
                        await asyncio.sleep(_jitter(self._rng, failures))
                if self._closing and not self._waiting:
                    return
        finally:
            await _close(connection)


class Listener:
    """Hears hints and hands them to `heard`: the ids of one NOTIFY, or none at all after the connection was lost and
    made anew, when anything may have been missed. What `own` sent is not heard: its process knows it already."""

    def __init__(
        self,
        database: Source,
        heard: Callable[[Sequence[str]], None],
        *,
        own: Notifier | None = None,
        check_seconds: float = CHECK_SECONDS,
        rng: random.Random | None = None,
    ) -> None:
        self._database = database
        self._heard = heard
        self._own = own
        self._check_seconds = check_seconds
        self._rng = rng or random.Random()
        self._task: asyncio.Task[None] | None = None
        self.started = asyncio.Event()
        """Set while hints arrive."""

    @property
    def listening(self) -> bool:
        """Whether hints arrive at present."""
        return self.started.is_set()

    def start(self) -> None:
        """Begin to listen; starting twice is fine. `started` says when."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="circuit-listener")

    async def stop(self) -> None:
        """Stop listening. Stopping twice is fine."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        connection: Connection | None = None
        failures = 0
        missed = False
        try:
            while True:
                lost = asyncio.Event()
                try:
                    connection = await self._database.raw()
                    connection.add_termination_listener(_setter(lost))
                    await connection.add_listener(CHANNEL, self._hear)
                except _BROKEN as error:
                    logger.warning("hints do not arrive: %s: %s", type(error).__name__, error)
                else:
                    failures = 0
                    self.started.set()
                    if missed:
                        self._tell(())
                    await self._until_lost(connection, lost)
                    logger.warning("the connection for hints was lost")
                self.started.clear()
                missed = True
                await _close(connection)
                connection = None
                failures += 1
                await asyncio.sleep(_jitter(self._rng, failures))
        finally:
            self.started.clear()
            await _close(connection)

    async def _until_lost(self, connection: Connection, lost: asyncio.Event) -> None:
        """Until the connection is known to be lost, or does not answer."""
        while not lost.is_set():
            try:
                async with asyncio.timeout(self._check_seconds):
                    await lost.wait()
            except TimeoutError:
                try:
                    await connection.fetchval("SELECT 1", timeout=ANSWER_SECONDS)
                except _BROKEN:
                    return

    def _hear(self, connection: Any, pid: int, channel: str, payload: Any) -> None:
        if self._own is None or pid != self._own.pid:
            self._tell(str(payload).split())

    def _tell(self, names: Sequence[str]) -> None:
        try:
            self._heard(names)
        except Exception:
            logger.exception("a hint could not be handed on")


def _setter(event: asyncio.Event) -> Callable[[Any], None]:
    def ended(connection: Any) -> None:
        event.set()

    return ended


def _payloads(names: dict[str, None]) -> list[str]:
    """The names in as few payloads as they fit into; a name that fits into none is left out."""
    payloads: list[str] = []
    part: list[str] = []
    size = 0
    for name in names:
        length = len(name.encode()) + 1
        if length > LARGEST_PAYLOAD:
            continue
        if size + length > LARGEST_PAYLOAD:
            payloads.append(" ".join(part))
            part, size = [], 0
        part.append(name)
        size += length
    if part:
        payloads.append(" ".join(part))
    return payloads


def _jitter(rng: random.Random, failures: int) -> float:
    """Seconds before the next try, with full jitter."""
    return rng.uniform(0, min(0.05 * 2 ** min(failures, 16), LONGEST_PAUSE_SECONDS))


async def _close(connection: Connection | None) -> None:
    if connection is None or connection.is_closed():
        return
    try:
        await connection.close(timeout=CLOSE_SECONDS)
    except (*_BROKEN, TimeoutError):
        connection.terminate()
