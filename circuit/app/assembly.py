"""What a `Circuit` is made of: the parts of every layer, put together as the settings say, and closed again."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from circuit.actions.functions import Function, Source, collect
from circuit.agents.interceptor import Interceptor
from circuit.app.home import Progress, opened
from circuit.app.models import ERRAND, ModelErrand
from circuit.app.performers import performers
from circuit.app.tracing import tracing
from circuit.clock import Clock
from circuit.definition.compiler import required_function
from circuit.engine.archive.policy import Policy
from circuit.engine.archive.round import Archive
from circuit.engine.children import Children
from circuit.engine.engine import Engine
from circuit.engine.execution import FaultHook
from circuit.engine.rations import Rations
from circuit.engine.requirement import Capabilities
from circuit.engine.versions import Versions
from circuit.engine.worker import WorkerLimits
from circuit.ids import CaseKey
from circuit.machine import SystemClock, SystemIds
from circuit.providers.registry import ProviderRegistry, usable
from circuit.settings import Settings
from circuit.storage.database import Database
from circuit.tracing import Tracer

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts, open. `functions` are those that workflows may call in this process, by name."""

    settings: Settings
    database: Database
    engine: Engine
    registry: ProviderRegistry
    archive: Archive
    clock: Clock
    functions: Mapping[str, Function]
    tracer: Tracer | None


@asynccontextmanager
async def assembled(
    settings: Settings,
    *,
    worker: bool,
    only: Sequence[CaseKey] | None,
    actions: Sequence[Source],
    tools: Sequence[Callable[..., Any]],
    interceptors: Sequence[Interceptor],
    tracer_provider: TracerProvider | None,
    meter_provider: MeterProvider | None,
    stop_seconds: float | None,
    exit_when_stuck: bool,
    progress: Progress | None,
    fault: FaultHook,
) -> AsyncGenerator[Parts]:
    """The parts for as long as the block runs; what each argument means, `Circuit.open` says. The worker looks at
    `only` at each claim, so that it may grow. Raises `StorageError`."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(opened(settings, progress))
        functions = collect([*settings.actions, *actions])
        clock = SystemClock()
        ids, versions = SystemIds(clock), Versions()
        rations = Rations(database, ids.uuid(), clock.monotonic)
        stack.push_async_callback(rations.stop)
        await rations.start()
        registry = ProviderRegistry(settings.environment, waits=settings.waits, rations=rations)
        stack.push_async_callback(registry.aclose)
        tracer = tracing(settings, tracer_provider, meter_provider)
        if tracer is not None:
            stack.push_async_callback(tracer.close)
        archive = Archive(database, settings.archive_folder or settings.home / "archive")
        children = Children(database, versions, ids)
        performing = performers(
            settings, registry, functions, tools, database, clock, children, fault, interceptors, stack
        )
        engine = Engine(
            database,
            actions=performing,
            clock=clock,
            ids=ids,
            versions=versions,
            worker=worker,
            only=only,
            capabilities=Capabilities([*performing, *map(required_function, functions)], usable(), settings.pools),
            errands={ERRAND: ModelErrand(registry)},
            limits=WorkerLimits(
                lease_seconds=settings.lease_seconds,
                executions=settings.worker_executions or settings.max_concurrent_executions,
                deployment=settings.max_concurrent_executions,
                stop_seconds=settings.stop_seconds if stop_seconds is None else stop_seconds,
                exit_when_stuck=exit_when_stuck,
            ),
            ring_frames=settings.stream_buffer_size,
            starts=settings.start_rate,
            policy=Policy(
                settings.archive_after,
                settings.archive_keep_failed,
                settings.streams_after,
                settings.streams_compact_after,
            ),
            archive=archive,
            pressed=registry.pressed,
            tracer=tracer,
            redactor=settings.redactor,
            fault=fault,
        )
        stack.push_async_callback(engine.stop)
        await engine.start()
        yield Parts(settings, database, engine, registry, archive, clock, functions, tracer)
