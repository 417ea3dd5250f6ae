"""Rows of the tables as the values of `circuit.storage.records`, whichever way they were read.

The driver gives JSON columns as text and ids in a class of its own, SQLAlchemy gives both ready; a row of either is
indexed by its columns' names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID

import orjson
from sqlalchemy import Integer, TableValuedAlias, Uuid, bindparam, column, func
from sqlalchemy.dialects.postgresql import ARRAY

from circuit.ids import CaseKey
from circuit.net.marking import Run, Token
from circuit.storage.records import (
    CaseRow,
    CaseStatus,
    CommandResult,
    CommandRow,
    CommandState,
    ExecutionRow,
    ExecutionStatus,
    FiringRow,
    FiringState,
    IncidentRow,
    Parent,
)


class Row(Protocol):
    """A row by column name."""

    def __getitem__(self, key: Any, /) -> Any: ...


def plain(value: UUID) -> UUID:
    """The id in Python's own class: the driver's looks the same, but JSON encoders do not know it."""
    return value if type(value) is UUID else UUID(bytes=value.bytes)


def document(value: Any) -> Any:
    """A JSON object or array (or None), decoded if it comes as text."""
    return orjson.loads(value) if isinstance(value, str) else value


def key(row: Row) -> CaseKey:
    return CaseKey(row["tenant_id"], plain(row["case_id"]))


def case_row(row: Row) -> CaseRow:
    return CaseRow(
        workflow_id=row["workflow_id"],
        workflow_hash=row["workflow_hash"],
        status=CaseStatus(row["status"]),
        seq=row["seq"],
        next_token=row["next_token"],
        next_firing=row["next_firing"],
        next_incident=row["next_incident"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        parameters=document(row["parameters"]),
        bucket=row["bucket"],
        parent=None if row["parent_case"] is None else Parent(plain(row["parent_case"]), row["parent_firing"]),
        depth=row["depth"],
        traceparent=row["traceparent"],
    )


def token(row: Row) -> Token:
    runs: Mapping[str, Any] | None = document(row["runs"])
    return Token(
        number=row["number"],
        version=row["version"],
        place=row["place"],
        data=document(row["data"]),
        metadata=document(row["metadata"]),
        entered_at=row["entered_at"],
        available_at=row["available_at"],
        runs=None if runs is None else {name: Run.of_json(run) for name, run in runs.items()},
    )


def firing(row: Row) -> FiringRow:
    suspended = row["state"] == FiringState.SUSPENDED
    return FiringRow(
        number=row["number"],
        transition=row["transition"],
        state=FiringState(row["state"]),
        attempt=row["attempt"],
        start=row["start"],
        request=document(row["request"]),
        retry_at=row["retry_at"],
        crashes=row["crashes"],
        error=document(row["error"]),
        begun_at=row["begun_at"],
        wake_at=row["wake_at"] if suspended else None,
        awaits=document(row["awaits"]) if suspended else None,
    )


def execution(row: Row) -> ExecutionRow:
    return ExecutionRow(
        firing=row["firing"],
        status=ExecutionStatus(row["status"]),
        descriptor=document(row["descriptor"]),
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        usage=document(row["usage"]),
        error=document(row["error"]),
    )


def incident(row: Row) -> IncidentRow:
    return IncidentRow(
        number=row["number"],
        transition=row["transition"],
        firing=row["firing"],
        code=row["code"],
        message=row["message"],
        blocks=tuple((number, version) for number, version in document(row["blocks"])),
        raised_at=row["raised_at"],
        resolved_at=row["resolved_at"],
        resolved_by=row["resolved_by"],
    )


def command(row: Row) -> CommandRow:
    return CommandRow(plain(row["command_id"]), row["kind"], document(row["payload"]), document(row["principal"]))


def command_result(row: Row) -> CommandResult:
    result: Mapping[str, Any] | None = document(row["result"])
    return CommandResult(plain(row["command_id"]), CommandState(row["state"]), result or {})


def pairs(wanted: Sequence[tuple[UUID, int]]) -> TableValuedAlias:
    """A table of these cases and numbers, with the columns `case_id` and `number`, to join with."""
    cases, numbers = [case for case, _ in wanted], [number for _, number in wanted]
    return (
        func.unnest(
            bindparam("wanted_cases", cases, type_=ARRAY(Uuid)),
            bindparam("wanted_numbers", numbers, type_=ARRAY(Integer)),
        )
        .table_valued(column("case_id", Uuid), column("number", Integer))
        .render_derived("pairs")
    )
