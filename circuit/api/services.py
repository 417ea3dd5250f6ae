"""What the server needs from the rest of Circuit, as one value that the composition root builds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from circuit.api.authentication import Gate
from circuit.clock import Clock
from circuit.definition.workflow import Workflow
from circuit.engine.budgets import Budgets
from circuit.engine.commands import Commands
from circuit.engine.consultations import Consultations
from circuit.engine.conversations import Conversations
from circuit.engine.costs import Costs
from circuit.engine.feedback import FeedbackLog
from circuit.engine.fleet import Fleet
from circuit.engine.grants import Grants
from circuit.engine.inbox import Inbox
from circuit.engine.keys import Keys
from circuit.engine.ledger import Ledger
from circuit.engine.limits import ExecutionLimits
from circuit.engine.messages import Messages
from circuit.engine.migrator import Migrator
from circuit.engine.pages import Pages
from circuit.engine.publishing import Publishing
from circuit.engine.queries import Queries
from circuit.engine.refusals import Refusals
from circuit.engine.schedules import Schedules
from circuit.engine.subjects import Subjects
from circuit.engine.travel import Travel
from circuit.observability.metrics import Figure
from circuit.providers.catalogue import HeldModel, ModelCatalogue
from circuit.streams.subscription import Streams
from circuit.tracing import Tracer

Figures = Callable[[], Awaitable[Sequence[Figure]]]


async def no_figures() -> Sequence[Figure]:
    """Where there is no engine to ask."""
    return ()


@dataclass(frozen=True, slots=True)
class Services:
    """`load` makes a workflow of a YAML text, a name for its source and published `agents` that it may take, and raises
    `DefinitionError`.

    `ready` returns what `/health` shows of the database (its revision, say) and raises a `CircuitError` when requests
    cannot be served. `gate` finds out who asks; `figures` are those for `/metrics`. Without `consultations` there is no
    `/v1`; `default_model` is the one of requests there that name none. Without `travel` the past of cases is
    not shown, and without `migrator` none goes to another version. `catalogue` knows providers and their models.
    With `refusals` the audit log has what is refused. `tracer`, where there is one, hears of each request.
    """

    commands: Commands
    queries: Queries
    pages: Pages
    inbox: Inbox
    messages: Messages
    publishing: Publishing
    schedules: Schedules
    fleet: Fleet
    catalogue: ModelCatalogue
    streams: Streams
    load: Callable[..., Workflow]
    gate: Gate
    ready: Callable[[], Awaitable[Mapping[str, Any]]]
    clock: Clock
    conversations: Conversations
    figures: Figures = no_figures
    consultations: Consultations | None = None
    default_model: str | None = None
    budgets: Budgets | None = None
    costs: Costs | None = None
    limits: ExecutionLimits | None = None
    feedback: FeedbackLog | None = None
    travel: Travel | None = None
    ledger: Ledger | None = None
    migrator: Migrator | None = None
    refusals: Refusals | None = None
    tracer: Tracer | None = None
    subjects: Subjects | None = None
    grants: Grants | None = None
    keys: Keys | None = None
    held_models: Callable[[], Awaitable[Sequence[HeldModel]]] | None = None
