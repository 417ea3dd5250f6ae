"""The types of the schema, each made from the engine's view of the same thing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, cast

import orjson
import strawberry
from strawberry.scalars import JSON

from circuit.api.problems import timestamp
from circuit.engine.views import CaseSummary as CaseSummaryView
from circuit.engine.views import CaseView, EventView, ExecutionView, IncidentView, TokenView, WorkflowView
from circuit.errors import InvalidRequest
from circuit.events import Frame

DateTime = strawberry.scalar(
    name="DateTime",
    description="An instant in UTC, as RFC 3339 writes it: `2026-11-21T12:00:00.000Z`.",
    serialize=timestamp,
    parse_value=datetime.fromisoformat,
)


def as_json(value: Any) -> JSON:
    """`value`, for a field of any JSON."""
    return cast("JSON", value)


@strawberry.type(description="A published workflow, in its current version.")
class Workflow:
    id: str
    name: str
    description: str
    hash: str = strawberry.field(description="The content hash of the version.")
    published_at: datetime
    document: JSON = strawberry.field(description="The workflow as JSON, as it was published.")

    @classmethod
    def of(cls, view: WorkflowView) -> Workflow:
        return cls(
            id=view.id,
            name=view.name,
            description=view.description,
            hash=view.hash,
            published_at=view.published_at,
            document=as_json(dict(view.document)),
        )


@strawberry.type(description="A case in a list; `case(id)` has the rest.")
class CaseSummary:
    case_id: str
    status: str
    workflow: str
    workflow_hash: str
    started_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, view: CaseSummaryView) -> CaseSummary:
        return cls(
            case_id=str(view.key.case),
            status=view.status.value,
            workflow=view.workflow_id,
            workflow_hash=view.workflow_hash,
            started_at=view.started_at,
            finished_at=view.finished_at,
        )


@strawberry.type(description="A token where it lies.")
class Token:
    id: str
    version: int
    place: str
    data: JSON
    metadata: JSON
    entered_at: datetime
    execution_id: str | None = strawberry.field(description="What holds it, if something does.")

    @classmethod
    def of(cls, view: TokenView) -> Token:
        return cls(
            id=view.id,
            version=view.version,
            place=view.place,
            data=as_json(dict(view.data)),
            metadata=as_json(dict(view.metadata)),
            entered_at=view.entered_at,
            execution_id=view.execution_id,
        )


@strawberry.type(description="One event of a case's history; `event` has all of its fields.")
class HistoryEvent:
    seq: int
    kind: str
    at: datetime
    transition: str | None
    execution_id: str | None
    status: str | None
    reason: str | None
    principal: str | None
    error: JSON | None
    event: JSON

    @classmethod
    def of(cls, view: EventView) -> HistoryEvent:
        shown = view.as_dict()
        return cls(
            seq=view.seq,
            kind=view.kind,
            at=view.at,
            transition=shown.get("transition"),
            execution_id=shown.get("execution_id"),
            status=shown.get("status"),
            reason=shown.get("reason"),
            principal=shown.get("principal"),
            error=as_json(shown.get("error")),
            event=as_json(shown),
        )


@strawberry.type(description="One run of an agent: what `agentExecutionStream` is addressed by.")
class Execution:
    execution_id: str
    transition: str
    status: str
    agent_id: str | None
    model: str | None
    started_at: datetime
    finished_at: datetime | None
    usage: JSON
    error: JSON | None

    @classmethod
    def of(cls, view: ExecutionView) -> Execution:
        return cls(
            execution_id=view.id,
            transition=view.transition,
            status=view.status,
            agent_id=view.descriptor.get("agent_id"),
            model=view.descriptor.get("model"),
            started_at=view.started_at,
            finished_at=view.finished_at,
            usage=as_json(dict(view.usage)),
            error=None if view.error is None else as_json(dict(view.error)),
        )


@strawberry.type(description="Something that could not proceed; open while `resolvedAt` is null.")
class Incident:
    incident: int
    transition: str
    code: str
    message: str
    execution_id: str | None
    raised_at: datetime
    resolved_at: datetime | None
    resolved_by: str | None

    @classmethod
    def of(cls, view: IncidentView) -> Incident:
        return cls(
            incident=view.number,
            transition=view.transition,
            code=view.code,
            message=view.message,
            execution_id=view.execution_id,
            raised_at=view.raised_at,
            resolved_at=view.resolved_at,
            resolved_by=view.resolved_by,
        )


@strawberry.type(description="A case with all that is to be seen of it.")
class Case:
    view: strawberry.Private[CaseView]
    case_id: str
    status: str
    workflow: str
    workflow_hash: str
    started_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, view: CaseView) -> Case:
        return cls(
            view=view,
            case_id=view.case_id,
            status=view.status.value,
            workflow=view.workflow_id,
            workflow_hash=view.workflow_hash,
            started_at=view.started_at,
            finished_at=view.finished_at,
        )

    @strawberry.field(description="How many tokens lie in each place that is not empty: `{place: count}`.")
    def marking(self) -> JSON:
        return as_json(self.view.marking)

    @strawberry.field
    def tokens(self) -> list[Token]:
        return [Token.of(token) for token in self.view.tokens]

    @strawberry.field(description="The events behind the number `after`, at most `first` of them.")
    def history(self, after: int = 0, first: int | None = None) -> list[HistoryEvent]:
        if after < 0 or (first is not None and first < 0):
            raise InvalidRequest("`after` and `first` count events: neither is below 0")
        wanted = [event for event in self.view.history if event.seq > after]
        return [HistoryEvent.of(event) for event in wanted[:first]]

    @strawberry.field
    def executions(self) -> list[Execution]:
        return [Execution.of(execution) for execution in self.view.executions]

    @strawberry.field
    def incidents(self) -> list[Incident]:
        return [Incident.of(incident) for incident in self.view.incidents]


@strawberry.input(description="A token from outside. Both are JSON objects.")
class TokenInput:
    data: JSON | None = None
    metadata: JSON | None = None


@strawberry.type(description="One event of an execution's stream; which fields are set follows from `eventType`.")
class AgentStreamEvent:
    execution_id: str
    event_type: str
    content: str | None
    status: str | None
    tool_name: str | None
    arguments: JSON | None
    call_id: str | None
    result: JSON | None
    error: str | None = strawberry.field(description="What failed, in words; `failure` has its code too.")
    failure: JSON | None = strawberry.field(description="`{code, message, retryable}`.")
    usage: JSON | None
    output: JSON | None
    final_response: str | None
    reason: str | None
    attempt: int = strawberry.field(description="Counts the starts of the execution.")
    sequence: int = strawberry.field(description="Counts the events of a start, without a gap.")
    timestamp: str
    cursor: str = strawberry.field(description="Give it as `after` to go on behind this event.")


@lru_cache(maxsize=512)
def stream_event(frame: Frame) -> AgentStreamEvent:
    """The frame's own values. Every subscriber of an execution gets the same object."""
    said: Mapping[str, Any] = orjson.loads(frame.body)
    failure = said.get("error")
    return AgentStreamEvent(
        execution_id=said["executionId"],
        event_type=said["eventType"],
        content=said.get("content"),
        status=said.get("status"),
        tool_name=said.get("toolName"),
        arguments=said.get("arguments"),
        call_id=said.get("callId"),
        result=said.get("result"),
        error=str(failure["message"]) if isinstance(failure, Mapping) else failure,
        failure=as_json(failure),
        usage=said.get("usage"),
        output=said.get("output"),
        final_response=said.get("final_response"),
        reason=said.get("reason"),
        attempt=said["attempt"],
        sequence=said["sequence"],
        timestamp=said["timestamp"],
        cursor=said["cursor"],
    )
