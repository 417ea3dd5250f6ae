"""Readers of streams as browsers are: they come back with their last cursor whatever happens to the server, and in the
end what they have seen is held against what is stored, byte for byte."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from itertools import pairwise
from random import Random

import asyncpg
import httpx

RETRY_SECONDS = 0.05
TERMINAL = (b'"eventType":"completed"', b'"eventType":"failed"')

Place = tuple[int, int]


class Subscriber:
    """Reads one execution's stream over SSE. `base` gives the URL of the server that there is at the moment.

    `patience` is after how many events it goes away and comes back (None: it stays); a slow one waits between events.
    """

    def __init__(
        self, execution: str, base: Callable[[], str], *, patience: int | None = None, slow_seconds: float = 0.0
    ) -> None:
        self.execution = execution
        self.base = base
        self.patience = patience
        self.slow_seconds = slow_seconds
        self.seen: list[tuple[Place, bytes]] = []
        self.connections = 0
        self.over = False

    async def read(self, client: httpx.AsyncClient) -> None:
        """Read until the stream is over."""
        while not self.over:
            with contextlib.suppress(httpx.HTTPError, OSError):
                await self._connect(client)
            if not self.over:
                await asyncio.sleep(RETRY_SECONDS)

    async def _connect(self, client: httpx.AsyncClient) -> None:
        headers = {}
        if self.seen:
            start, sequence = self.seen[-1][0]
            headers["last-event-id"] = f"{start}-{sequence}"
        self.connections += 1
        async with client.stream("GET", f"{self.base()}/agent-stream/{self.execution}", headers=headers) as response:
            if response.status_code == 204:
                self.over = True
                return
            if response.status_code != 200:
                return
            left = self.patience
            place: Place | None = None
            async for line in _lines(response):
                if line.startswith(b"id: "):
                    start, _, sequence = line[4:].partition(b"-")
                    place = (int(start), int(sequence))
                elif line.startswith(b"data: ") and place is not None:
                    self.seen.append((place, line[6:]))
                    if any(mark in line for mark in TERMINAL):
                        self.over = True
                        return
                    place = None
                    if left is not None:
                        left -= 1
                        if left <= 0:
                            return
                    if self.slow_seconds:
                        await asyncio.sleep(self.slow_seconds)

    def faults(self, stored: dict[Place, bytes]) -> list[str]:
        """What is wrong with what was seen, beside what is stored."""
        places = [place for place, _ in self.seen]
        faults = [
            f"{self.execution}: {later} came after {earlier}" for earlier, later in pairwise(places) if later <= earlier
        ]
        seen = dict(self.seen)
        faults += [f"{self.execution}: {place} was never seen" for place in stored if place not in seen]
        faults += [
            f"{self.execution}: {place} was seen as {seen[place]!r} and is stored as {frame!r}"
            for place, frame in stored.items()
            if place in seen and seen[place] != frame
        ]
        return faults


class Audience:
    """All the subscribers of a run."""

    def __init__(self, random: Random, base: Callable[[], str]) -> None:
        self.random = random
        self.base = base
        self.subscribers: list[Subscriber] = []
        self._tasks: list[asyncio.Task[None]] = []
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._client = httpx.AsyncClient(timeout=httpx.Timeout(10.0, read=30.0), limits=limits, trust_env=False)

    def follow(self, execution: str, readers: int = 1) -> None:
        """Have an execution read by so many: some stay, some come and go, some are slow."""
        for _ in range(readers):
            patience = self.random.choice([None, 1, 2, 5])
            slow = self.random.choice([0.0, 0.0, 0.0, 0.05])
            subscriber = Subscriber(execution, self.base, patience=patience, slow_seconds=slow)
            self.subscribers.append(subscriber)
            self._tasks.append(asyncio.create_task(subscriber.read(self._client), name=f"reader of {execution}"))

    async def ended(self, within: float) -> list[str]:
        """Wait until every stream is over; those that are not by then."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within)
        return [subscriber.execution for subscriber in self.subscribers if not subscriber.over]

    async def judge(self, url: str) -> list[str]:
        """What the subscribers saw against what is stored; then they are forgotten."""
        connection = await asyncpg.connect(url)
        try:
            faults: list[str] = []
            for subscriber in self.subscribers:
                case, _, firing = subscriber.execution.rpartition(".")
                rows = await connection.fetch(
                    "SELECT start, seq, frame FROM circuit.stream_event"
                    " WHERE case_id = $1::text::uuid AND firing = $2 ORDER BY start, seq",
                    case,
                    int(firing),
                )
                stored = {(row["start"], row["seq"]): row["frame"].encode() for row in rows}
                faults += subscriber.faults(stored)
        finally:
            await connection.close()
        self.subscribers.clear()
        self._tasks.clear()
        return faults

    async def forget(self) -> None:
        """Everybody goes, and what was seen counts for nothing."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self.subscribers.clear()

    async def leave(self) -> None:
        """Everybody goes for good."""
        await self.forget()
        await self._client.aclose()


async def _lines(response: httpx.Response):
    """The lines of a body, as bytes."""
    rest = b""
    async for piece in response.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line
