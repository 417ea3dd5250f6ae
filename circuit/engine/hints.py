"""How the doors of the engine hear that a case has new events, and tell workers that there is work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from circuit.security.principal import Principal
from circuit.storage.records import TRACEPARENT
from circuit.streams.broker import Broker
from circuit.streams.relay import Relay


@dataclass(frozen=True, slots=True)
class Hints:
    """How a process hears that a case has new events, and tells workers that there is work. `caller` is the trace of
    whoever asks for something now, if he is traced."""

    broker: Broker
    relay: Relay
    work: Callable[[], None] = field(default=lambda: None)
    caller: Callable[[], str | None] = field(default=lambda: None)

    def signed(self, principal: Principal) -> dict[str, Any]:
        """Who asks, as it goes into rows, with the trace in which he does."""
        traceparent = self.caller()
        return principal.as_dict() if traceparent is None else {**principal.as_dict(), TRACEPARENT: traceparent}
