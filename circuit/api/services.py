"""What the server needs from the rest of Circuit, as one value that the composition root builds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from circuit.api.authentication import Gate
from circuit.clock import Clock
from circuit.definition.workflow import Workflow
from circuit.engine.budgets import Budgets
from circuit.engine.commands import CommandOutcome, Published, TokenInput
from circuit.engine.consultations import AgentView, Consultation
from circuit.engine.conversations import Conversations
from circuit.engine.modification import Modification
from circuit.engine.travel import Travel
from circuit.engine.views import CaseSummary, CaseView, CaseWhy, WorkflowView
from circuit.ids import CaseKey
from circuit.observability.metrics import Figure
from circuit.security.principal import Principal
from circuit.streams.subscription import Streams

Figures = Callable[[], Awaitable[Sequence[Figure]]]


async def no_figures() -> Sequence[Figure]:
    """Where there is no engine to ask."""
    return ()


class Asking(Protocol):
    """The commands that the API gives; `circuit.engine.commands.Commands` has them."""

    async def publish(self, workflow: Workflow, principal: Principal) -> Published: ...

    async def start_case(
        self,
        workflow_id: str,
        token: TokenInput | None,
        *,
        principal: Principal,
        parameters: Mapping[str, Any] | None = None,
        conversations: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> CaseKey: ...

    async def fire(
        self,
        key: CaseKey,
        transition: str,
        form: Mapping[str, Any] | None = None,
        *,
        principal: Principal,
        idempotency_key: str | None = None,
    ) -> CommandOutcome: ...

    async def retry(
        self,
        key: CaseKey,
        incident: int | None = None,
        *,
        principal: Principal,
        idempotency_key: str | None = None,
    ) -> CommandOutcome: ...

    async def modify(
        self,
        key: CaseKey,
        wanted: Modification,
        *,
        principal: Principal,
        idempotency_key: str | None = None,
    ) -> CommandOutcome: ...

    async def cancel(
        self,
        key: CaseKey,
        reason: str = "",
        *,
        principal: Principal,
        idempotency_key: str | None = None,
    ) -> CommandOutcome: ...


class Seeing(Protocol):
    """The queries that the API asks; `circuit.engine.queries.Queries` has them."""

    async def workflows(self, tenant: int) -> list[WorkflowView]: ...

    async def workflow(self, tenant: int, workflow_id: str) -> WorkflowView | None: ...

    async def cases(
        self,
        tenant: int,
        workflow_id: str | None = None,
        status: str | None = None,
        limit: int = 50,
        before: UUID | None = None,
    ) -> list[CaseSummary]: ...

    async def case(self, key: CaseKey) -> CaseView | None: ...

    async def why(self, key: CaseKey) -> CaseWhy | None: ...


class Consulting(Protocol):
    """Asking agents outside of workflows; `circuit.engine.consultations.Consultations` does it."""

    async def agents(self, tenant: int) -> list[AgentView]: ...

    async def agent(self, tenant: int, agent_id: str) -> AgentView | None: ...

    async def ask(self, wanted: Consultation, *, principal: Principal, key: str | None = None) -> CaseKey: ...

    async def abandon(self, key: CaseKey, *, principal: Principal) -> None: ...


@dataclass(frozen=True, slots=True)
class Services:
    """`load` makes a workflow of a YAML text and a name for its source, and raises `DefinitionError`.

    `ready` returns what `/health` shows of the database (its revision, say) and raises a `CircuitError` when requests
    cannot be served. `gate` finds out who asks; `figures` are those for `/metrics`. Without `consultations` there is no
    `/v1`; `default_model` is the one of requests there that name none. Without `travel` the past of cases is not shown.
    """

    commands: Asking
    queries: Seeing
    streams: Streams
    load: Callable[[str, str], Workflow]
    gate: Gate
    ready: Callable[[], Awaitable[Mapping[str, Any]]]
    clock: Clock
    conversations: Conversations
    figures: Figures = no_figures
    consultations: Consulting | None = None
    default_model: str | None = None
    budgets: Budgets | None = None
    travel: Travel | None = None
