"""Processes and a log of one execution without a database, for tests in virtual time."""

from __future__ import annotations

import random
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate

from virtual_time import EPOCH, pass_time

from circuit.errors import DatabaseUnreachable
from circuit.events import Frame, StreamDelta, StreamType, encode_frame
from circuit.streams.broker import Broker
from circuit.streams.channel import Channel, place
from circuit.streams.cursor import BEGINNING, Cursor
from circuit.streams.log import PAGE_FRAMES, FramePage
from circuit.streams.pace import PAGE_BYTES, size
from circuit.streams.reader import Reader
from circuit.streams.relay import Relay

NAME = "0190a0a0-0000-7000-8000-000000000001.1"


def frame(start: int, sequence: int, type_: StreamType = StreamType.CONTENT_CHUNK, more: str = "") -> Frame:
    return encode_frame(NAME, start, sequence, StreamDelta(type_, {"content": f"{start}-{sequence}{more}"}), EPOCH)


@dataclass
class Store:
    """The log of one execution, as a database would answer, after a while."""

    frames: list[Frame] = field(default_factory=list)
    ended: bool = False
    known: bool = True
    looks: int = 0
    given: int = 0
    seconds: float = 0.0
    down: bool = False

    async def look(self, after: Cursor, most_bytes: int = PAGE_BYTES) -> FramePage | None:
        self.looks += 1
        ended = self.ended
        page = [frame for frame in self.frames if place(frame) > after][:PAGE_FRAMES]
        sizes = [*accumulate(len(frame.body) for frame in page)]
        page = page[: bisect_left(sizes, most_bytes) + 1]
        self.given += size(page)
        if self.seconds:
            await pass_time(self.seconds)
        if self.down:
            raise DatabaseUnreachable("down")
        return FramePage(page, ended, full=len(page) == PAGE_FRAMES or size(page) >= most_bytes) if self.known else None

    def add(self, *frames: Frame, ended: bool = False) -> None:
        self.frames += frames
        self.ended = self.ended or ended


class Process:
    """What one process has: a broker, a relay, readers."""

    def __init__(self, store: Store, ring: int = 1000, poll: float = 1.0) -> None:
        self.store = store
        self.broker = Broker(ring)
        self.relay = Relay(self.broker, poll_seconds=poll, rng=random.Random(1))

    async def open(self, cursor: Cursor = BEGINNING) -> Reader:
        reader = Reader(NAME, cursor, self.store.look, self.broker, self.relay)
        await reader.open()
        return reader

    def feed(self) -> Channel:
        channel = self.broker.hold(NAME)
        channel.feeder = self
        return channel

    def stop_feeding(self, channel: Channel) -> None:
        channel.feeder = None
        self.broker.release(channel)
