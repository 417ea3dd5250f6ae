"""What tests of actions call them with: a call as the engine makes it, and a context that remembers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from circuit.engine.action import ActionCall
from circuit.events import StreamDelta
from circuit.ids import CaseKey
from circuit.spend import Spend

CASE = UUID("0199f3a2-7c1e-7d54-9c0b-2f5c1f0f7a11")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def call(kind: str, config: Mapping[str, Any], inputs: Mapping[str, Any] | None = None, **changes: Any) -> ActionCall:
    values: dict[str, Any] = {
        "key": CaseKey(1, CASE),
        "firing": 1,
        "attempt": 1,
        "start": 1,
        "execution_id": f"{CASE}.1",
        "workflow_id": "test",
        "transition": "act",
        "kind": kind,
        "config": {**config, "occurrence": 0},
        "inputs": dict(inputs or {}),
        "tokens": (),
        "history_count": 0,
        "timeout_seconds": 10.0,
    }
    return ActionCall(**{**values, **changes})


@dataclass
class Remembering:
    """A context that keeps what it was told."""

    said: list[StreamDelta] = field(default_factory=list[StreamDelta])
    journal: dict[str, Any] = field(default_factory=dict[str, Any])

    async def emit(self, delta: StreamDelta) -> None:
        self.said.append(delta)

    async def record(self, step: str, value: Any) -> Any:
        return self.journal.setdefault(step, value)

    async def hold(self, most: Spend) -> int | None:
        return None

    def settle(self, charge: int, spent: Spend) -> None:
        return None

    def now(self) -> datetime:
        return NOW
