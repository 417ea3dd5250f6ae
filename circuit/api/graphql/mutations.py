"""The mutations. Each is one of the engine's commands; what a command refuses comes as an error with its code."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, cast

import orjson
import strawberry
from strawberry.scalars import JSON

from circuit.api.graphql.context import Resolving
from circuit.api.graphql.types import Case, CommandOutcome, StreamToken, TokenInput, Workflow
from circuit.api.graphql.workflow_input import WorkflowInput, document
from circuit.engine.commands import TokenInput as Token
from circuit.errors import Conflict, InvalidRequest, NotFound
from circuit.ids import CaseKey, parse_case_id, parse_numbered
from circuit.security.credentials import stream_token
from circuit.security.permissions import Permission

DEFAULT_SOURCE = "workflow.yaml"
LONGEST_SOURCE = 200


@strawberry.type
class Mutation:
    @strawberry.mutation(
        description="Publish a workflow. What is wrong with it comes as an error with the code `invalid_definition`,"
        " whose `extensions.faults` have line, column, message and hint."
    )
    async def load_workflow(
        self,
        info: Resolving,
        yaml: Annotated[str, strawberry.argument(description="The text of a workflow file.")],
        source: Annotated[str, strawberry.argument(description="What faults call the text.")] = DEFAULT_SOURCE,
    ) -> Workflow:
        name = "".join(letter if letter.isprintable() else "?" for letter in source[:LONGEST_SOURCE])
        return await _publish(info, yaml, name or DEFAULT_SOURCE)

    @strawberry.mutation(
        description="Publish a workflow that is given as input objects. It goes the same way as a file, and its faults"
        " come as those of a file do: lines count in the document as JSON."
    )
    async def create_workflow(self, info: Resolving, workflow: WorkflowInput) -> Workflow:
        text = orjson.dumps(document(workflow), option=orjson.OPT_INDENT_2).decode()
        return await _publish(info, text, "createWorkflow")

    @strawberry.mutation(
        description="Start a case of the current version of a workflow. Asked again with the same `idempotencyKey`,"
        " it answers with the case that was started first."
    )
    async def start_case(
        self,
        info: Resolving,
        workflow_id: str,
        token: TokenInput | None = None,
        idempotency_key: str | None = None,
    ) -> Case:
        services = info.context.services
        key = await services.commands.start_case(
            workflow_id, _token(token), principal=info.context.principal, key=idempotency_key
        )
        view = await services.queries.case(key)
        if view is None:
            raise NotFound(f"case {key} was started and is gone")
        return Case.of(view)

    @strawberry.mutation(
        description="A token that opens the stream of one execution for ten minutes, for an `EventSource` or a"
        " WebSocket of a browser: `/agent-stream/EXECUTION?token=TOKEN`."
    )
    async def create_stream_token(self, info: Resolving, execution_id: str) -> StreamToken:
        principal = info.context.principal
        principal.require(Permission.READ)
        secret = info.context.services.gate.access.stream_secret
        if secret is None:
            raise Conflict("stream tokens are not configured: set STREAM_AUTH_SECRET")
        if parse_numbered(execution_id) is None:
            raise NotFound("there is no such execution; an id looks like CASE.NUMBER")
        token, until = stream_token(secret, principal, execution_id, info.context.services.clock.now())
        return StreamToken(token=token, expires_at=until)

    @strawberry.mutation(description="Fire a manual transition of a case, with its form.")
    async def fire_transition(
        self,
        info: Resolving,
        case_id: str,
        transition: str,
        form: JSON | None = None,
        idempotency_key: str | None = None,
    ) -> CommandOutcome:
        filled = _object(form, "form")
        outcome = await info.context.services.commands.fire(
            _case(info, case_id),
            transition,
            filled,
            principal=info.context.principal,
            idempotency_key=idempotency_key,
        )
        return CommandOutcome.of(outcome)

    @strawberry.mutation(description="Let what an open incident of a case blocks be tried again; without one: all.")
    async def retry_incidents(
        self, info: Resolving, case_id: str, incident: int | None = None, idempotency_key: str | None = None
    ) -> CommandOutcome:
        outcome = await info.context.services.commands.retry(
            _case(info, case_id), incident, principal=info.context.principal, idempotency_key=idempotency_key
        )
        return CommandOutcome.of(outcome)

    @strawberry.mutation(description="End a case as it is.")
    async def cancel_case(
        self, info: Resolving, case_id: str, reason: str = "", idempotency_key: str | None = None
    ) -> CommandOutcome:
        outcome = await info.context.services.commands.cancel(
            _case(info, case_id), reason, principal=info.context.principal, idempotency_key=idempotency_key
        )
        return CommandOutcome.of(outcome)


async def _publish(info: Resolving, text: str, source: str) -> Workflow:
    services = info.context.services
    # Compiling a large file takes a while, which the streams of others should not feel.
    workflow = await asyncio.to_thread(services.load, text, source)
    published = await services.commands.publish(workflow, info.context.principal)
    view = await services.queries.workflow(info.context.tenant, published.workflow_id)
    if view is None:
        raise NotFound(f"workflow {published.workflow_id} was published and is gone")
    return Workflow.of(view)


def _case(info: Resolving, case_id: str) -> CaseKey:
    case = parse_case_id(case_id)
    if case is None:
        raise NotFound("there is no such case; an id of a case is a UUID")
    return CaseKey(info.context.tenant, case)


def _token(given: TokenInput | None) -> Token | None:
    if given is None:
        return None
    return Token(_object(given.data, "data"), _object(given.metadata, "metadata"))


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name} must be a JSON object, not {type(value).__name__}")
    return cast("dict[str, Any]", value)
