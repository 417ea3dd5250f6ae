"""Processes of a small Circuit for tests of streams: real Postgres, real writer, real notifications, no engine.

A `Stage` is what one process has. Two of them on one database are two processes, but for the interpreter.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from types import TracebackType
from uuid import uuid4

from circuit.events import CaseEnded, CaseEvent, CaseStarted, FiringBegun, Frame, StreamDelta, StreamType, encode_frame
from circuit.ids import CaseKey, Numbered, uuid7
from circuit.storage import cases, commands, workers
from circuit.storage.database import Database
from circuit.storage.driver import Connection
from circuit.storage.notifications import Listener, Notifier
from circuit.storage.records import (
    CaseRow,
    CaseStatus,
    CaseWrite,
    ExecutionRow,
    ExecutionStatus,
    FiringRow,
    FiringState,
    StreamRow,
)
from circuit.storage.workers import Incarnation
from circuit.storage.writer import Writer
from circuit.streams.broker import Broker
from circuit.streams.cursor import Cursor
from circuit.streams.publisher import Outlet, Publisher
from circuit.streams.relay import Relay
from circuit.streams.subscription import Streams

TENANT = 1
LEASE_SECONDS = 60.0
_numbers = itertools.count(1)


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class Stage:
    """Opened with `async with`. `ring` is the size of its rings; a stage that does not `listen` only polls."""

    def __init__(self, url: str, *, ring: int = 1000, listen: bool = True, poll_seconds: float = 0.05) -> None:
        self._url = url
        self._listen = listen
        self.clock = SystemClock()
        self.broker = Broker(ring)
        self.relay = Relay(self.broker, poll_seconds=poll_seconds, listening=self._hears)
        self.worker = uuid4()
        self.database: Database
        self.connection: Connection
        self.writer: Writer
        self.notifier: Notifier
        self.listener: Listener | None = None
        self.publisher: Publisher
        self.streams: Streams

    def _hears(self) -> bool:
        return self.listener is not None and self.listener.listening

    def _heard(self, names: Sequence[str]) -> None:
        for name in names:
            self.relay.hear(name)
        if not names:
            self.relay.reconnected()

    async def __aenter__(self) -> Stage:
        self.database = await Database.open(self._url)
        self.connection = await self.database.raw()
        await workers.register(self.connection, Incarnation(self.worker, "here", "boot", 1, 1.5), LEASE_SECONDS)
        self.writer = await Writer.open(self.database, self.worker)
        self.notifier = Notifier(self.database)
        self.notifier.start()
        if self._listen:
            self.listener = Listener(self.database, self._heard, own=self.notifier)
            self.listener.start()
            await self.listener.started.wait()
        self.publisher = Publisher(self.writer.write, self.broker, self.clock.now, self.notifier.notify)
        self.streams = Streams(self.database, self.broker, self.relay, self.clock)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.listener is not None:
            await self.listener.stop()
        await self.notifier.stop()
        await self.writer.close(5.0)
        await self.connection.close()
        await self.database.close()

    async def execution(self, tenant: int = TENANT) -> Told:
        """A new case of this process whose first firing runs."""
        now = self.clock.now()
        key = CaseKey(tenant, uuid7(int(now.timestamp() * 1000), next(_numbers)))
        row = CaseRow("flow", "hash", CaseStatus.RUNNING, 1, 1, 1, 1, now)
        async with self.database.transaction(tenant) as connection:
            await commands.insert_case(connection, key, row, [], CaseStarted("flow", "hash", (), "tests"), now)
        assert await cases.claim(self.connection, self.worker, 1, [key]) == [key]
        told = Told(self, key)
        firing = FiringRow(told.name.number, "ask", FiringState.RUNNING, 1, 1, {}, begun_at=now)
        execution = ExecutionRow(told.name.number, ExecutionStatus.RUNNING, {"agent_id": "a"}, now)
        await told.step(
            FiringBegun("ask", 1, str(told.name), ()), firings_opened=[firing], executions_opened=[execution]
        )
        return told


class Told:
    """One execution as its owner drives it."""

    def __init__(self, stage: Stage, key: CaseKey) -> None:
        self.stage = stage
        self.key = key
        self.name = Numbered(key.case, 1)
        self.seq = 1
        self.start = 0

    async def step(self, *events: CaseEvent, status: CaseStatus = CaseStatus.RUNNING, **changes: object) -> None:
        now = self.stage.clock.now()
        row = CaseRow("flow", "hash", status, self.seq + len(events), 1, 2, 1, now, now if status.terminal else None)
        write = CaseWrite(self.key, self.seq, row, [(now, event) for event in events])
        for name, change in changes.items():
            setattr(write, name, change)
        await self.stage.writer.write(write)
        first, self.seq = self.seq + 1, self.seq + len(events)
        for stored in write.frames:
            self.stage.publisher.announce(self.key, stored.firing, stored.frame)
        self.stage.publisher.changed(self.key, first, write.events)

    def open(self) -> Outlet:
        self.start += 1
        return self._outlet(None)

    async def open_again(self, reason: str) -> Outlet:
        """The outlet of a further start, which is stored before it says anything, as an owner does it."""
        self.start += 1
        row = FiringRow(
            self.name.number, "ask", FiringState.RUNNING, 1, self.start, {}, begun_at=self.stage.clock.now()
        )
        await self.step(firings_changed=[row])
        return self._outlet(reason)

    def _outlet(self, reason: str | None) -> Outlet:
        return self.stage.publisher.open(self.key, self.name.number, self.start, reason=reason)

    async def complete(self, sequence: int, text: str = "done") -> Frame:
        """The end, as an owner commits it: the terminal frame, the execution, and the case."""
        said = StreamDelta(
            StreamType.COMPLETED, {"final_response": text, "usage": {"output_tokens": 3}, "output": None}
        )
        frame = encode_frame(str(self.name), self.start, sequence + 1, said, self.stage.clock.now())
        now = self.stage.clock.now()
        await self.step(
            CaseEnded("completed"),
            status=CaseStatus.COMPLETED,
            frames=[StreamRow(self.name.number, frame)],
            executions_changed=[ExecutionRow(self.name.number, ExecutionStatus.COMPLETED, {}, now, now)],
        )
        return frame

    async def cancel(self) -> None:
        now = self.stage.clock.now()
        await self.step(
            CaseEnded("cancelled"),
            status=CaseStatus.CANCELLED,
            executions_changed=[ExecutionRow(self.name.number, ExecutionStatus.CANCELLED, {}, now, now)],
        )

    async def say(self, outlet: Outlet, words: Sequence[str]) -> None:
        for word in words:
            await outlet.emit(StreamDelta(StreamType.TOOL_RESULT, {"toolName": "t", "result": word, "callId": "1"}))


async def collect(streams: Streams, name: Numbered, after: Cursor | None = None, tenant: int = TENANT) -> list[Frame]:
    return [frame async for frame in streams.subscribe(name, tenant, after)]
