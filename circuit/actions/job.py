"""The action of the kind `job`: something that runs elsewhere, for hours if it must, while the firing waits without a
worker. It is submitted once, looked at in growing intervals, and collected.

Its configuration is `command`, and perhaps `backend`, `environment`, `working_directory`, `poll_seconds` and
`wait_seconds` (the longest that it may take), and `occurrence`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

import orjson

from circuit.actions.jobs import JobBackend, JobSpec, JobState
from circuit.engine.action import ActionCall, ActionContext, ActionOutput
from circuit.errors import ActionFailed, ExecutionTimeout, JobFailed, JobLost, MappingError
from circuit.events import StreamDelta
from circuit.expressions.template import Template
from circuit.ids import idempotency_key
from circuit.security.secrets import UnresolvedReference, resolve
from circuit.tracing import TRACEPARENT, current

KIND = "job"

DEFAULT_BACKEND = "process"
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
GROWTH = 1.5

_SUBMITTED = "job"


class JobAction:
    """Runs jobs on `backends`, by name. `environment` is where references are looked up."""

    def __init__(self, backends: Mapping[str, JobBackend], environment: Mapping[str, str]) -> None:
        self._backends = backends
        self._environment = environment

    async def perform(self, call: ActionCall, context: ActionContext) -> ActionOutput:
        """Submit the job of `call`, or look how it stands: wait on, or give what it came to.

        The outputs are the keys of its output, if that is an object, and the built-in ones `output` (all of it), `log`
        (the end of it), `execution_id` and `timestamp`, which hide keys of the same name (`output.NAME` reaches those).
        """
        backend, key = self._backend(call), job_key(call)
        submitted = call.recorded.get(_SUBMITTED)
        if submitted is None:
            handle = await backend.submit(key, self._spec(call))
            submitted = await context.record(_SUBMITTED, {"handle": handle, "at": context.now().isoformat()})
        handle = submitted["handle"]
        status = await backend.poll(key, handle)
        if status.progress:
            await context.emit(StreamDelta.thinking(status.progress))
        if status.state is JobState.RUNNING:
            await self._wait(call, context, backend, datetime.fromisoformat(submitted["at"]), status.progress)
        if status.state is JobState.FAILED:
            raise JobFailed(f"{call.transition}: {status.detail}")
        if status.state is not JobState.SUCCEEDED:
            raise JobLost(f"{call.transition}: {status.detail}")
        result = await backend.collect(key, handle)
        named = cast("dict[str, Any]", result.output) if isinstance(result.output, dict) else {}
        at = context.now().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        built_in = {"output": result.output, "log": result.log, "execution_id": call.execution_id, "timestamp": at}
        text = result.output if isinstance(result.output, str) else ""
        return ActionOutput({**named, **built_in}, text, result.output)

    async def abandon(self, call: ActionCall) -> None:
        """The firing was cancelled: so is its job."""
        await self._backend(call).cancel(job_key(call))

    async def _wait(
        self, call: ActionCall, context: ActionContext, backend: JobBackend, since: datetime, progress: str
    ) -> None:
        """Look again later, in growing intervals; not after the time that the job may take."""
        polls = sum(step.startswith(f"$wait:{call.attempt}:") for step in call.recorded)
        longest: float = call.config.get("poll_seconds") or LONGEST_PAUSE_SECONDS
        pause = min(FIRST_PAUSE_SECONDS * GROWTH ** min(polls, 50), longest)
        limit: float | None = call.config.get("wait_seconds")
        if limit is not None:
            left = limit - (context.now() - since).total_seconds()
            if left <= 0:
                await backend.cancel(job_key(call))
                raise ExecutionTimeout(f"{call.transition}: the job took longer than {limit:g} s and was cancelled")
            pause = min(pause, left)
        await context.suspend(KIND, f"{call.attempt}:{polls}", {"job": job_key(call), "progress": progress}, pause)

    def _backend(self, call: ActionCall) -> JobBackend:
        name = str(call.config.get("backend") or DEFAULT_BACKEND)
        backend = self._backends.get(name)
        if backend is None:
            raise ActionFailed(f"this worker has no backend {name!r} for jobs; it knows {', '.join(self._backends)}")
        return backend

    def _spec(self, call: ActionCall) -> JobSpec:
        config = call.config
        try:
            environment = {
                name: resolve(value, self._environment) for name, value in (config.get("environment") or {}).items()
            }
        except UnresolvedReference as error:
            raise ActionFailed(f"{call.transition}: the job's environment: {error}") from None
        values = {
            name: value if isinstance(value, str) else orjson.dumps(value).decode()
            for name, value in call.inputs.items()
        }
        try:
            command = [Template.parse(word).render(values) for word in config["command"]]
        except ValueError as error:
            raise MappingError(f"the job's command cannot be made: {error}") from None
        environment["CIRCUIT_IDEMPOTENCY_KEY"] = job_key(call)
        span = current()
        if span is not None and span.context is not None:
            environment.setdefault(TRACEPARENT.upper(), span.context.text)
        return JobSpec(command, call.inputs, environment, config.get("working_directory"), config.get("wait_seconds"))


def job_key(call: ActionCall) -> str:
    """What the job of this attempt is known by: the same over resumes, another one for another attempt."""
    return idempotency_key(call.execution_id, KIND, call.inputs, call.attempt)[:40]
