"""Wake-ups between processes: hints over the database's notifications, and a jittered poll for those that get lost.

A hint carries a name and nothing else; what is new stands in the log. A lost hint costs one poll's wait.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from circuit.streams.broker import Broker

POLL_SECONDS = 1.0
FED_POLL_FACTOR = 10.0
"""A stream that is written in this process is looked up this many times more rarely: only its writer's end matters."""


class Relay:
    """Passes hints on to the broker and says how long a reader waits without one.

    `listening` answers whether hints arrive at present; while they do, polling
    is the second line and slower.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        poll_seconds: float = POLL_SECONDS,
        listening: Callable[[], bool] = lambda: False,
        rng: random.Random | None = None,
    ) -> None:
        if poll_seconds <= 0:
            raise ValueError(f"polling every {poll_seconds} s would never rest; give more than 0")
        self._broker = broker
        self._poll_seconds = poll_seconds
        self._listening = listening
        self._rng = rng or random.Random()

    def hear(self, name: str) -> None:
        """A hint of another process: something of `name` is new."""
        self._broker.hear(name)

    def reconnected(self) -> None:
        """Hints may have been missed: everybody looks."""
        self._broker.hear_all()

    def pause(self, *, fed: bool) -> float:
        """Seconds until the next look without a hint, a quarter more or less so that readers do not look as one."""
        seconds = self._poll_seconds * (FED_POLL_FACTOR if fed else 2.0 if self._listening() else 1.0)
        return seconds * self._rng.uniform(0.75, 1.25)
