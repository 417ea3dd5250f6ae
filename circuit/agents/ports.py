"""What an agent needs from outside: somebody who hears it, a journal that remembers for it, and people it may ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    async def ask_person(
        self,
        key: str,
        payload: Mapping[str, Any],
        *,
        roles: Sequence[str] = (),
        timeout_seconds: float | None = None,
        form: Mapping[str, Any] | None = None,
    ) -> Mapping[str, Any]:
        """What a person answers to `payload`: the answer's own keys, or `timed_out`. The run ends here and is started
        again when the answer is there, perhaps days later and in another process."""
        ...

    def now(self) -> datetime:
        """The present instant."""
        ...
