"""Opens cases for the firings of others, and says what they cost. It reads only: the case is written by its parent."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from circuit.definition.workflow import Workflow
from circuit.engine.action import ActionCall
from circuit.engine.kinship import DEEPEST
from circuit.engine.opening import TokenInput, open_case, traced
from circuit.engine.requirement import SUBWORKFLOW, of_child
from circuit.engine.versions import VersionKey, Versions, VersionUnusable
from circuit.errors import InvalidInput, InvalidRequest, PayloadTooLarge, SubworkflowFailed, TokenRefused
from circuit.ids import CaseKey, IdSource
from circuit.storage import commands, listing, subjects, workflows
from circuit.storage.database import Database, TenantConnection
from circuit.storage.records import NewCase, Parent
from circuit.tracing import current as current_span

_SUMMED = ("input_tokens", "output_tokens", "cost_usd", "calls")


class Children:
    """What the action `subworkflow` asks of the database."""

    def __init__(self, database: Database, versions: Versions, ids: IdSource) -> None:
        self._database = database
        self._versions = versions
        self._ids = ids

    async def open(self, call: ActionCall, workflow_id: str, now: datetime) -> NewCase:
        """The case that the firing of `call` opens: of the current version of the workflow, with the inputs as the data
        of its token, and with the models that the parent was started with. Raises `SubworkflowFailed`, `InvalidInput`.
        """
        tenant = call.key.tenant
        async with self._database.transaction(tenant) as connection:
            parent = await listing.find_case(connection, call.key)
            current = await workflows.current(connection, tenant, workflow_id)
        if parent is None:
            raise SubworkflowFailed(f"{call.transition}: case {call.key} is gone")
        if current is None:
            raise SubworkflowFailed(f"{call.transition}: there is no workflow {workflow_id!r}; publish it first")
        if current.retired_at is not None:
            raise SubworkflowFailed(f"{call.transition}: workflow {workflow_id} is retired, no new cases of it begin")
        if parent.depth >= DEEPEST:
            raise SubworkflowFailed(f"{call.transition}: cases lie in one another {DEEPEST} deep, and no deeper")
        try:
            workflow = self._versions.compiled(VersionKey(tenant, workflow_id, current.hash), current.document)
            key = CaseKey(tenant, self._ids.uuid())
            new = open_case(workflow, _token(workflow, call), key, now, call.execution_id, parent.parameters)
        except VersionUnusable as error:
            raise SubworkflowFailed(f"{call.transition}: {error.message}") from None
        except (TokenRefused, PayloadTooLarge, InvalidRequest) as error:
            raise InvalidInput(f"{call.transition}: {workflow_id} does not take the inputs: {error.message}") from None
        requires = of_child(new.requires)
        async with self._database.transaction(tenant) as connection:
            bucket = await commands.bucket_of(connection, requires)
            # Written before the case itself: where that is not opened in the end, they name nothing.
            await subjects.inherit(connection, call.key, key, call.execution_id)
            await subjects.link(connection, key, new.subjects, call.execution_id)
        row = replace(new.row, bucket=bucket, parent=Parent(call.key.case, call.firing), depth=parent.depth + 1)
        span = current_span()
        context = None if span is None else span.context
        return traced(replace(new, row=row, requires=requires), call.traceparent if context is None else context.text)

    async def usage(self, tenant: int, case: UUID) -> dict[str, Any]:
        """What the agents of a case used, in sum; those of the cases that it opened are among it."""
        async with self._database.transaction(tenant) as connection:
            found = await listing.executions(connection, CaseKey(tenant, case))
        sums: dict[str, Any] = {}
        for execution in found:
            for name in _SUMMED:
                value = execution.usage.get(name)
                if isinstance(value, int | float):
                    sums[name] = sums.get(name, 0) + value
        return sums


async def check_calls(connection: TenantConnection, tenant: int, workflow: Workflow) -> None:
    """Whether there are the workflows that a workflow opens cases of, and whether their first places take what it maps.
    Raises `InvalidRequest`."""
    for name, spec in workflow.actions.items():
        called: str | None = spec.config.get("workflow") if spec.kind == SUBWORKFLOW else None
        # One that calls itself is not there yet when it is published first.
        if called is None or called == workflow.id:
            continue
        current = await workflows.current(connection, tenant, called)
        if current is None:
            raise InvalidRequest(
                f"transition {name} of workflow {workflow.id} opens cases of {called!r}, and there is no such workflow;"
                " publish that one first"
            )
        mapping = workflow.net.transitions[name].input_mapping
        if mapping is not None and mapping.entries:
            _check_inputs(f"transition {name} of workflow {workflow.id}", called, current.document, mapping.names)


def _check_inputs(who: str, called: str, document: Mapping[str, Any], given: Collection[str]) -> None:
    """Hold the names of the inputs against what the colour of the first place says outright."""
    initial = next((place for place in document["places"].values() if place.get("initial")), None)
    if initial is None:
        raise InvalidRequest(f"{who} gives inputs to {called}, which has no initial place for them")
    schema: Mapping[str, Any] = (document.get("colours") or {}).get(initial.get("colour")) or {}
    lacking = [name for name in schema.get("required", ()) if name not in given]
    if lacking:
        raise InvalidRequest(f"{who} does not give {called} what it asks for: {', '.join(lacking)}; map it as an input")
    unknown = [name for name in given if name not in schema.get("properties", ())]
    if unknown and schema.get("additionalProperties") is False:
        raise InvalidRequest(f"{who} gives {called} what it does not take: {', '.join(unknown)}")


def _token(workflow: Workflow, call: ActionCall) -> TokenInput | None:
    """The token with the inputs; none for a workflow that has no place for it, where there are no inputs."""
    if workflow.net.initial_place is None and not call.inputs:
        return None
    return TokenInput(call.inputs)
