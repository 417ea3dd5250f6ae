"""What an agent needs from outside: somebody who hears it and a journal that remembers for it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

from circuit.events import StreamDelta


class Journal(Protocol):
    """The surroundings of one agent run. `circuit.actions.agent` supplies it."""

    async def emit(self, delta: StreamDelta) -> None:
        """Send a stream event to the readers of this run."""
        ...

    def recorded(self, step: str) -> Any:
        """What an earlier start of this attempt recorded under `step`; None if nothing."""
        ...

    async def record(self, step: str, value: Any) -> Any:
        """Keep `value` (JSON) under `step` and return when it is durable. What comes back is what is kept."""
        ...

    def now(self) -> datetime:
        """The present instant."""
        ...
