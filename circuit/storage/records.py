"""The rows that a case's owner reads and writes, as plain values.

`CaseState` is what a worker reads when it claims a case. `CaseWrite` is everything that one step of an owner changes:
the writer commits it as a whole or not at all, and only if the case is still at `expected_seq` and still belongs to
the writer's incarnation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from circuit.events import CaseEvent, CaseStarted, Frame
from circuit.ids import CaseKey
from circuit.net.marking import Token
from circuit.value import dataclass

QUARANTINE_CRASHES = 2
"""After so many crashes a firing runs alone, and only a crash in which it did so counts."""


class CaseStatus(StrEnum):
    RUNNING = "running"
    WAITING = "waiting"
    ATTENTION = "attention"
    STUCK = "stuck"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in (CaseStatus.COMPLETED, CaseStatus.FAILED, CaseStatus.CANCELLED)


class FiringState(StrEnum):
    OFFERED = "offered"
    RUNNING = "running"
    SUSPENDED = "suspended"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def live(self) -> bool:
        return self in (FiringState.OFFERED, FiringState.RUNNING, FiringState.SUSPENDED)


class CommandState(StrEnum):
    PENDING = "pending"
    APPLIED = "applied"
    REFUSED = "refused"


class ExecutionStatus(StrEnum):
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Parent(NamedTuple):
    """Which firing of which case of the tenant a case was opened by."""

    case: UUID
    firing: int


@dataclass(frozen=True, slots=True)
class CaseRow:
    """`seq`, `next_token` and `next_firing` are the case's counters; `parameters` holds what the start asked for
    (`models`: provider replacements of this case, by agent id or `*`), `bucket` stands for what it needs of a
    worker; `traceparent` is the trace in which it was started, where that is known."""

    workflow_id: str
    workflow_hash: str
    status: CaseStatus
    seq: int
    next_token: int
    next_firing: int
    next_incident: int
    started_at: datetime
    finished_at: datetime | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    bucket: int = 0
    parent: Parent | None = None
    depth: int = 0
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class NewCase:
    """A case that is to be written. `requires` is what it needs of a worker, `leaving` says that its first event goes
    to the outbox, `subjects` are those whom it is about."""

    key: CaseKey
    row: CaseRow
    tokens: Sequence[Token]
    event: CaseStarted
    requires: Mapping[str, Any]
    leaving: bool
    subjects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FiringRow:
    """One firing. `attempt` counts tries after failures, `start` counts starts, `crashes` counts lost processes.

    `request` is what was frozen at the begin: `consumed` and `read` (token refs), `inputs`, `tokens`,
    `history_count`, `form`, `principal`, `refreshed` (the token that is refreshed) and `due` (since when). `awaits` is
    what a suspended firing waits for (`kind`, `key`, `payload`, `since`, and `roles` and `form` of who may say it and
    how), `wake_at` when it goes on without it.
    """

    number: int
    transition: str
    state: FiringState
    attempt: int
    start: int
    request: Mapping[str, Any]
    retry_at: datetime | None = None
    crashes: int = 0
    error: Mapping[str, Any] | None = None
    begun_at: datetime | None = None
    wake_at: datetime | None = None
    awaits: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ExecutionRow:
    """One agent run: the execution `CASE.firing`. `descriptor` names agent, versions, provider, model, parameters."""

    firing: int
    status: ExecutionStatus
    descriptor: Mapping[str, Any]
    started_at: datetime
    finished_at: datetime | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, Any] | None = None


ANSWERS = ("answer:", "summary:", "held:", "embedding:", "ranking:")
"""How the names of journalled steps begin that are answers of models."""
ALL_ATTEMPTS = 0
"""The attempt of the journal's rows that count in every attempt of their firing."""


@dataclass(frozen=True, slots=True)
class JournalRow:
    firing: int
    attempt: int
    step: str
    value: Any


@dataclass(frozen=True, slots=True)
class StreamRow:
    """A stored frame of the stream of the execution `CASE.firing`."""

    firing: int
    frame: Frame


@dataclass(frozen=True, slots=True)
class IncidentRow:
    """Something that cannot proceed. `blocks` are the tokens (number, version) that its transition must not take
    again while it is open."""

    number: int
    transition: str
    firing: int | None
    code: str
    message: str
    blocks: tuple[tuple[int, int], ...]
    raised_at: datetime
    resolved_at: datetime | None = None
    resolved_by: str | None = None


TRACEPARENT = "traceparent"
"""Where a command keeps, beside who asked, in which trace he did."""


@dataclass(frozen=True, slots=True)
class CommandRow:
    """What somebody other than the owner asks of a case. `kind`: `fire`, `signal`, `retry`, `resolve`,
    `put_back`, `granted`, `message`, `modify`, `migrate`, `summon`, `cancel`."""

    id: UUID
    kind: str
    payload: Mapping[str, Any]
    principal: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CommandResult:
    id: UUID
    state: CommandState
    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TokenMove:
    """A token that stays a row: a new place, data or version, or only another reservation (then the versions match)."""

    token: Token
    from_version: int
    reserved_by: int | None


@dataclass(frozen=True, slots=True)
class HoldRow:
    """What one firing asks of one shared place of its workflow."""

    place: str
    firing: int
    amount: int
    asked_at: datetime


@dataclass(slots=True)
class Holds:
    """What a step asks of shared places, and the holds that it ends."""

    asked: list[HoldRow] = field(default_factory=list[HoldRow])
    freed: list[HoldRow] = field(default_factory=list[HoldRow])


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A message of a conversation. `parts` are typed, as JSON; `agent_id` is who said it, where somebody else than the
    conversation's agent did; `covers` is the last message that a summary stands for."""

    role: str
    parts: Any
    agent_id: str | None = None
    covers: int | None = None


@dataclass(frozen=True, slots=True)
class ExchangeRow:
    """What a completed firing adds to a conversation, which begins with it if it is not there."""

    conversation: UUID
    agent_id: str
    token: int | None
    firing: int
    messages: Sequence[MessageRow]


class AwaitedMessage(NamedTuple):
    """A message that a transition of a case waits for: its name, and its key as it is stored."""

    transition: str
    name: str
    key: str


@dataclass(slots=True)
class Mail:
    """What a step changes of the messages that its case waits for. It is there (and perhaps empty) also where the step
    answered one."""

    put: Sequence[AwaitedMessage] = ()
    taken: Sequence[AwaitedMessage] = ()


@dataclass(frozen=True, slots=True)
class AskedRow:
    """What a case asks of another one of its tenant. The same `id` again counts once."""

    case: UUID
    id: UUID
    kind: str
    payload: Mapping[str, Any]
    principal: Mapping[str, Any]


@dataclass(slots=True)
class CaseWrite:
    """One step of one case. `row` is the case's row after it; `events` take the numbers from `expected_seq + 1`.

    `tokens_put` are new rows, each with the firing that reserves it already, if one does; `outbox` are the numbers of
    the events that leave Circuit. `fired`, where it is given, is how often each transition has fired up to and with
    this step: who reads the case later counts on from there. `migrated` says that the case goes on in the version that
    `row` names, with other needs. The step counts only if it is not before `not_before` by
    the database's clock: something in it was due then."""

    key: CaseKey
    expected_seq: int
    row: CaseRow
    events: Sequence[tuple[datetime, CaseEvent]] = ()
    tokens_put: Sequence[tuple[Token, int | None]] = ()
    tokens_moved: Sequence[TokenMove] = ()
    tokens_taken: Sequence[tuple[int, int]] = ()
    firings_opened: Sequence[FiringRow] = ()
    firings_changed: Sequence[FiringRow] = ()
    executions_opened: Sequence[ExecutionRow] = ()
    executions_changed: Sequence[ExecutionRow] = ()
    frames: Sequence[StreamRow] = ()
    journal: Sequence[JournalRow] = ()
    incidents_opened: Sequence[IncidentRow] = ()
    incidents_changed: Sequence[IncidentRow] = ()
    commands_settled: Sequence[CommandResult] = ()
    fired: Mapping[str, int] | None = None
    outbox: Sequence[int] = ()
    release: bool = False
    due_at: datetime | None = None
    holds: Holds | None = None
    exchanges: Sequence[ExchangeRow] = ()
    not_before: datetime | None = None
    mail: Mail | None = None
    migrated: bool = False
    opened: Sequence[NewCase] = ()
    asked: Sequence[AskedRow] = ()


@dataclass(frozen=True, slots=True)
class ChargeRow:
    """What a call of a model did cost, in the units of budgets; None stands at the most that it could."""

    firing: int
    start: int
    number: int
    calls: int
    tokens: int | None
    microdollars: int | None


@dataclass(slots=True)
class LogWrite:
    """What is appended while a firing runs, without a step of its case: journal rows and frames of a stream. `settled`
    are charges of budgets whose calls were answered."""

    key: CaseKey
    journal: Sequence[JournalRow] = ()
    frames: Sequence[StreamRow] = ()
    settled: Sequence[ChargeRow] = ()


@dataclass(slots=True)
class CaseState:
    """A case as its new owner reads it: live firings only, their executions, and the journal of their present
    attempts (firing, then step). `fired` counts the completed firings by transition, as far as the event `fired_seq`
    without looking at the history; `incidents` are the open ones, `waiting` the firings
    that were not yet granted what they ask of shared places, `awaited` the messages that it is known to wait for."""

    key: CaseKey
    row: CaseRow
    tokens: list[tuple[Token, int | None]]
    firings: list[FiringRow]
    executions: list[ExecutionRow]
    incidents: list[IncidentRow]
    commands: list[CommandRow]
    fired: Mapping[str, int]
    journal: Mapping[int, Mapping[str, Any]]
    fired_seq: int = 0
    waiting: frozenset[int] = frozenset()
    awaited: frozenset[AwaitedMessage] = frozenset()
