"""What an agent needs from outside: somebody who hears it, a journal that remembers for it, people it may ask, and what
was said before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from circuit.events import StreamDelta
from circuit.spend import Spend


class Memory(Protocol):
    """What one conversation remembers of earlier runs. `circuit.engine.conversations` supplies it."""

    async def length(self) -> int:
        """How many messages there are."""
        ...

    async def recall(self, upto: int) -> Sequence[tuple[int, Mapping[str, Any]]]:
        """What an agent is told of the first `upto` messages, as JSON (`role`, `parts`), each with the number of the
        last message that is known with it. A summary has the role `summary`."""
        ...


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

    def screened(self, step: str, decision: Mapping[str, Any], event: Mapping[str, Any]) -> None:
        """Keep what screening decided under `step`, and have the history say it (`event`), once."""
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

    async def hold(self, most: Spend) -> int | None:
        """Hold the most that a call of a model may cost, before it is made: the number of the charge, or None where no
        budget applies. Raises `BudgetExhausted` and `BudgetUnbounded`."""
        ...

    def settle(self, charge: int, spent: Spend) -> None:
        """What the call did cost: settled with what is recorded next."""
        ...

    def now(self) -> datetime:
        """The present instant."""
        ...
