"""A case as it was after one of its events, worked out from its history alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from circuit.engine.audit.replay import Replay
from circuit.engine.views import EventView, TokenView, instant
from circuit.ids import CaseKey, Numbered
from circuit.storage.history import Recorded
from circuit.storage.records import CaseStatus, FiringState


@dataclass(frozen=True, slots=True)
class FiringThen:
    """A firing that was under way: it ran, waited without a worker (`suspended`) or for its next try (`offered`)."""

    execution_id: str
    transition: str
    state: FiringState
    begun_at: datetime
    attempt: int

    def as_dict(self) -> dict[str, Any]:
        return {
            "execution_id": self.execution_id,
            "transition": self.transition,
            "state": self.state.value,
            "begun_at": instant(self.begun_at),
            "attempt": self.attempt,
        }


@dataclass(frozen=True, slots=True)
class Moment:
    """A case after its event `event`, of `last` that it has by now. `status` is set where that event ended it;
    `incidents` are the numbers of those that were open, `fired` counts the firings of each transition up to then."""

    key: CaseKey
    event: EventView
    last: int
    workflow_id: str
    workflow_hash: str
    status: CaseStatus | None
    tokens: Sequence[TokenView]
    firings: Sequence[FiringThen]
    incidents: Sequence[int]
    fired: Mapping[str, int]

    @property
    def marking(self) -> dict[str, int]:
        """How many tokens lay in each place that was not empty."""
        return dict(Counter(token.place for token in self.tokens))

    def as_dict(self) -> dict[str, Any]:
        return {
            "case_id": str(self.key.case),
            "at": self.event.seq,
            "events": self.last,
            "event": self.event.as_dict(),
            "workflow": self.workflow_id,
            "workflow_hash": self.workflow_hash,
            "ended": self.status.value if self.status is not None else None,
            "marking": self.marking,
            "tokens": [
                {**token.as_dict(), "version": token.version, "held_by": token.execution_id} for token in self.tokens
            ],
            "firings": [firing.as_dict() for firing in self.firings],
            "open_incidents": list(self.incidents),
            "fired": dict(self.fired),
        }


def moment(replay: Replay, told: Recorded, last: int) -> Moment:
    """The case of `replay`, to which the event `told` was applied last; it has `last` events."""
    key, started = replay.key, replay.started
    assert started is not None
    return Moment(
        key,
        EventView(key, *told),
        last,
        started.workflow,
        replay.version,
        None if replay.ended is None else CaseStatus(replay.ended.status),
        [
            TokenView(
                str(Numbered(key.case, token.number)),
                token.version,
                token.place,
                token.data,
                token.metadata,
                token.entered_at,
                _execution_id(key, replay.marking.reserved_by(token.number)),
            )
            for token in sorted(replay.marking.all(), key=lambda token: token.number)
        ],
        [
            FiringThen(str(Numbered(key.case, one.number)), one.transition, one.stands, one.begun_at, one.attempt)
            for one in replay.firings.values()
            if one.live
        ],
        [number for number, is_open in replay.incidents.items() if is_open],
        dict(replay.fired),
    )


def _execution_id(key: CaseKey, firing: int | None) -> str | None:
    return None if firing is None else str(Numbered(key.case, firing))
