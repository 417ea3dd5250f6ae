"""How much all readers of a process are handed together: in one turn of its loop, and in pages of the log.

A thousand of them could be handed gigabytes at once, which their sockets take: nothing else would have its turn
meanwhile, not even the lease. And what each holds until it reads on has to fit beside what the others hold.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from circuit.events import Frame

BATCH_BYTES = 64 * 1024
"""What one reader is handed at once, if it is more than a frame: as much as a transport takes before it is full."""
TURN_BYTES = 4 * 1024 * 1024
"""What all are handed in one turn of the loop, twice as much at most: some milliseconds."""

PAGE_BYTES = 128 * 1024
"""Where the frames of a page have so much text it ends, however many read: what 500 frames usually have."""
LARGEST_PAGE = 4 * 1024 * 1024
ROOM_BYTES = 32 * 1024 * 1024
"""What larger pages may have together."""


def size(frames: Sequence[Frame]) -> int:
    """Bytes of what `frames` say."""
    return sum([len(frame.body) for frame in frames])


def batch(frames: Sequence[Frame]) -> Sequence[Frame]:
    """The first of `frames` that are handed to one reader at once: at least one, if there is any."""
    left = BATCH_BYTES
    for count, frame in enumerate(frames, 1):
        left -= len(frame.body)
        if left <= 0:
            return frames[:count] if count < len(frames) else frames
    return frames


class Pace:
    """The bytes of one turn of the loop: who is handed some `spend`s them, and where it is `crowded` a reader waits
    for its `turn`. The last may spend more than there are: no less than a frame can be handed."""

    __slots__ = ("_renewing", "_waiting", "left")

    def __init__(self) -> None:
        self.left = TURN_BYTES
        self._renewing = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    def spend(self, count: int) -> None:
        """Somebody is handed so many bytes."""
        self.left -= count
        if not self._renewing:
            self._renewing = True
            asyncio.get_running_loop().call_soon(self._renew)

    @property
    def crowded(self) -> bool:
        """Whether a reader has to wait for its turn: nothing is left, or others wait."""
        return self.left <= 0 or bool(self._waiting)

    async def turn(self) -> None:
        """Wait for a turn, in which there is a batch for whoever waited."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        await mine
        self.left += BATCH_BYTES

    def _renew(self) -> None:
        self.left = TURN_BYTES
        # Of those who wait the first are woken, each for a batch that is kept for it. Half of a turn is theirs; the
        # rest is for what goes down the lines.
        while self._waiting and self.left > TURN_BYTES // 2:
            mine = self._waiting.popleft()
            if not mine.done():
                mine.set_result(None)
                self.left -= BATCH_BYTES
        self._renewing = bool(self._waiting)
        if self._renewing:
            asyncio.get_running_loop().call_soon(self._renew)


class Room:
    """The bytes that pages may have which readers hold: few readers have large ones, and many have small ones. Where
    nothing is `left` each still has its `PAGE_BYTES`."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = ROOM_BYTES

    def page(self) -> int:
        """How many bytes the next page of a reader may have."""
        return max(PAGE_BYTES, min(LARGEST_PAGE, self.left // 8))
