"""Functions as the actions of cases: with a real engine over a real Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from circuit import BlockingContext, Circuit, Context
from circuit.engine.views import CaseView
from circuit.errors import CircuitError, InvalidRequest, ProviderUnavailable
from circuit.settings import Settings

WORKFLOW = """
workflow: order
places:
  open: {initial: true}
  charged: {terminal: true}
  refused: {dead_letter: true}
transitions:
  charge:
    from_places: open
    to_place: charged
    action:
      type: function
      name: act
      input_mapping: {amount: data.amount}
      output_mapping: {data.receipt: receipt, metadata.charged: execution_id}
      retry_config: {max_attempts: 2, backoff_seconds: 0}
    on_failure: refused
"""


@asynccontextmanager
async def opened(url: str, act: Callable[..., Any], **options: Any) -> AsyncIterator[Circuit]:
    act.__name__ = "act"
    settings = Settings.from_environment({"CIRCUIT_LEASE_SECONDS": "20", "CIRCUIT_DATABASE_URL": url})
    async with Circuit.open(settings=settings, actions=[act], stop_seconds=0.2, **options) as circuit:
        yield circuit


async def done(url: str, act: Callable[..., Any], text: str = WORKFLOW, **data: Any) -> CaseView:
    async with opened(url, act) as circuit:
        workflow = await circuit.load(text)
        return await asyncio.wait_for(circuit.wait(await circuit.start(workflow.id, data)), 60)


async def test_what_a_function_returns_is_mapped_into_the_token(database_url: str) -> None:
    def act(amount: int) -> dict[str, str]:
        return {"receipt": f"r-{amount}"}

    view = await done(database_url, act, amount=12)
    [token] = view.tokens
    assert token.place == "charged" and token.data == {"amount": 12, "receipt": "r-12"}
    [execution] = view.executions
    assert token.metadata == {"charged": execution.id}
    assert execution.descriptor == {"action": "function", "name": "act"}


async def test_the_short_form_names_a_function(database_url: str) -> None:
    text = "workflow: short\nplaces: [a, b]\ntransitions: {go: {from_places: a, to_place: b, action: act}}\n"
    view = await done(database_url, lambda: None, text)
    assert view.marking == {"b": 1}


async def test_a_retry_does_no_step_again(database_url: str) -> None:
    seen: list[Any] = []

    async def act(amount: int, ctx: Context) -> dict[str, Any]:
        receipt = await ctx.step("charge", lambda: seen.append("charged") or f"r-{amount}")
        seen.append((ctx.attempt, ctx.idempotency_key))
        if ctx.attempt == 1:
            raise ProviderUnavailable("the bank is away")
        return {"receipt": receipt}

    view = await done(database_url, act, amount=5)
    assert view.tokens[0].data == {"amount": 5, "receipt": "r-5"}
    charged, (first, key), (second, other) = seen
    assert charged == "charged" and (first, second) == (1, 2) and key == other


async def test_another_worker_does_no_step_again(database_url: str) -> None:
    seen: list[str] = []
    waiting = asyncio.Event()

    def act(amount: int, ctx: BlockingContext) -> dict[str, Any]:
        receipt = ctx.step("charge", lambda: seen.append("charged") or f"r-{amount}")
        if len(seen) == 1:
            seen.append("waits")
            loop.call_soon_threadsafe(waiting.set)
            while True:  # until the worker that wants it is gone
                ctx.heartbeat()
        return {"receipt": receipt}

    loop = asyncio.get_running_loop()
    async with opened(database_url, act) as circuit:
        workflow = await circuit.load(WORKFLOW)
        case = await circuit.start(workflow.id, {"amount": 5})
        await asyncio.wait_for(waiting.wait(), 60)
    async with opened(database_url, act) as circuit:
        view = await asyncio.wait_for(circuit.wait(case), 60)
    assert view.tokens[0].data["receipt"] == "r-5"
    assert seen == ["charged", "waits"]


class Declined(CircuitError):
    """An error of the user's own."""

    code = "declined"


def _declines() -> None:
    raise Declined("no funds")


BAD: list[tuple[Callable[[], Any], str, str]] = [
    (lambda: {"receipt": object()}, "invalid_output", "cannot be JSON"),
    (lambda: {"receipt": float("nan")}, "invalid_output", "cannot be stored: receipt is not a finite number"),
    (lambda: {"receipt": "a\0b"}, "invalid_output", "receipt holds a NUL"),
    (lambda: {"receipt": "\ud800"}, "invalid_output", "a lone surrogate"),
    (lambda: {"receipt": "x" * 100_000_000}, "invalid_output", "returned too much: it has 100000014 bytes of JSON"),
    (lambda: {"other": 1}, "mapping_error", "there is no output receipt"),
    (lambda: 1 / 0, "action_failed", "ZeroDivisionError"),
    (_declines, "declined", "no funds"),
]


async def test_a_bad_output_or_input_fails_the_firing_and_says_why(database_url: str) -> None:
    async with opened(database_url, lambda amount: BAD[int(amount)][0]()) as circuit:
        workflow = await circuit.load(WORKFLOW.replace("max_attempts: 2", "max_attempts: 1"))
        for number, (_, code, message) in enumerate(BAD):
            view = await asyncio.wait_for(circuit.wait(await circuit.start(workflow.id, {"amount": number})), 60)
            [token] = view.tokens
            assert token.place == "refused" and token.data == {"amount": number}
            assert token.metadata["failure"]["code"] == code
            assert message in token.metadata["failure"]["message"]


async def test_wrong_inputs_fail_the_firing_without_a_second_attempt(database_url: str) -> None:
    def act(amount: int) -> None: ...

    view = await done(database_url, act, amount="many")
    assert view.tokens[0].metadata["failure"]["code"] == "invalid_input"
    assert not any(entry.kind == "firing_retried" for entry in view.history)


async def test_a_function_that_is_not_there_is_found_before_a_run(database_url: str) -> None:
    async with opened(database_url, lambda: None) as circuit:
        workflow = await circuit.load(WORKFLOW.replace("name: act", "name: other"))
        with pytest.raises(InvalidRequest, match="order calls other, and the functions known here are: act"):
            circuit.check_actions(workflow)
        assert workflow.requires["actions"] == ["function:other"]


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_function_waits_for_a_signal_and_goes_on_after_it(database_url: str, blocking: bool) -> None:
    """In another process than the one that it began to wait in, with its steps done once."""
    deeds: list[str] = []
    form = {"type": "object", "required": ["by"]}

    def waiting(ctx: BlockingContext) -> dict[str, Any]:
        order = ctx.step("order", lambda: deeds.append("ordered") or "o-1")
        answer = ctx.suspend("delivered", payload={"order": order}, form=form)
        late = ctx.suspend("invoice", timeout_seconds=0.05)
        return {"receipt": [answer.payload, answer.principal, late.timed_out]}

    async def awaiting(ctx: Context) -> dict[str, Any]:
        order = await ctx.step("order", lambda: deeds.append("ordered") or "o-1")
        answer = await ctx.suspend("delivered", payload={"order": order}, form=form)
        late = await ctx.suspend("invoice", timeout_seconds=0.05)
        return {"receipt": [answer.payload, answer.principal, late.timed_out]}

    act = waiting if blocking else awaiting
    async with opened(database_url, act) as circuit:
        workflow = await circuit.load(WORKFLOW)
        case = await circuit.start(workflow.id, {"amount": 1})
        view = await asyncio.wait_for(circuit.wait(case), 60)
        [execution] = view.executions
        assert execution.status == "suspended" and execution.awaits is not None
        assert (execution.awaits["key"], execution.awaits["payload"]) == ("delivered", {"order": "o-1"})
        refused = await circuit.signal(case, 1, {"from": "bike"}, key="delivered")
        assert refused.state.value == "refused"
    async with opened(database_url, act) as circuit:
        assert (await circuit.signal(case, 1, {"by": "bike"}, key="delivered")).state.value == "applied"
        view = await asyncio.wait_for(circuit.wait(case), 60)
    assert view.marking == {"charged": 1}
    assert view.tokens[0].data["receipt"] == [{"by": "bike"}, "local", True]
    assert deeds == ["ordered"]


async def test_a_wait_has_a_key_of_its_own(database_url: str) -> None:
    async def act(ctx: Context) -> None:
        await ctx.suspend("x", timeout_seconds=0)
        await ctx.suspend("x", timeout_seconds=0)

    view = await done(database_url, act, amount=1)
    assert view.marking == {"refused": 1} and "waited for twice" in str(view.history[-1].event)
