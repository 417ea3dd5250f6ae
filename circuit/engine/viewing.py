"""How what is stored becomes what is shown: views of rows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from circuit.engine.views import CaseSummary, ExecutionView, IncidentView, TaskView, TokenView, WorkflowView
from circuit.ids import CaseKey, Numbered
from circuit.net.marking import Token
from circuit.storage import workflows
from circuit.storage.records import CaseRow, ExecutionRow, FiringRow, FiringState, IncidentRow


def _execution_id(key: CaseKey, firing: int | None) -> str | None:
    return None if firing is None else str(Numbered(key.case, firing))


def workflow_view(found: workflows.Version) -> WorkflowView:
    document = found.document
    return WorkflowView(
        found.workflow_id,
        document.get("name") or found.workflow_id,
        document.get("description") or "",
        found.hash,
        found.published_at,
        found.published_by,
        document,
        found.retired_at,
    )


def summary_view(key: CaseKey, row: CaseRow, lacks: str | None = None) -> CaseSummary:
    """A case in a list; `lacks` is what it needs of a worker and no running one has."""
    return CaseSummary(
        key,
        row.status,
        row.workflow_id,
        row.workflow_hash,
        row.started_at,
        row.finished_at,
        lacks,
        row.seq,
        row.traceparent,
    )


def token_view(key: CaseKey, token: Token, holder: int | None) -> TokenView:
    return TokenView(
        str(Numbered(key.case, token.number)),
        token.version,
        token.place,
        token.data,
        token.metadata,
        token.entered_at,
        _execution_id(key, holder),
    )


def incident_view(key: CaseKey, incident: IncidentRow) -> IncidentView:
    return IncidentView(
        incident.number,
        incident.transition,
        incident.code,
        incident.message,
        incident.raised_at,
        _execution_id(key, incident.firing),
        incident.resolved_at,
        incident.resolved_by,
        tuple(str(Numbered(key.case, number)) for number, _ in incident.blocks),
    )


def task_view(key: CaseKey, row: CaseRow, firing: FiringRow) -> TaskView:
    awaits = firing.awaits or {}
    payload: Mapping[str, Any] = awaits.get("payload") or {}
    return TaskView(
        str(Numbered(key.case, firing.number)),
        key,
        row.workflow_id,
        firing.transition,
        str(payload.get("title", "")),
        str(payload.get("instructions", "")),
        payload.get("inputs") or {},
        tuple(awaits.get("roles") or ()),
        awaits.get("form") or {},
        datetime.fromisoformat(awaits["since"]),
        firing.wake_at,
    )


def execution_view(key: CaseKey, execution: ExecutionRow, firings: dict[int, FiringRow]) -> ExecutionView:
    firing = firings.get(execution.firing)
    return ExecutionView(
        str(Numbered(key.case, execution.firing)),
        firing.transition if firing is not None else "",
        "suspended" if firing is not None and firing.state is FiringState.SUSPENDED else execution.status.value,
        execution.started_at,
        execution.finished_at,
        execution.descriptor,
        execution.usage,
        execution.error if execution.error is not None or firing is None else firing.error,
        firing.retry_at if firing is not None and firing.state.live else None,
        firing.awaits if firing is not None else None,
        firing.wake_at if firing is not None else None,
    )
