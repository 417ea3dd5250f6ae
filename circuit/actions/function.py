"""The action of the kind `function`: calls a registered Python function.

Its configuration is `name`, perhaps `heartbeat_seconds`, and `occurrence`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC
from functools import partial
from typing import Any, cast

from circuit.actions.context import BlockingContext, Context
from circuit.actions.functions import Function
from circuit.actions.result import as_json
from circuit.actions.retrieval import Retrieval
from circuit.engine.action import ActionCall, ActionContext, ActionOutput, Suspended
from circuit.errors import ActionFailed, CircuitError, ExecutionTimeout
from circuit.providers.registry import ProviderRegistry
from circuit.security.redaction import excerpt, redact
from circuit.security.redactor import Redactor
from circuit.threads import Threads

KIND = "function"

_LONGEST_MESSAGE = 500


class FunctionAction:
    """Calls functions: asynchronous ones on the event loop, the others in at most `threads` threads. What they ask of
    models goes through `registry`, and is redacted by the rules of `redactor`."""

    def __init__(
        self,
        functions: Mapping[str, Function],
        threads: int,
        registry: ProviderRegistry | None = None,
        redactor: Redactor | None = None,
    ) -> None:
        self._redactor = redactor or Redactor()
        self._functions = functions
        self._registry = registry
        self._threads = Threads(threads)

    async def perform(self, call: ActionCall, context: ActionContext) -> ActionOutput:
        """Call the function of `call`.

        The outputs are the keys of what it returns, if that is an object, and the built-in ones `output` (all of it),
        `execution_id` and `timestamp`, which hide keys of the same name (`output.NAME` reaches those).
        """
        name = str(call.config["name"])
        function = self._functions.get(name)
        if function is None:
            known = ", ".join(sorted(self._functions)) or "none"
            raise ActionFailed(
                f"this worker has no function {name!r}; it knows {known}. Start it with --actions MODULE"
            )
        output = await self._call(function, call, context)
        named = cast("dict[str, Any]", output) if isinstance(output, dict) else {}
        at = context.now().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        outputs = {**named, "execution_id": call.execution_id, "timestamp": at, "output": output}
        return ActionOutput(outputs, output if isinstance(output, str) else "", output)

    async def _call(self, function: Function, call: ActionCall, context: ActionContext) -> Any:
        """What the function returned, as JSON. Whatever it raises that is not one of Circuit's errors is
        `action_failed`: a function must not be able to end the process."""
        silence: float | None = call.config.get("heartbeat_seconds")
        loop = asyncio.get_running_loop()
        pulse = asyncio.timeout(silence)

        def beat() -> None:
            if silence is not None and not pulse.expired():
                pulse.reschedule(loop.time() + silence)

        redaction = self._redactor.at("prompts", call.redaction)
        retrieval = None if self._registry is None else Retrieval(self._registry, call.recorded, context, redaction)
        own = Context(call, context, function.name, beat, retrieval)
        try:
            async with pulse:
                if function.asynchronous:
                    return as_json(function.name, await self._asynchronous(function, call, own))
                return await self._blocking(function, call, BlockingContext(own, loop))
        except (CircuitError, Suspended, asyncio.CancelledError):
            raise
        except BaseException as error:
            if isinstance(error, TimeoutError) and pulse.expired():
                raise ExecutionTimeout(f"{function.name} was silent for more than {silence:g} s") from None
            if isinstance(error, Exception):
                raise
            told = excerpt(redact(f"{type(error).__name__}: {error}", ()), _LONGEST_MESSAGE)
            raise ActionFailed(f"{function.name} raised {told}") from error
        finally:
            own.end()

    async def _asynchronous(self, function: Function, call: ActionCall, context: Context) -> Any:
        positional, named = function.signature.arguments(call.inputs, context)
        return await function.call(*positional, **named)

    async def _blocking(self, function: Function, call: ActionCall, context: BlockingContext) -> Any:
        # Inputs and output may be large: both are looked at in the thread.
        return await self._threads.run(function.name, partial(_called, function, call.inputs, context))


def _called(function: Function, inputs: Mapping[str, Any], context: BlockingContext) -> Any:
    positional, named = function.signature.arguments(inputs, context)
    return as_json(function.name, function.call(*positional, **named))
