"""The streams that somebody in this process writes or reads.

A channel exists while somebody reads it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple

from circuit.events import CaseEvent
from circuit.streams.channel import Channel, Feeder
from circuit.streams.news import News
from circuit.streams.pace import Pace, Room

RING_FRAMES = 1000

MOST_OVERHEARD = 10_000


class Heard(NamedTuple):
    """Names of which something is new. `lost` says that there may be others."""

    names: frozenset[str]
    lost: bool


class Ear:
    """Hears of every case that changes, for whoever does not know beforehand which ones count."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._lost = False
        self._woken = asyncio.Event()

    def hear(self, name: str) -> None:
        """Something of the case `name` is new."""
        if len(self._names) < MOST_OVERHEARD:
            self._names.add(name)
        else:
            self._lost = True
        self._woken.set()

    def lose(self) -> None:
        """Hints may have been lost."""
        self._lost = True
        self._woken.set()

    async def heard(self, seconds: float) -> Heard:
        """What was heard since the last time; waits for it up to `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()
        found = Heard(frozenset(self._names), self._lost)
        self._names.clear()
        self._lost = False
        return found


class Broker:
    """The channels of this process, by name: an execution's `CASE.NUMBER`, or a case's id for its events."""

    def __init__(self, ring_frames: int = RING_FRAMES) -> None:
        if ring_frames < 1:
            raise ValueError(f"a ring of {ring_frames} frames holds nothing; give 1 or more")
        self._ring_frames = ring_frames
        self.room = Room()
        self._pace = Pace()
        self._channels: dict[str, Channel] = {}
        self._feeders: dict[str, Feeder] = {}
        self._ears: set[Ear] = set()

    def __len__(self) -> int:
        """How many channels there are: none when nobody writes or reads."""
        return len(self._channels)

    def hold(self, name: str) -> Channel:
        """The channel `name`, kept until `release`."""
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel(name, self._ring_frames, self._pace)
            channel.feeder = self._feeders.get(name)
        channel.holders += 1
        return channel

    def release(self, channel: Channel) -> None:
        """Give `channel` back; the last holder's release forgets it."""
        channel.holders -= 1
        if channel.holders == 0:
            channel.rest()
            self._channels.pop(channel.name, None)

    def fed(self, name: str, feeder: Feeder) -> None:
        """From now on the stream `name` is written here, by `feeder`, in the place of who did before."""
        self._feeders[name] = feeder
        channel = self._channels.get(name)
        if channel is not None:
            channel.feeder = feeder

    def unfed(self, name: str, feeder: Feeder) -> None:
        """`feeder` writes it no more. Twice is fine."""
        if self._feeders.get(name) is feeder:
            del self._feeders[name]
            channel = self._channels.get(name)
            if channel is not None:
                channel.feeder = None

    def find(self, name: str) -> Channel | None:
        """The channel `name`, if somebody holds it."""
        return self._channels.get(name)

    def tell(self, name: str, seq: int, events: Sequence[tuple[datetime, CaseEvent]]) -> None:
        """The case `name` has `events`, the first of which has the number `seq`: this process committed them."""
        channel = self._channels.get(name)
        if channel is not None and events:
            if channel.news is None:
                channel.news = News()
            channel.news.add(seq, events)
            channel.told += channel.feeder is None
        self.hear(name)

    def hear(self, name: str) -> None:
        """A hint that something new about `name` is in the log. A stream that is written here needs none."""
        channel = self._channels.get(name)
        if channel is not None and channel.feeder is None:
            channel.ring()
        if self._ears and "." not in name:
            for ear in self._ears:
                ear.hear(name)

    def overhear(self) -> Ear:
        """An ear for every case; give it back with `ignore`."""
        ear = Ear()
        self._ears.add(ear)
        return ear

    def ignore(self, ear: Ear) -> None:
        """Forget an ear."""
        self._ears.discard(ear)

    def hear_all(self) -> None:
        """A hint that anything may have changed: wake-ups may have been lost."""
        for channel in list(self._channels.values()):
            if channel.feeder is None:
                channel.ring()
        for ear in self._ears:
            ear.lose()
