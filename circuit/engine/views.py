"""What queries give back: plain values, and their JSON as every door (CLI, GraphQL, Python) shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from circuit.events import CaseEvent, Origin, TokenImage, TokenRef
from circuit.ids import CaseKey, Numbered
from circuit.storage.records import CaseStatus
from circuit.tracing import trace_id_of


def instant(at: datetime) -> str:
    """An instant as JSON has it: UTC, milliseconds, `Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class WorkflowView:
    """A published workflow. `hash` names its current version."""

    id: str
    name: str
    description: str
    hash: str
    published_at: datetime
    published_by: str
    document: Mapping[str, Any]
    retired_at: datetime | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "workflow": self.id,
            "name": self.name,
            "description": self.description,
            "hash": self.hash,
            "published_at": instant(self.published_at),
            "published_by": self.published_by,
        }


@dataclass(frozen=True, slots=True)
class CaseSummary:
    """A case in a list. `lacks` says what it needs of a worker where no running worker has it, `seq` how many
    events it has had."""

    key: CaseKey
    status: CaseStatus
    workflow_id: str
    workflow_hash: str
    started_at: datetime
    finished_at: datetime | None = None
    lacks: str | None = None
    seq: int = 0
    traceparent: str | None = None

    @property
    def trace_id(self) -> str:
        """The trace in which the case is, where its work is traced."""
        return trace_id_of(self.key.case, self.traceparent)

    def as_dict(self) -> dict[str, Any]:
        shown = {
            "case_id": str(self.key.case),
            "status": self.status.value,
            "workflow": self.workflow_id,
            "started_at": instant(self.started_at),
        }
        return shown if self.lacks is None else {**shown, "no_worker_for": self.lacks}


@dataclass(frozen=True, slots=True)
class TokenView:
    """A token where it lies. `execution_id` is what holds it, if something does."""

    id: str
    version: int
    place: str
    data: Mapping[str, Any]
    metadata: Mapping[str, Any]
    entered_at: datetime
    execution_id: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return {"id": self.id, "place": self.place, "data": dict(self.data), "metadata": dict(self.metadata)}


@dataclass(frozen=True, slots=True)
class EventView:
    """One event of a case's history."""

    key: CaseKey
    seq: int
    at: datetime
    event: CaseEvent

    @property
    def kind(self) -> str:
        return self.event.kind

    def as_dict(self) -> dict[str, Any]:
        """`seq`, `kind`, `at` and the event's own fields; fields that say nothing are left out."""
        shown: dict[str, Any] = {"seq": self.seq, "kind": self.event.kind, "at": instant(self.at)}
        for name in self.event.__slots__:
            value = getattr(self.event, name)
            if value is None or value == () or name == "firing":
                continue
            shown[name] = self._shown(value)
        return shown

    def _shown(self, value: Any) -> Any:
        if isinstance(value, datetime):
            return instant(value)
        if isinstance(value, Origin):
            return {"case_id": value.case_id, "seq": value.seq}
        if isinstance(value, tuple):
            return [self._shown(item) for item in value]
        if isinstance(value, TokenRef | TokenImage):
            token: dict[str, Any] = {"id": self._token(value.number), "version": value.version, "place": value.place}
            if isinstance(value, TokenImage) and value.parents:
                token["parents"] = [self._token(number) for number in value.parents]
            return token
        return value

    def _token(self, number: int) -> str:
        return str(Numbered(self.key.case, number))


@dataclass(frozen=True, slots=True)
class IncidentView:
    """Something that could not proceed. It is open while `resolved_at` is None; `tokens` are those it is about."""

    number: int
    transition: str
    code: str
    message: str
    raised_at: datetime
    execution_id: str | None = None
    resolved_at: datetime | None = None
    resolved_by: str | None = None
    tokens: tuple[str, ...] = ()

    @property
    def open(self) -> bool:
        return self.resolved_at is None

    def as_dict(self) -> dict[str, Any]:
        return {
            "incident": self.number,
            "transition": self.transition,
            "code": self.code,
            "message": self.message,
            "execution_id": self.execution_id,
            "raised_at": instant(self.raised_at),
            "resolved_at": instant(self.resolved_at) if self.resolved_at else None,
            "resolved_by": self.resolved_by,
        }


@dataclass(frozen=True, slots=True)
class IncidentEntry:
    """An open incident in a list over cases. `blocks` are the tokens (number, version) that it is about."""

    key: CaseKey
    workflow_id: str
    incident: IncidentView
    blocks: tuple[tuple[int, int], ...]

    def as_dict(self) -> dict[str, Any]:
        tokens = [str(Numbered(self.key.case, number)) for number, _ in self.blocks]
        return {
            "case_id": str(self.key.case),
            "workflow": self.workflow_id,
            **self.incident.as_dict(),
            "tokens": tokens,
        }


@dataclass(frozen=True, slots=True)
class DeadLetterEntry:
    """A token in a dead-letter place, in a list over cases."""

    key: CaseKey
    workflow_id: str
    number: int
    token: TokenView

    @property
    def failure(self) -> Mapping[str, Any]:
        """Why it lies there, where a failed firing put it there: `code`, `message`, `transition`, `place`."""
        failure: Any = self.token.metadata.get("failure")
        return failure if isinstance(failure, Mapping) else {}

    def as_dict(self) -> dict[str, Any]:
        return {"case_id": str(self.key.case), "workflow": self.workflow_id, **self.token.as_dict()}


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task that waits for a person: who may complete it, what it asks for, and what it is about."""

    id: str
    key: CaseKey
    workflow_id: str
    transition: str
    title: str
    instructions: str
    inputs: Mapping[str, Any]
    roles: tuple[str, ...]
    form: Mapping[str, Any]
    since: datetime
    due_at: datetime | None

    def as_dict(self) -> dict[str, Any]:
        return {
            "task": self.id,
            "case_id": str(self.key),
            "workflow": self.workflow_id,
            "transition": self.transition,
            "title": self.title,
            "instructions": self.instructions,
            "inputs": dict(self.inputs),
            "roles": list(self.roles),
            "form": dict(self.form),
            "since": instant(self.since),
            "due_at": instant(self.due_at) if self.due_at else None,
        }


@dataclass(frozen=True, slots=True)
class ExecutionView:
    """One run of an action inside a firing: what its stream is addressed by. While it waits without a worker its
    status is `suspended`, and `awaits` says for what."""

    id: str
    transition: str
    status: str
    started_at: datetime
    finished_at: datetime | None = None
    descriptor: Mapping[str, Any] = field(default_factory=dict[str, Any])
    usage: Mapping[str, Any] = field(default_factory=dict[str, Any])
    error: Mapping[str, Any] | None = None
    retry_at: datetime | None = None
    awaits: Mapping[str, Any] | None = None
    wake_at: datetime | None = None

    def as_dict(self) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "execution_id": self.id,
            "transition": self.transition,
            "status": self.status,
            "agent_id": self.descriptor.get("agent_id"),
            "model": self.descriptor.get("model"),
            "started_at": instant(self.started_at),
            "finished_at": instant(self.finished_at) if self.finished_at else None,
            "usage": dict(self.usage),
            "error": dict(self.error) if self.error is not None else None,
        }
        if self.awaits is not None:
            shown["awaits"] = dict(self.awaits)
            shown["wake_at"] = instant(self.wake_at) if self.wake_at else None
        return shown


@dataclass(frozen=True, slots=True)
class CaseStanding:
    """Whether a case goes on by itself: what `CaseView` says of it, and no more. `seq` counts its events; `retrying`: a
    firing of it waits for another attempt."""

    status: CaseStatus
    seq: int
    owned: bool = False
    retrying: bool = False
    due_at: datetime | None = None

    def at_hand(self, now: datetime) -> bool:
        """Whether a worker has it, or nobody has anything to do in it before the next attempt."""
        return self.owned or (self.retrying and self.due_at is not None and self.due_at > now)


@dataclass(frozen=True, slots=True)
class CaseView:
    """A case with all that is to be seen of it. `due_at` is when it does something next by itself, if it waits;
    `owned` says that a worker has it, or one of the cases that it opened. `parent` is the execution that opened it."""

    key: CaseKey
    status: CaseStatus
    workflow_id: str
    workflow_hash: str
    started_at: datetime
    finished_at: datetime | None
    due_at: datetime | None
    tokens: Sequence[TokenView]
    history: Sequence[EventView]
    incidents: Sequence[IncidentView]
    executions: Sequence[ExecutionView]
    owned: bool = False
    parent: str | None = None
    children: Sequence[CaseSummary] = ()
    traceparent: str | None = None

    @property
    def case_id(self) -> str:
        return str(self.key.case)

    @property
    def standing(self) -> CaseStanding:
        """Whether it goes on by itself, and when."""
        retrying = any(one.retry_at is not None for one in self.executions)
        return CaseStanding(self.status, self.history[-1].seq, self.owned, retrying, self.due_at)

    @property
    def marking(self) -> dict[str, int]:
        """How many tokens lie in each place that is not empty."""
        counts: dict[str, int] = {}
        for token in self.tokens:
            counts[token.place] = counts.get(token.place, 0) + 1
        return counts

    def as_dict(self) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "case_id": self.case_id,
            "status": self.status.value,
            "workflow": self.workflow_id,
            "workflow_hash": self.workflow_hash,
            "started_at": instant(self.started_at),
            "finished_at": instant(self.finished_at) if self.finished_at else None,
            "trace_id": trace_id_of(self.key.case, self.traceparent),
        }
        if self.due_at is not None:
            shown["due_at"] = instant(self.due_at)
        if self.parent is not None:
            shown["parent"] = self.parent
        if self.children:
            shown["children"] = [child.as_dict() for child in self.children]
        return shown | {
            "marking": self.marking,
            "tokens": [token.as_dict() for token in self.tokens],
            "history": [event.as_dict() for event in self.history],
            "incidents": [incident.as_dict() for incident in self.incidents],
            "executions": [execution.as_dict() for execution in self.executions],
        }


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One thing that keeps a transition from firing: what kind, about what, what is there and what is needed."""

    kind: str
    subject: str
    have: Any
    need: Any
    message: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "subject": self.subject,
            "have": self.have,
            "need": self.need,
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class TransitionWhy:
    """What one transition of a case waits for. An enabled one without obstacles fires as soon as it has its turn."""

    transition: str
    enabled: bool
    obstacles: tuple[Obstacle, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "transition": self.transition,
            "enabled": self.enabled,
            "reasons": [obstacle.as_dict() for obstacle in self.obstacles],
        }


@dataclass(frozen=True, slots=True)
class CaseWhy:
    """Why a case is where it is."""

    key: CaseKey
    status: CaseStatus
    summary: str
    transitions: tuple[TransitionWhy, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "case_id": str(self.key.case),
            "status": self.status.value,
            "summary": self.summary,
            "transitions": [transition.as_dict() for transition in self.transitions],
        }
