"""Actions that no engine should have to run: what each kind of poison token makes of the worker that touches it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

from circuit.actions.agent import AgentAction
from circuit.engine.action import ActionCall, ActionContext, ActionOutput

BLOCKED_SECONDS = 3.0
"""Three leases of the tests."""
HUGE = 100_000_000
DEPTH = 10_000


async def raises() -> ActionOutput:
    raise ZeroDivisionError("poison")


async def raises_what_nobody_expects() -> ActionOutput:
    raise SystemExit(3)


async def ends_the_process() -> ActionOutput:
    os._exit(3)


async def never_lets_go() -> ActionOutput:
    while True:
        pass


async def blocks_the_loop() -> ActionOutput:
    time.sleep(BLOCKED_SECONDS)  # noqa: ASYNC251 -- that is the poison
    return ActionOutput({})


async def never_ends() -> ActionOutput:
    while True:  # noqa: ASYNC110 -- that is the poison
        await asyncio.sleep(0.001)


async def does_not_heed_a_cancel() -> ActionOutput:
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            continue
    return ActionOutput({"text": "late"}, text="late")


async def says_a_hundred_megabytes() -> ActionOutput:
    return ActionOutput({}, text="x" * HUGE)


async def says_nul() -> ActionOutput:
    return ActionOutput({"text": "a\0b"}, text="a\0b")


async def says_half_a_character() -> ActionOutput:
    return ActionOutput({"text": "\udcff"}, text="\udcff")


async def nests_deeply() -> ActionOutput:
    value: Any = None
    for _ in range(DEPTH):
        value = [value]
    return ActionOutput({"text": value})


async def returns_what_is_no_json() -> ActionOutput:
    return ActionOutput({"text": float("nan"), "what": object()})


async def returns_nothing() -> ActionOutput:
    return None  # type: ignore[return-value]


KINDS: dict[str, Callable[[], Awaitable[ActionOutput]]] = {
    kind.__name__: kind
    for kind in (
        raises,
        raises_what_nobody_expects,
        ends_the_process,
        never_lets_go,
        blocks_the_loop,
        never_ends,
        does_not_heed_a_cancel,
        says_a_hundred_megabytes,
        says_nul,
        says_half_a_character,
        nests_deeply,
        returns_what_is_no_json,
        returns_nothing,
    )
}


class PoisonedAction(AgentAction):
    """An agent, but for tokens that say what kind of poison they are."""

    async def perform(self, call: ActionCall, context: ActionContext) -> ActionOutput:
        kind = call.tokens[0]["data"].get("poison")
        if kind is not None:
            return await KINDS[kind]()
        return await super().perform(call, context)


def install() -> None:
    """Have this process meet poison."""
    from circuit.app import performers

    performers.AgentAction = PoisonedAction  # type: ignore[misc]
