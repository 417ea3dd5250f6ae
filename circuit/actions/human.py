"""The action of the kind `human`: a task for a person. The firing waits, without a worker, until one has completed it.

Its configuration is perhaps `title`, `instructions`, `form`, `roles` and `wait_seconds`, and `occurrence`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any, cast

import orjson

from circuit.engine.action import ActionCall, ActionContext, ActionOutput
from circuit.errors import ExecutionTimeout, MappingError
from circuit.expressions.template import Template

KIND = "human"

TASK = "task"
"""The key of the wait: a task is completed once, whoever comes second."""


class HumanAction:
    """Asks people."""

    async def perform(self, call: ActionCall, context: ActionContext) -> ActionOutput:
        """Wait until a person has completed the task of `call`.

        The outputs are the fields of the form, and the built-in ones `output` (all of them), `completed_by`,
        `execution_id` and `timestamp`, which hide fields of the same name (`output.NAME` reaches those).
        """
        config = call.config
        task = {
            "title": _filled(config.get("title") or call.transition, call.inputs),
            "instructions": _filled(config.get("instructions") or "", call.inputs),
            "inputs": dict(call.inputs),
        }
        limit: float | None = config.get("wait_seconds")
        roles, form = config.get("roles") or (), config.get("form")
        done = await context.suspend(KIND, TASK, task, limit, roles=roles, form=form or {"type": "object"})
        if done.timed_out:
            raise ExecutionTimeout(f"{call.transition}: nobody completed the task within {limit:g} s")
        filled = cast("Mapping[str, Any]", done.payload)
        at = context.now().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        built_in = {
            "output": filled,
            "completed_by": done.principal,
            "execution_id": call.execution_id,
            "timestamp": at,
        }
        return ActionOutput({**filled, **built_in}, output=filled)


def _filled(text: str, inputs: Mapping[str, Any]) -> str:
    values = {name: value if isinstance(value, str) else orjson.dumps(value).decode() for name, value in inputs.items()}
    try:
        return Template.parse(text).render(values)
    except ValueError as error:
        raise MappingError(f"the task's text cannot be made: {error}") from None
