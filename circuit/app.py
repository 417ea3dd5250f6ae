"""The composition root: the only file that knows every layer. `Circuit` is the Python API.

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
import socket
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import orjson

from circuit.actions.agent import KIND as AGENT
from circuit.actions.agent import AgentAction
from circuit.actions.function import KIND as FUNCTION
from circuit.actions.function import FunctionAction
from circuit.actions.functions import Function, Source, collect
from circuit.actions.human import KIND as HUMAN
from circuit.actions.human import TASK, HumanAction
from circuit.actions.job import DEFAULT_BACKEND, JobAction
from circuit.actions.job import KIND as JOB
from circuit.actions.processes import ProcessBackend
from circuit.actions.request import KIND as HTTP
from circuit.actions.request import HttpAction
from circuit.actions.tools import Toolbox
from circuit.clock import Clock
from circuit.definition import load_workflow
from circuit.definition.admission import admit
from circuit.definition.compiler import required_function
from circuit.definition.workflow import Workflow
from circuit.egress import Egress
from circuit.engine.action import Action
from circuit.engine.calls import providers_of
from circuit.engine.commands import CommandOutcome, Published, TokenInput
from circuit.engine.engine import Engine
from circuit.engine.execution import FaultHook, no_fault
from circuit.engine.outbox import Outbox
from circuit.engine.requirement import Capabilities
from circuit.engine.views import CaseSummary, CaseView, CaseWhy, TaskView
from circuit.engine.worker import WorkerLimits
from circuit.errors import CircuitError, InvalidRequest, NotFound, Unauthenticated
from circuit.happenings import CaseUpdate as CaseUpdate
from circuit.happenings import Happening, happenings
from circuit.happenings import StreamUpdate as StreamUpdate
from circuit.http import Http, Timeouts, origin
from circuit.ids import DEFAULT_TENANT, CaseKey, parse_case_id, parse_numbered
from circuit.machine import SystemClock, SystemIds
from circuit.providers.profiles import misfits
from circuit.providers.registry import SUPPORTED, ProviderRegistry
from circuit.security.principal import LOCAL, Principal
from circuit.settings import LOOPBACK_HOSTS, Settings, check_database_url
from circuit.storage import cluster, embedded, schema
from circuit.storage.database import Database
from circuit.storage.records import CaseStatus

if TYPE_CHECKING:
    from circuit.api.authentication import Gate

logger = logging.getLogger(__name__)

Progress = Callable[[str], None]

_NO_CASE = "there is no case {}; `circuit cases` lists them"
_KEY_SET_SECONDS = 10.0
_LARGEST_KEY_SET = 1024 * 1024
_SHORT_WAIT = timedelta(minutes=1)


@asynccontextmanager
async def database_url(settings: Settings, progress: Progress | None = None) -> AsyncGenerator[str]:
    """The URL of the database that the settings name; the embedded server runs while the block does."""
    if settings.database_url is not None:
        yield settings.database_url
        return
    if progress is not None and _is_new(settings.home):
        progress(f"making the embedded database in {settings.home} (once, a few seconds)")
    starting = asyncio.ensure_future(asyncio.to_thread(embedded.start, settings.home))
    try:
        server = await asyncio.shield(starting)
    except asyncio.CancelledError:
        # The thread cannot be interrupted: what it started is stopped as soon as it is there.
        await asyncio.to_thread((await starting).stop)
        raise
    try:
        yield server.url
    finally:
        await asyncio.to_thread(server.stop)


def _is_new(home: Path) -> bool:
    try:
        return not cluster.data_directory(home).exists()
    except OSError:
        return False  # whoever starts the server says what is wrong with the directory


class Circuit:
    """Workflows, cases and their streams, over one database. Made by `Circuit.open`; lives on one event loop."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        engine: Engine,
        registry: ProviderRegistry,
        clock: Clock,
        functions: Mapping[str, Function],
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.database = database
        self.engine = engine
        self.registry = registry
        self.functions = functions
        self.principal: Principal = LOCAL
        self.commands = engine.commands
        self.queries = engine.queries
        self.streams = engine.streams
        self.fleet = engine.fleet
        self.outbox = Outbox(database, self.principal.tenant)
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
        stop_seconds: float = 5.0,
        exit_when_stuck: bool = False,
        progress: Progress | None = None,
        fault: FaultHook | None = None,
    ) -> AsyncGenerator[Circuit]:
        """Open the database at `url`, or the embedded one in `home`; what is not given comes from the settings.

        With `worker`, cases are worked on while the block runs: all of them, or those in `only` and what `take` adds.
        `actions` are functions that workflows may call, and modules (or their names) that hold such, beside those of
        the settings. `tools` are functions that agents may name in their `tools`: what they take comes from their
        signatures. At the end of the block, what still runs has `stop_seconds` to end and is handed back then.
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
        async with AsyncExitStack() as stack:
            address = await stack.enter_async_context(database_url(chosen, progress))
            if chosen.database_url is None and (await schema.status(address)).state in ("empty", "behind"):
                if progress is not None:
                    progress("bringing the embedded database to this release's revision")
                await schema.upgrade(address)
            database = await Database.open(address)
            stack.push_async_callback(database.close)
            await schema.require_current(database)
            functions = collect([*chosen.actions, *actions])
            registry = ProviderRegistry(chosen.environment, connect_seconds=chosen.connection_timeout)
            stack.push_async_callback(registry.aclose)
            http = Http(Timeouts(connect=chosen.connection_timeout))
            stack.push_async_callback(http.aclose)
            egress = Egress(chosen.http_hosts, private=chosen.http_private)
            clock = SystemClock()
            toolbox = Toolbox(chosen.home / "workspaces", registry.http, chosen.environment, functions=tuple(tools))
            stack.push_async_callback(toolbox.aclose)
            performing: dict[str, Action] = {
                AGENT: AgentAction(registry, toolbox=toolbox),
                FUNCTION: FunctionAction(functions, chosen.max_concurrent_executions),
                HUMAN: HumanAction(),
                HTTP: HttpAction(egress, http, chosen.environment),
            }
            if chosen.jobs:
                processes = ProcessBackend(chosen.home / "jobs", chosen.environment)
                performing[JOB] = JobAction({DEFAULT_BACKEND: processes}, chosen.environment)
            engine = Engine(
                database,
                actions=performing,
                clock=clock,
                ids=SystemIds(clock),
                worker=worker,
                only=cases,
                capabilities=Capabilities([*performing, *map(required_function, functions)], SUPPORTED, chosen.pools),
                limits=WorkerLimits(
                    lease_seconds=chosen.lease_seconds,
                    executions=chosen.max_concurrent_executions,
                    stop_seconds=stop_seconds,
                    exit_when_stuck=exit_when_stuck,
                ),
                ring_frames=chosen.stream_buffer_size,
                fault=fault or no_fault,
            )
            stack.push_async_callback(engine.stop)
            await engine.start()
            circuit = cls(chosen, database, engine, registry, clock, functions)
            circuit._only = cases
            yield circuit

    # Workflows

    async def load(self, source: str | Path, *, allow_unsound: bool = False) -> Workflow:
        """Publish the workflow in `source`, a path or its YAML. Raises `DefinitionError`, also where it is unsound."""
        workflow = await asyncio.to_thread(_loaded, source, allow_unsound)
        await self.publish(workflow)
        return workflow

    async def publish(self, workflow: Workflow) -> Published:
        """Make `workflow` the current version of its id. The same content again changes nothing."""
        return await self.commands.publish(workflow, self.principal)

    def check_models(self, workflow: Workflow, models: Mapping[str, Mapping[str, Any]]) -> None:
        """Raise `ProviderMisconfigured` if an agent's provider cannot be used: its type is not known, or it lacks a
        key. No request is sent."""
        for spec in providers_of(workflow, {"models": models}):
            self.registry.check({"type": spec.type, "model": spec.model, "options": spec.options})

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
    ) -> str:
        """Start a case of the current version of a workflow and return its id.

        `models` puts other models in the place of the workflow's: `{"type": ..., "model": ...}` by agent id, or by `*`
        for every agent. Raises `NotFound`, and `TokenRefused` where the token does not fit its place.
        """
        token = TokenInput(dict(data or {}), dict(metadata or {})) if data is not None or metadata is not None else None
        parameters = {"models": {name: dict(model) for name, model in models.items()}} if models else {}
        key = await self.commands.start_case(workflow_id, token, principal=self.principal, parameters=parameters)
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

    async def cancel(self, case_id: str) -> CommandOutcome:
        """End a case as it is."""
        return await self.commands.cancel(self.key(case_id), principal=self.principal)

    async def wait(self, case_id: str) -> CaseView:
        """The case when it has ended, or when Circuit itself would do nothing more in it."""
        async with aclosing(self._happenings(case_id, None)) as happenings:
            async for _ in happenings:
                pass
        return await self.case(case_id)

    def stream(self, case_id: str, *, silent: Collection[str] = ()) -> AsyncGenerator[Happening]:
        """The events of a case from its start, and what its executions say, live; ends where `wait` does.

        The frames of an execution come before the event that ends it. The executions in `silent` are left out.
        """
        return self._happenings(case_id, frozenset(silent))

    def rests(self, view: CaseView) -> bool:
        """Whether nothing more happens in the case by itself for a while: it has ended, or it waits for somebody, or
        for a time that is more than a minute away. (While a retry is to come it does not rest.)"""
        if view.status.terminal:
            return True
        if view.owned or view.status is CaseStatus.RUNNING or any(one.retry_at is not None for one in view.executions):
            return False
        return view.due_at is None or view.due_at - self.clock.now() > _SHORT_WAIT

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

    @property
    def busy(self) -> bool:
        """Whether this process holds a case at this moment."""
        worker = self.engine.worker
        return worker is not None and worker.tenure is not None and len(worker.tenure.desk) > 0

    async def worked(self) -> None:
        """Wait until the worker of this process is over: it was drained on request."""
        if self.engine.worker is not None:
            await self.engine.worker.ended.wait()

    async def serve(self, host: str, port: int, *, ready: Progress | None = None) -> None:
        """Serve the API on `host` until the task is cancelled. `ready` hears the URL when requests are taken.

        Raises `Conflict` where the port is in use, and `InvalidRequest` for a host that others can reach while no
        authentication is configured.
        """
        from circuit.api.application import Services, create_application
        from circuit.api.server import serve

        services = Services(
            commands=self.commands,
            queries=self.queries,
            streams=self.streams,
            load=partial(load_workflow, models=misfits),
            gate=await self._gate(host),
            ready=self._health,
            clock=self.clock,
            figures=self.engine.figures,
        )
        await serve(create_application(services), host, port, ready=ready)

    async def _gate(self, host: str) -> Gate:
        """Who is let in: everybody as this machine's own principal, unless credentials are configured or exist."""
        from circuit.api.authentication import Gate, Verifiers

        required = self.settings.access.configured or await self.engine.keys.any()
        if not required and host not in LOOPBACK_HOSTS:
            raise InvalidRequest(
                f"circuit serve listens on loopback addresses only, not on {host!r}: no authentication is configured,"
                " and who reaches the port may start and fire anything. Make a key first (`circuit keys create`), or"
                " set AGENT_ACCESS_TOKEN, CIRCUIT_JWT_SECRET or CIRCUIT_JWKS_URL."
            )
        verifiers = Verifiers(self.engine.keys.principal, self._key_set)
        return Gate(self.settings.access, verifiers, self.clock, required=required, otherwise=self.principal)

    async def _key_set(self, url: str) -> Mapping[str, Any]:
        """The JSON Web Key Set at `url`. Raises `Unauthenticated` where there is none to be had."""
        http = Http(Timeouts(connect=_KEY_SET_SECONDS, first_byte=_KEY_SET_SECONDS, idle=_KEY_SET_SECONDS))
        found: Any = None
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
            places = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answer = await http.fetch("GET", url, host=host, address=str(places[0][4][0]), limit=_LARGEST_KEY_SET)
            found = orjson.loads(answer.body) if answer.status == 200 else None
        except (CircuitError, OSError, ValueError) as error:
            logger.error("the key set at %s cannot be fetched: %s", origin(url), error)
        finally:
            await http.aclose()
        if not isinstance(found, dict):
            raise Unauthenticated("the published keys cannot be fetched; the server's log says why")
        return cast("dict[str, Any]", found)

    async def _health(self) -> Mapping[str, Any]:
        """What is known of the database, if requests can be served. Raises `StorageError`."""
        await schema.require_current(self.database)
        return {"revision": await self.database.revision()}

    def _happenings(self, case_id: str, silent: Collection[str] | None) -> AsyncGenerator[Happening]:
        return happenings(self.streams, self.key(case_id), lambda: self.case(case_id), self.rests, silent)


def _loaded(source: str | Path, unsound: bool) -> Workflow:
    text, name = str(source), "<text>"
    if isinstance(source, Path) or "\n" not in source:
        try:
            text, name = Path(source).read_text(encoding="utf-8"), str(source)
        except (OSError, ValueError) as error:
            raise InvalidRequest(f"The workflow file {str(source)!r} cannot be read: {error}") from error
    workflow = load_workflow(text, name, misfits)
    admit(workflow, name, time.monotonic, unsound=unsound)
    return workflow
