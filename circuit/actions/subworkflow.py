"""The action of the kind `subworkflow`: a case of another workflow. The firing waits, without a worker, until it ends.

Its configuration is `workflow`, and perhaps `wait_seconds` (the longest that the case may take), and `occurrence`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any, cast
from uuid import UUID

from circuit.engine.action import ActionCall, ActionContext, ActionOutput
from circuit.engine.children import Children
from circuit.errors import ExecutionTimeout, InvalidOutput, SubworkflowFailed

KIND = "subworkflow"


class SubworkflowAction:
    """Opens cases, and takes what they end with."""

    def __init__(self, children: Children) -> None:
        self._children = children

    async def perform(self, call: ActionCall, context: ActionContext) -> ActionOutput:
        """Open a case with the inputs of `call` as its token's data, and wait until it has ended.

        The outputs are the fields of its final tokens' data (of several tokens the one with the highest number has the
        last word), and the built-in ones `output` (all of them), `tokens` (each with `place`, `data`, `metadata`),
        `place` (where the last of them lies), `case_id`, `usage`, `execution_id` and `timestamp`, which hide fields of
        the same name. A retry opens another case.
        """
        workflow: str = call.config["workflow"]
        limit: float | None = call.config.get("wait_seconds")
        done = await context.suspend(
            KIND,
            f"case:{call.attempt}",
            {"workflow": workflow},
            limit,
            opens=lambda: self._children.open(call, workflow, context.now()),
        )
        if done.timed_out:
            raise ExecutionTimeout(f"{call.transition}: the case of {workflow} did not end within {limit:g} s")
        told = cast("Mapping[str, Any]", done.payload)
        case, result = str(told["case"]), cast("Mapping[str, Any]", told["result"])
        usage = await self._children.usage(call.key.tenant, UUID(case))
        if result["status"] != "completed":
            why = f": {result['reason']}" if result.get("reason") else ""
            raise SubworkflowFailed(f"{call.transition}: case {case} of {workflow} is {result['status']}{why}")
        if "excess" in result:
            raise InvalidOutput(f"{call.transition}: case {case} of {workflow} is completed, but {result['excess']}")
        tokens: list[Mapping[str, Any]] = result["tokens"]
        data: dict[str, Any] = {}
        for token in tokens:
            data |= token["data"]
        at = context.now().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        built_in = {
            "output": data,
            "tokens": tokens,
            "place": tokens[-1]["place"] if tokens else None,
            "case_id": case,
            "usage": usage,
            "execution_id": call.execution_id,
            "timestamp": at,
        }
        return ActionOutput({**data, **built_in}, output=data, usage=usage)
