"""The one interface between a firing and what it does.

The engine hands an `ActionCall` to the `Action` that is registered under its `kind`, outside any transaction. The
action talks back through its `ActionContext` and either returns an `ActionOutput` or raises one of Circuit's
errors; what becomes of the firing then is the owner's decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from typing import Any, Protocol

from circuit.events import StreamDelta
from circuit.ids import CaseKey
from circuit.value import dataclass


@dataclass(frozen=True, slots=True)
class ActionCall:
    """One start of one attempt of a firing: everything that its action may know, frozen when the firing began.

    `attempt` counts tries after failures and keys the journal; `start` counts starts (every retry and every resume)
    and is the `attempt` of the stream. `recorded` is the journal of this attempt: step name to value.
    """

    key: CaseKey
    firing: int
    attempt: int
    start: int
    execution_id: str
    workflow_id: str
    transition: str
    kind: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Any]
    tokens: tuple[Mapping[str, Any], ...]
    history_count: int
    timeout_seconds: float
    recorded: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ActionOutput:
    """What an action gives back. `outputs` are the names that `output_mapping` maps from."""

    outputs: Mapping[str, Any]
    text: str = ""
    output: Any = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""


class ActionContext(Protocol):
    """What an action may do while it runs."""

    async def emit(self, delta: StreamDelta) -> None:
        """Send a stream event to the readers of this execution."""
        ...

    async def record(self, step: str, value: Any) -> Any:
        """Put `value` (JSON) into the journal under `step` and wait until it is committed.

        The first write wins: what comes back is what the journal holds.
        """
        ...

    def now(self) -> datetime:
        """The present instant."""
        ...


class Action(Protocol):
    """Performs one kind of call."""

    async def perform(self, call: ActionCall, context: ActionContext) -> ActionOutput:
        """Do the work. Raises `FiringError` or `ProviderError`; anything else counts as `action_failed`."""
        ...
