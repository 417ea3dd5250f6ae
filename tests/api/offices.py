"""Commands and queries as the API needs them, in memory, with what a test wants them to say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

from stage import Stage

from circuit.api.authentication import Gate
from circuit.api.services import Services
from circuit.definition.workflow import Workflow
from circuit.engine.commands import Published, TokenInput
from circuit.engine.pages import ListedExecution
from circuit.engine.views import CaseSummary, CaseView, EventView, ExecutionView, TokenView, WorkflowView
from circuit.errors import DefinitionError, Fault, InvalidRequest, NotFound, TokenRefused
from circuit.events import CaseEnded, CaseStarted, FiringBegun, TokenImage, TokenRef
from circuit.ids import CaseKey, Numbered, uuid7
from circuit.net.structure import Net
from circuit.security.principal import LOCAL, Principal
from circuit.storage.records import CaseStatus

AT = datetime(2026, 11, 21, 12, 0, 0, 250_000, tzinfo=UTC)


class Office:
    """What was asked of it is in `asked`; every query counts in `queries`."""

    def __init__(
        self,
        stage: Stage,
        ready: Callable[[], Awaitable[Mapping[str, Any]]] | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.published: dict[str, WorkflowView] = {}
        self.started: dict[UUID, CaseView] = {}
        self.keys: dict[str, CaseKey] = {}
        self.asked: list[tuple[str, Any]] = []
        self.queries = 0
        self.fault: Exception | None = None
        gate = gate or Gate.open(stage.clock, LOCAL)
        fake = cast("Any", self)
        self.services = Services(
            commands=fake,
            queries=fake,
            pages=fake,
            inbox=fake,
            messages=fake,
            publishing=fake,
            schedules=fake,
            fleet=fake,
            catalogue=fake,
            streams=stage.streams,
            load=load,
            gate=gate,
            ready=ready or self.ready,
            clock=stage.clock,
            conversations=fake,
        )

    async def ready(self) -> Mapping[str, Any]:
        return {"database": {"revision": "0001"}}

    # Commands

    async def publish(self, workflow: Workflow, *, principal: Principal, key: str | None = None) -> Published:
        self.asked.append(("publish", workflow.id))
        new = workflow.id not in self.published
        self.published[workflow.id] = WorkflowView(
            workflow.id, workflow.name, workflow.description, workflow.hash, AT, principal.subject, workflow.document
        )
        return Published(workflow.id, workflow.hash, new)

    async def start_case(
        self,
        workflow_id: str,
        token: TokenInput | None,
        *,
        principal: Principal,
        parameters: Mapping[str, Any] | None = None,
        conversations: Mapping[str, str] | None = None,
        key: str | None = None,
        subjects: Collection[str] = (),
    ) -> CaseKey:
        self.asked.append(("start_case", (workflow_id, token, key)))
        if self.fault is not None:
            raise self.fault
        if workflow_id not in self.published:
            raise NotFound(f"there is no workflow {workflow_id!r}")
        if token is not None and token.data.get("refuse"):
            raise TokenRefused("the place does not take this", details={"faults": ["data: refuse"]})
        if key is not None and key in self.keys:
            return self.keys[key]
        case = CaseKey(principal.tenant, uuid7(1_000 + len(self.started), len(self.started)))
        self.started[case.case] = _view(case, workflow_id, token or TokenInput(), principal)
        if key is not None:
            self.keys[key] = case
        return case

    # Queries

    async def workflows(self, tenant: int, limit: int = 1_000, after: str = "") -> list[WorkflowView]:
        self.queries += 1
        return [self.published[name] for name in sorted(self.published) if name > after][:limit]

    async def workers(self) -> list[Any]:
        return []

    async def workflow(self, tenant: int, workflow_id: str) -> WorkflowView | None:
        self.queries += 1
        return self.published.get(workflow_id)

    async def cases(
        self,
        tenant: int,
        workflow_id: str | None = None,
        status: str | None = None,
        limit: int = 50,
        before: UUID | None = None,
        **_: Any,
    ) -> list[CaseSummary]:
        self.queries += 1
        if status is not None and status not in set(CaseStatus):
            raise InvalidRequest(f"there is no status {status!r}")
        views = sorted(self.started.values(), key=lambda view: view.key.case, reverse=True)
        return [
            _summary(view)
            for view in views
            if (workflow_id is None or view.workflow_id == workflow_id)
            and (status is None or view.status == status)
            and (before is None or view.key.case < before)
        ][:limit]

    async def case(self, key: CaseKey) -> CaseView | None:
        self.queries += 1
        if self.fault is not None:
            raise self.fault
        return self.started.get(key.case)

    # Pages

    async def summaries(self, tenant: int, wanted: Collection[UUID]) -> dict[UUID, CaseSummary]:
        self.queries += 1
        if self.fault is not None:
            raise self.fault
        return {case: _summary(self.started[case]) for case in wanted if case in self.started}

    async def markings(self, tenant: int, wanted: Collection[UUID]) -> dict[UUID, dict[str, int]]:
        return {case: self.started[case].marking for case in wanted}

    async def tokens(self, tenant: int, wanted: Collection[UUID], after: int, limit: int) -> dict[UUID, Any]:
        return {case: self.started[case].tokens[:limit] for case in wanted}

    async def events(self, tenant: int, wanted: Collection[UUID], after: int, limit: int) -> dict[UUID, Any]:
        return {case: [one for one in self.started[case].history if one.seq > after][:limit] for case in wanted}

    async def executions(self, tenant: int, wanted: Collection[UUID], after: int, limit: int) -> dict[UUID, Any]:
        return {
            case: [
                ListedExecution(self.started[case].key, number, self.started[case].workflow_id, "", view)
                for number, view in enumerate(self.started[case].executions, 1)
            ][:limit]
            for case in wanted
        }

    async def incidents(self, tenant: int, wanted: Collection[UUID], after: int, limit: int) -> dict[UUID, Any]:
        return {case: self.started[case].incidents for case in wanted}


def load(text: str, source: str, *, unsound: bool = False) -> Workflow:
    """A workflow of one line: its id. Anything longer is a fault."""
    if "\n" in text or not text.strip():
        raise DefinitionError(
            [
                Fault(source, 2, 5, "places.a", "this is not known", "remove it"),
                Fault(source, 3, 1, "transitions", "nothing happens here"),
            ]
        )
    document = {"id": text, "places": {}}
    return Workflow(text, text.title(), "about it", {}, document, f"hash-{text}", Net.build(text, [], []), {}, {}, {})


def _summary(view: CaseView) -> CaseSummary:
    return CaseSummary(view.key, view.status, view.workflow_id, view.workflow_hash, view.started_at, view.finished_at)


def _view(key: CaseKey, workflow_id: str, token: TokenInput, principal: Principal) -> CaseView:
    """A case that has begun, asked an agent, and ended."""
    image = TokenImage(1, 1, "begin", token.data, token.metadata)
    execution = str(Numbered(key.case, 1))
    events = [
        CaseStarted(workflow_id, f"hash-{workflow_id}", (image,), principal.subject),
        FiringBegun("ask", 1, execution, (TokenRef(1, 1, "begin"),)),
        CaseEnded("completed", "all tokens lie in terminal places"),
    ]
    return CaseView(
        key,
        CaseStatus.COMPLETED,
        workflow_id,
        f"hash-{workflow_id}",
        AT,
        AT + timedelta(seconds=2),
        None,
        [TokenView(str(Numbered(key.case, 1)), 2, "end", token.data, token.metadata, AT)],
        [EventView(key, number, AT, event) for number, event in enumerate(events, 1)],
        [],
        [ExecutionView(execution, "ask", "completed", AT, AT, {"agent_id": "a", "model": "m"}, {"output_tokens": 3})],
    )
