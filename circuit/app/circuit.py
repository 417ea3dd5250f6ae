"""`Circuit`, the Python API.

async with Circuit.open() as circuit:
    workflow = await circuit.load("workflows/hello.yaml")
    case = await circuit.start(workflow.id, {"name": "Ada"})
    async for happening in circuit.stream(case):
        print(happening)
    print((await circuit.wait(case)).marking)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from circuit.actions.function import KIND as FUNCTION
from circuit.actions.functions import Source
from circuit.actions.human import TASK
from circuit.actions.job import KIND as JOB
from circuit.agents.interceptor import Interceptor
from circuit.app.assembly import Parts, assembled
from circuit.app.home import Progress
from circuit.app.models import DeploymentModels
from circuit.app.source import fitting, fragments, loaded, read
from circuit.definition.adoption import borrowed
from circuit.definition.model_choice import CUSTOM_OPTIONS
from circuit.definition.workflow import Workflow
from circuit.engine.calls import providers_of
from circuit.engine.commands import CommandOutcome, Published, TokenInput
from circuit.engine.comparison import Difference
from circuit.engine.execution import FaultHook, no_fault
from circuit.engine.messages import DEFAULT_WAIT_SECONDS, MessageView
from circuit.engine.modification import Modification
from circuit.engine.outbox import Outbox
from circuit.engine.past import Moment
from circuit.engine.subjects import Subjects
from circuit.engine.token_change import TokenChange
from circuit.engine.views import CaseStanding, CaseSummary, CaseView, CaseWhy, TaskView
from circuit.errors import InvalidRequest, NotFound
from circuit.happenings import CaseUpdate as CaseUpdate
from circuit.happenings import Happening, happenings
from circuit.happenings import StreamUpdate as StreamUpdate
from circuit.ids import DEFAULT_TENANT, CaseKey, parse_case_id, parse_numbered
from circuit.providers.catalogue import ModelCatalogue
from circuit.security.principal import LOCAL, Principal
from circuit.settings import Settings, check_database_url
from circuit.storage.records import CaseStatus

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from circuit.app.supervision import Crew

logger = logging.getLogger(__name__)

_NO_CASE = "there is no case {}; `circuit cases` lists them, and `circuit archive show` finds one that was archived"
_SHORT_WAIT = timedelta(minutes=1)


class Circuit:
    """Workflows, cases and their streams, over one database. Made by `Circuit.open`; lives on one event loop."""

    def __init__(self, parts: Parts) -> None:
        self.settings = parts.settings
        self.tracer = parts.tracer
        self.clock = parts.clock
        self.database = parts.database
        self.engine = engine = parts.engine
        self.registry = parts.registry
        self.functions = parts.functions
        self.archive = parts.archive
        self.catalogue = ModelCatalogue(self.registry, {"custom": CUSTOM_OPTIONS})
        self.principal: Principal = LOCAL
        self.commands = engine.commands
        self.queries = engine.queries
        self.inbox = engine.inbox
        self.travel = engine.travel
        self.messages = engine.messages
        self.migrator = engine.migrator
        self.streams = engine.streams
        self.fleet = engine.fleet
        self.models = DeploymentModels(engine.fleet, engine.queries, self.principal)
        self.conversations = engine.conversations
        self.budgets = engine.budgets
        self.outbox = Outbox(self.database, self.principal.tenant)
        self.subjects = Subjects(self.database, engine.commands, self.archive)
        self._only: list[CaseKey] | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str | None = None,
        *,
        home: Path | str | None = None,
        worker: bool = True,
        only: Sequence[str] | None = None,
        actions: Sequence[Source] = (),
        settings: Settings | None = None,
        tools: Sequence[Callable[..., Any]] = (),
        interceptors: Sequence[Interceptor] = (),
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        stop_seconds: float | None = None,
        exit_when_stuck: bool = False,
        progress: Progress | None = None,
        fault: FaultHook | None = None,
    ) -> AsyncGenerator[Circuit]:
        """Open the database at `url`, or the embedded one in `home`; what is not given comes from the settings.

        With `worker`, cases are worked on while the block runs: all of them, or those in `only` and what `take` adds.
        `actions` are functions that workflows may call, and modules (or their names) that hold such, beside those of
        the settings. `tools` are functions that agents may name in their `tools`: what they take comes from their
        signatures. `interceptors` stand around each call of a model: they change, refuse or hold back what is said.
        With `tracer_provider`, one of OpenTelemetry's SDK, what is done is traced there, and with `meter_provider`
        measured there, whatever the settings say.
        At the end of the block, what still runs has `stop_seconds` (else the settings') to end and is handed back then.
        `exit_when_stuck` ends the process if something blocks the event loop for ever. An embedded database is brought
        to this release's revision; another one must be at it. `progress` hears what takes a while; `fault` is called at
        the named crash points, for tests. Raises `StorageError`.
        """
        chosen = settings or Settings.from_environment()
        if url is not None:
            chosen = replace(chosen, database_url=check_database_url(url))
        elif home is not None:
            chosen = replace(chosen, database_url=None, home=Path(home))
        cases = None if only is None else [cls.key(case_id) for case_id in only]
        async with assembled(
            chosen,
            worker=worker,
            only=cases,
            actions=actions,
            tools=tools,
            interceptors=interceptors,
            tracer_provider=tracer_provider,
            meter_provider=meter_provider,
            stop_seconds=stop_seconds,
            exit_when_stuck=exit_when_stuck,
            progress=progress,
            fault=fault or no_fault,
        ) as parts:
            circuit = cls(parts)
            circuit._only = cases
            yield circuit

    # Workflows

    async def load(self, source: str | Path, *, allow_unsound: bool = False) -> Workflow:
        """Publish the workflow in `source`, a path or its YAML. Agents that it names and does not define are taken from
        those that are published. Raises `DefinitionError`, also where it is unsound."""
        text, name = await asyncio.to_thread(read, source)
        names = await asyncio.to_thread(borrowed, text, name, fragments(name))
        agents = await self.agents(names)
        rules = self.settings.redactor.rules
        workflow = await asyncio.to_thread(loaded, text, name, allow_unsound, agents, rules)
        await self.publish(workflow)
        return workflow

    async def publish(self, workflow: Workflow) -> Published:
        """Make `workflow` the current version of its id. The same content again changes nothing."""
        return await self.commands.publish(workflow, self.principal)

    async def agents(self, ids: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Those of these agents that are published, by id, as JSON, and all whom they may ask or hand over to."""
        return await self.engine.consultations.documents(self.principal.tenant, ids) if ids else {}

    def check_models(self, workflow: Workflow, models: Mapping[str, Mapping[str, Any]]) -> None:
        """Raise `ProviderMisconfigured` if an agent's provider cannot be used, nor any that falls in: its type is not
        known, or it lacks a key; `InvalidRequest` if a model cannot stand in an agent's place. No request is sent."""
        fitting(workflow, models)
        for choices in providers_of(workflow, {"models": models}):
            first, *others = ({"type": one.type, "model": one.model, "options": one.options} for one in choices)
            self.registry.check(first, *others)

    def check_actions(self, workflow: Workflow) -> None:
        """Raise `InvalidRequest` if the workflow calls a function that this process does not have, or runs jobs where
        they may not be run."""
        if not self.settings.jobs and any(action.kind == JOB for action in workflow.actions.values()):
            raise InvalidRequest(
                f"workflow {workflow.id} runs commands as jobs: set CIRCUIT_JOBS=true where workflow files may do that"
            )
        called = {action.config["name"] for action in workflow.actions.values() if action.kind == FUNCTION}
        missing = sorted(called - self.functions.keys())
        if missing:
            known = ", ".join(sorted(self.functions)) or "none"
            raise InvalidRequest(
                f"workflow {workflow.id} calls {', '.join(missing)}, and the functions known here are: {known}."
                " Name the module that holds them: --actions MODULE, or CIRCUIT_ACTIONS"
            )

    # Cases

    async def start(
        self,
        workflow_id: str,
        data: Mapping[str, Any] | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        models: Mapping[str, Mapping[str, Any]] | None = None,
        conversations: Mapping[str, str] | None = None,
    ) -> str:
        """Start a case of the current version of a workflow and return its id.

        `models` puts other models in the place of the workflow's: `{"type": ..., "model": ...}` by agent id, or by `*`
        for every agent; `conversations` are the ids of those that agents go on with, by agent id: the case gets copies.
        Raises `NotFound`, and `TokenRefused` where the token does not fit its place.
        """
        token = TokenInput(dict(data or {}), dict(metadata or {})) if data is not None or metadata is not None else None
        parameters = {"models": {name: dict(model) for name, model in models.items()}} if models else {}
        key = await self.commands.start_case(
            workflow_id, token, principal=self.principal, parameters=parameters, conversations=conversations
        )
        return str(key)

    async def case(self, case_id: str) -> CaseView:
        """A case with its marking, tokens and history. Raises `NotFound`."""
        view = await self.queries.case(self.key(case_id))
        if view is None:
            raise NotFound(_NO_CASE.format(case_id))
        return view

    async def cases(
        self, *, workflow_id: str | None = None, status: str | None = None, limit: int = 50
    ) -> Sequence[CaseSummary]:
        """Cases, the newest first."""
        chosen = CaseStatus(status) if status else None
        return await self.queries.cases(self.principal.tenant, workflow_id=workflow_id, status=chosen, limit=limit)

    async def at(self, case_id: str, seq: int | None = None) -> Moment:
        """A case as it was after its event `seq`, or after its last one. Raises `NotFound`, `InvalidRequest`."""
        found = await self.travel.at(self.key(case_id), seq)
        if found is None:
            raise NotFound(_NO_CASE.format(case_id))
        return found

    async def fork(
        self,
        case_id: str,
        seq: int | None = None,
        *,
        changes: Sequence[TokenChange] = (),
        models: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> str:
        """Start a case from where another one stood after its event `seq` (or its last one), and return its id. What
        was done by then is not done again. `changes` are made to its tokens first, `models` are as for `start`."""
        key = await self.travel.fork(self.key(case_id), seq, principal=self.principal, changes=changes, models=models)
        return str(key)

    async def diff(self, first: str, second: str) -> Difference:
        """How two cases differ: marking, data, path and cost. Raises `NotFound`."""
        return await self.travel.diff(self.key(first), self.key(second))

    async def why(self, case_id: str) -> CaseWhy:
        """What keeps each transition of a case from firing. Raises `NotFound`."""
        found = await self.queries.why(self.key(case_id))
        if found is None:
            raise NotFound(_NO_CASE.format(case_id))
        return found

    async def fire(self, case_id: str, transition: str, form: Mapping[str, Any] | None = None) -> CommandOutcome:
        """Fire a manual transition; the outcome says whether the case took it."""
        return await self.commands.fire(self.key(case_id), transition, dict(form or {}), principal=self.principal)

    async def signal(self, case_id: str, firing: int, payload: Any = None, *, key: str | None = None) -> CommandOutcome:
        """Send a firing what it waits for (its wait of this key, or whatever it waits for); the outcome says whether
        it goes on with that, or the signal is kept until the firing waits."""
        return await self.commands.signal(self.key(case_id), firing, payload, wait=key, principal=self.principal)

    async def send(
        self,
        name: str,
        data: Mapping[str, Any] | None = None,
        *,
        key: Collection[str | int] = (),
        delivery_id: str | None = None,
        lifetime_seconds: float | None = None,
        placed: bool = False,
    ) -> MessageView:
        """Send a message to the case that waits for it; its state says what became of it. One that no case waits for
        starts a case, where a workflow says so, or is kept. `placed`: return as soon as a case has it."""
        return await self.messages.send(
            name,
            data,
            principal=self.principal,
            key=key,
            delivery_id=delivery_id,
            lifetime_seconds=lifetime_seconds,
            placed=placed,
        )

    async def sent(self, message_id: str, wait_seconds: float = DEFAULT_WAIT_SECONDS) -> MessageView:
        """What became of a message, waited for up to `wait_seconds`. Raises `NotFound`."""
        return await self.messages.outcome(self.principal, UUID(message_id), wait_seconds)

    async def tasks(
        self,
        *,
        workflow_id: str | None = None,
        case_id: str | None = None,
        role: str | None = None,
        limit: int = 50,
    ) -> Sequence[TaskView]:
        """Open tasks for people, those of the newest cases first."""
        case = None if case_id is None else self.key(case_id).case
        return await self.queries.tasks(
            tenant=self.principal.tenant, workflow_id=workflow_id, case=case, role=role, limit=limit
        )

    async def complete(self, task_id: str, form: Mapping[str, Any]) -> CommandOutcome:
        """Complete a task with its form, filled in; the outcome says whether the case took it."""
        task = parse_numbered(task_id)
        if task is None:
            raise InvalidRequest(f"{task_id!r} is not the id of a task; `circuit tasks` lists them.")
        key = CaseKey(self.principal.tenant, task.case)
        return await self.commands.signal(key, task.number, dict(form), wait=TASK, principal=self.principal)

    async def retry(self, case_id: str) -> CommandOutcome:
        """Let what the open incidents of a case block be tried again."""
        return await self.commands.retry(self.key(case_id), principal=self.principal)

    async def modify(self, case_id: str, wanted: Modification) -> CommandOutcome:
        """Put, take, move and change tokens of a live case, all of it or nothing."""
        return await self.commands.modify(self.key(case_id), wanted, principal=self.principal)

    async def cancel(self, case_id: str) -> CommandOutcome:
        """End a case as it is."""
        return await self.commands.cancel(self.key(case_id), principal=self.principal)

    async def wait(self, case_id: str, *, missing: Progress | None = None) -> CaseView:
        """The case when it has ended, or when Circuit itself would do nothing more in it. While no worker can take it,
        `missing` hears why, or else the log does."""
        async with aclosing(self._happenings(case_id, None, missing)) as happenings:
            async for _ in happenings:
                pass
        return await self.case(case_id)

    def stream(
        self, case_id: str, *, silent: Collection[str] = (), missing: Progress | None = None
    ) -> AsyncGenerator[Happening]:
        """The events of a case from its start, and what its executions say, live; ends where `wait` does.

        The frames of an execution come before the event that ends it. The executions in `silent` are left out. While no
        worker can take the case, `missing` hears why, or else the log does.
        """
        return self._happenings(case_id, frozenset(silent), missing)

    def rests(self, standing: CaseStanding) -> bool:
        """Whether nothing more happens in the case by itself for a while: it has ended, or it waits for somebody, or
        for a time that is more than a minute away. (While a retry is to come it does not rest.)"""
        if standing.status.terminal:
            return True
        if standing.owned or standing.retrying or standing.status is CaseStatus.RUNNING:
            return False
        return standing.due_at is None or standing.due_at - self.clock.now() > _SHORT_WAIT

    @staticmethod
    def key(case_id: str) -> CaseKey:
        """The key of a case of this tenant. Raises `InvalidRequest` if `case_id` is no id of a case."""
        case = parse_case_id(case_id)
        if case is None:
            raise InvalidRequest(f"{case_id!r} is not the id of a case; `circuit cases` lists them.")
        return CaseKey(DEFAULT_TENANT, case)

    def take(self, case_id: str) -> None:
        """Work on this case too, where `open` was told which cases to work on."""
        if self._only is not None and self.key(case_id) not in self._only:
            # The worker looks at this list whenever it claims.
            self._only.append(self.key(case_id))
        if self.engine.worker is not None:
            self.engine.worker.wake()

    @contextmanager
    def taken(self, case_id: str) -> Generator[None]:
        """Work on this case too while the block runs, where `open` was told which cases to work on. What has not come
        to a rest then goes on where it is, or with the next worker."""
        self.take(case_id)
        try:
            yield
        finally:
            if self._only is not None and self.key(case_id) in self._only:
                self._only.remove(self.key(case_id))

    @property
    def busy(self) -> bool:
        """Whether this process holds a case at this moment."""
        worker = self.engine.worker
        return worker is not None and worker.tenure is not None and len(worker.tenure.desk) > 0

    async def worked(self) -> None:
        """Wait until the worker of this process is over: it was drained on request."""
        if self.engine.worker is not None:
            await self.engine.worker.ended.wait()

    async def serve(
        self,
        host: str,
        port: int,
        *,
        ready: Progress | None = None,
        probes: bool = False,
        crew: Crew | None = None,
    ) -> None:
        """Serve the API on `host` until the task is cancelled. `ready` hears the URL when requests are taken. With
        `probes`, only `/health`, `/ready` and `/metrics` are served; the figures of a `crew` are among these.

        Raises `Conflict` where the port is in use, and `InvalidRequest` for a host that others can reach while no
        authentication is configured.
        """
        from circuit.app.serving import serve

        await serve(self, host, port, ready=ready, probes=probes, crew=crew)

    def _happenings(
        self, case_id: str, silent: Collection[str] | None, missing: Progress | None
    ) -> AsyncGenerator[Happening]:
        key = self.key(case_id)

        async def look() -> CaseStanding:
            if self.engine.holds(key):
                # What the database would say too; readers of many cases ask often.
                return CaseStanding(CaseStatus.RUNNING, 0, owned=True)
            found = await self.queries.standing(key)
            if found is None:
                raise NotFound(_NO_CASE.format(case_id))
            # While it waits for another attempt no worker is missing.
            return replace(found, owned=found.at_hand(self.clock.now()))

        def tell(reason: str) -> None:
            if missing is not None:
                missing(reason)
            else:
                logger.warning("case %s waits: %s", key, reason)

        return happenings(
            self.streams, key, look, self.rests, silent, missing=lambda: self.queries.missing(key), tell=tell
        )
