"""The kinds of actions that this process performs, as its settings allow."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from circuit.actions.agent import KIND as AGENT
from circuit.actions.agent import AgentAction
from circuit.actions.consultation import KIND as CONSULTATION
from circuit.actions.consultation import ConsultationAction
from circuit.actions.function import KIND as FUNCTION
from circuit.actions.function import FunctionAction
from circuit.actions.functions import MARK, Function
from circuit.actions.human import KIND as HUMAN
from circuit.actions.human import HumanAction
from circuit.actions.job import DEFAULT_BACKEND, JobAction
from circuit.actions.job import KIND as JOB
from circuit.actions.processes import ProcessBackend
from circuit.actions.request import KIND as HTTP
from circuit.actions.request import HttpAction
from circuit.actions.subworkflow import KIND as SUBWORKFLOW
from circuit.actions.subworkflow import SubworkflowAction
from circuit.actions.tools import Toolbox
from circuit.agents.interceptor import Interceptor
from circuit.clock import Clock
from circuit.definition.action_document import FUNCTION_NAME
from circuit.egress import Egress
from circuit.engine.action import Action
from circuit.engine.answers import Answers
from circuit.engine.children import Children
from circuit.engine.conversations import Memory
from circuit.engine.execution import FaultHook
from circuit.engine.grants import Permits
from circuit.errors import InvalidRequest
from circuit.http import Http, Timeouts
from circuit.providers.registry import ProviderRegistry
from circuit.settings import Settings
from circuit.storage.database import Database


def as_tools(functions: Mapping[str, Function], tools: Sequence[Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """What agents may call of Python: `tools` by their own names, and the functions that do without a context. Raises
    `InvalidRequest` where one has no name, or two have the same."""
    found = {name: function.call for name, function in functions.items() if function.signature.context is None}
    for call in tools:
        name = str(getattr(call, MARK, "") or getattr(call, "__name__", ""))
        if not re.fullmatch(FUNCTION_NAME, name):
            raise InvalidRequest(f"{call!r:.100} has no name that a tool could have: write a function around it")
        if found.setdefault(name, call) is not call:
            raise InvalidRequest(f"two tools have the name {name!r}: rename one with @action(name=...)")
    return found


def performers(
    settings: Settings,
    registry: ProviderRegistry,
    functions: Mapping[str, Function],
    tools: Sequence[Callable[..., Any]],
    database: Database,
    clock: Clock,
    children: Children,
    fault: FaultHook,
    interceptors: Sequence[Interceptor],
    stack: AsyncExitStack,
) -> dict[str, Action]:
    """An action of each kind; `stack` closes what they hold."""
    http = Http(Timeouts(connect=settings.connection_timeout))
    stack.push_async_callback(http.aclose)
    toolbox = Toolbox(
        settings.home / "workspaces", registry.http, settings.environment, functions=as_tools(functions, tools)
    )
    stack.push_async_callback(toolbox.aclose)
    agents = AgentAction(
        registry,
        toolbox=toolbox,
        answers=partial(Answers, database),
        memories=partial(Memory, database),
        permit=Permits(database, clock.monotonic).check,
        redactor=settings.redactor,
        screener=settings.screener,
        fault=fault,
        interceptors=interceptors,
    )
    threads = settings.worker_executions or settings.max_concurrent_executions
    performing: dict[str, Action] = {
        AGENT: agents,
        CONSULTATION: ConsultationAction(agents),
        FUNCTION: FunctionAction(functions, threads, registry, settings.redactor),
        HUMAN: HumanAction(),
        SUBWORKFLOW: SubworkflowAction(children),
        HTTP: HttpAction(Egress(settings.http_hosts, private=settings.http_private), http, settings.environment),
    }
    if settings.jobs:
        processes = ProcessBackend(settings.home / "jobs", settings.environment)
        performing[JOB] = JobAction({DEFAULT_BACKEND: processes}, settings.environment)
    return performing
