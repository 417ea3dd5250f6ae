"""The types of the schema, each made from the engine's view of the same thing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, cast

import orjson
import strawberry
from strawberry.scalars import JSON

import circuit
from circuit.api.problems import timestamp
from circuit.engine.commands import CommandOutcome as Outcome
from circuit.engine.commands import OutcomeState
from circuit.engine.views import CaseSummary as CaseSummaryView
from circuit.engine.views import CaseView, EventView, ExecutionView, IncidentView, TokenView, WorkflowView
from circuit.engine.views import CaseWhy as CaseWhyView
from circuit.engine.views import TransitionWhy as TransitionWhyView
from circuit.errors import InvalidRequest, refused
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


@strawberry.type(description="One thing that keeps a transition from firing.")
class Obstacle:
    kind: str
    subject: str
    have: JSON | None
    need: JSON | None
    message: str


@strawberry.type(description="What one transition of a case waits for; it fires in its turn where there is nothing.")
class TransitionWhy:
    transition: str
    enabled: bool
    reasons: list[Obstacle]

    @classmethod
    def of(cls, view: TransitionWhyView) -> TransitionWhy:
        return cls(
            transition=view.transition,
            enabled=view.enabled,
            reasons=[
                Obstacle(
                    kind=one.kind,
                    subject=one.subject,
                    have=as_json(one.have),
                    need=as_json(one.need),
                    message=one.message,
                )
                for one in view.obstacles
            ],
        )


@strawberry.type(description="Why a case is where it is.")
class CaseWhy:
    case_id: str
    status: str
    summary: str
    transitions: list[TransitionWhy]

    @classmethod
    def of(cls, view: CaseWhyView) -> CaseWhy:
        return cls(
            case_id=str(view.key.case),
            status=view.status.value,
            summary=view.summary,
            transitions=[TransitionWhy.of(transition) for transition in view.transitions],
        )


@strawberry.type(description="An agent's texts.")
class Prompts:
    system: str
    user_template: str
    context_instructions: str


@strawberry.type(description="An agent of a workflow's current version.")
class Agent:
    id: str
    workflow: str
    name: str
    description: str
    llm_provider: JSON = strawberry.field(description="Type, model and options; keys are never part of it.")
    llm_config: JSON
    prompts: Prompts
    capabilities: list[str]
    tools: list[str]
    output_schema: JSON | None

    @classmethod
    def of(cls, view: WorkflowView, agent_id: str, said: Mapping[str, Any]) -> Agent:
        prompts: Mapping[str, Any] = said.get("prompts") or {}
        return cls(
            id=agent_id,
            workflow=view.id,
            name=said.get("name") or agent_id,
            description=said.get("description") or "",
            llm_provider=as_json(said.get("llm_provider") or {}),
            llm_config=as_json(said.get("llm_config") or {}),
            prompts=Prompts(
                system=prompts.get("system") or "",
                user_template=prompts.get("user_template") or "",
                context_instructions=prompts.get("context_instructions") or "",
            ),
            capabilities=_names(said.get("capabilities")),
            tools=_names(said.get("tools")),
            output_schema=as_json(said.get("output_schema")),
        )


def _names(said: Any) -> list[str]:
    return [str(one.get("name", one.get("id", ""))) if isinstance(one, dict) else str(one) for one in said or ()]


@strawberry.type(description="What became of a command. `PENDING`: the case's owner has not come to it yet.")
class CommandOutcome:
    command_id: str
    state: str
    result: JSON

    @classmethod
    def of(cls, outcome: Outcome) -> CommandOutcome:
        """Raises what the owner refused the command with."""
        if outcome.state is OutcomeState.REFUSED:
            error: Mapping[str, Any] = outcome.result.get("error") or {}
            raise refused(str(error.get("code", "")), str(error.get("message", "the case refused the command")))
        return cls(command_id=str(outcome.id), state=outcome.state.value, result=as_json(dict(outcome.result)))


@strawberry.type(description="The server that answers.")
class ServerStatus:
    version: str
    ready: bool
    stream_readers: int
    database: JSON

    @classmethod
    def of(cls, known: Mapping[str, Any], readers: int) -> ServerStatus:
        return cls(version=circuit.__version__, ready=True, stream_readers=readers, database=as_json(dict(known)))


@strawberry.type(description="Opens the stream of one execution until it expires.")
class StreamToken:
    token: str
    expires_at: datetime


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
