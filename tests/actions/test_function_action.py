"""One call of a function: its inputs, its context, its output, and whatever it may do that it should not."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import pytest
from calling import CASE, Remembering, call
from eventually import eventually
from pydantic import BaseModel, Field

from circuit import BlockingContext, Context
from circuit.actions.function import FunctionAction
from circuit.actions.functions import described
from circuit.engine.action import ActionOutput
from circuit.errors import ActionFailed, Cancelled, ExecutionTimeout, InvalidInput, InvalidOutput
from circuit.ids import idempotency_key
from tests.streams.virtual_time import pass_time, run


async def perform(
    function: Callable[..., Any],
    inputs: dict[str, Any] | None = None,
    *,
    context: Remembering | None = None,
    threads: int = 4,
    config: dict[str, Any] | None = None,
    **changes: Any,
) -> ActionOutput:
    known = described(function, "tried")
    made = call("function", {"name": "tried", **(config or {})}, inputs, **changes)
    return await FunctionAction({"tried": known}, threads).perform(made, context or Remembering())


# Inputs


class Address(BaseModel):
    street: str
    number: int = Field(ge=1)


@dataclass
class Parcel:
    weight: float
    to: Address


async def test_inputs_are_checked_and_made_into_what_the_annotations_say() -> None:
    def ship(parcel: Parcel, when: datetime, copies: int = 1, *, notes: list[str] | None = None) -> str:
        assert isinstance(parcel.to, Address) and when.tzinfo is not None
        return f"{parcel.to.street} {parcel.to.number}, {parcel.weight} kg, {when:%Y}, {copies}, {notes}"

    inputs = {
        "parcel": {"weight": 2, "to": {"street": "Long Row", "number": 7}},
        "when": "2026-02-03T00:00:00Z",
        "unasked": "is left out",
    }
    assert (await perform(ship, inputs)).output == "Long Row 7, 2.0 kg, 2026, 1, None"


async def test_wrong_inputs_are_all_named_and_their_values_are_not() -> None:
    async def ship(parcel: Parcel, when: datetime, copies: int) -> None: ...

    with pytest.raises(InvalidInput) as caught:
        await perform(ship, {"parcel": {"weight": 2, "to": {"street": "x", "number": 0}}, "copies": "hunter2"})
    message = caught.value.message
    assert message.startswith("tried was called with wrong inputs: ")
    assert "parcel.to.number: input should be greater than or equal to 1" in message
    assert "when is missing" in message
    assert "copies: input should be a valid integer" in message
    assert "hunter2" not in message
    assert not caught.value.retryable


async def test_a_function_of_one_record_gets_all_inputs_as_one() -> None:
    def where(address: Address) -> str:
        return f"{address.number} {address.street}"

    assert (await perform(where, {"street": "Row", "number": 3})).output == "3 Row"
    with pytest.raises(InvalidInput, match="number: field required"):
        await perform(where, {"street": "Row"})


async def test_a_function_may_take_whatever_there_is() -> None:
    def names(first: int, /, **rest: Any) -> list[str]:
        return [str(first), *sorted(rest)]

    assert (await perform(names, {"first": 1, "b": 2, "a": 3})).output == ["1", "a", "b"]


# Output


async def test_an_object_gives_its_keys_as_outputs_and_a_scalar_only_output() -> None:
    done = await perform(lambda: {"receipt": "r-1", "output": "hidden"})
    assert done.outputs["receipt"] == "r-1"
    assert done.outputs["output"] == {"receipt": "r-1", "output": "hidden"}
    assert done.outputs["execution_id"] == f"{CASE}.1" and done.outputs["timestamp"].startswith("2026-01-02T03:04:05")
    done = await perform(lambda: 42)
    assert done.outputs["output"] == 42 and set(done.outputs) == {"output", "execution_id", "timestamp"}
    assert (await perform(lambda: "said")).text == "said"


async def test_models_dataclasses_dates_and_sets_become_json() -> None:
    def made() -> dict[str, Any]:
        address = Address(street="Row", number=1)
        return {
            "parcel": Parcel(1.5, address),
            "on": date(2026, 1, 2),
            "at": datetime(2026, 1, 2, tzinfo=UTC),
            "in": {3},
        }

    assert (await perform(made)).output == {
        "parcel": {"weight": 1.5, "to": {"street": "Row", "number": 1}},
        "on": "2026-01-02",
        "at": "2026-01-02T00:00:00Z",
        "in": [3],
    }


@pytest.mark.parametrize(
    "made", [lambda: object(), lambda: {"lock": threading.Lock()}, lambda: (number for number in range(3))]
)
async def test_what_cannot_be_json_is_said(made: Callable[[], Any]) -> None:
    with pytest.raises(InvalidOutput, match="tried returned"):
        await perform(made)


async def test_an_output_that_contains_itself_is_said() -> None:
    loop: dict[str, Any] = {}
    loop["again"] = loop
    with pytest.raises(InvalidOutput, match="cannot be JSON"):
        await perform(lambda: loop)


# Steps


async def test_a_step_is_done_once_over_starts_and_attempts() -> None:
    done: list[str] = []

    async def act(ctx: Context) -> Any:
        first = await ctx.step("first", lambda: done.append("first") or {"id": 1})

        async def second() -> str:
            done.append("second")
            return "b"

        return [first, await ctx.step("second", second)]

    context = Remembering()
    assert (await perform(act, context=context)).output == [{"id": 1}, "b"]
    assert context.journal == {"step:first": {"id": 1}, "step:second": "b"}
    again = await perform(act, context=Remembering(), start=2, recorded={"step:first": {"id": 7}})
    assert again.output == [{"id": 7}, "b"]
    assert done == ["first", "second", "second"]


async def test_a_blocking_function_has_the_same_steps() -> None:
    def act(ctx: BlockingContext) -> Any:
        ctx.heartbeat("half way")
        ctx.emit("said")
        return [ctx.step("a", lambda: threading.current_thread().name), ctx.step("kept", lambda: 1)]

    context = Remembering()
    done = await perform(act, context=context, recorded={"step:kept": 2})
    assert done.output == ["circuit-action-tried", 2]
    assert [delta.fields for delta in context.said] == [{"status": "half way"}, {"content": "said"}]


async def test_two_steps_of_one_name_are_a_mistake() -> None:
    async def act(ctx: Context) -> None:
        for number in range(2):
            await ctx.step("same", lambda number=number: number)

    with pytest.raises(ActionFailed, match="'same' was asked for twice in one run"):
        await perform(act)


async def test_the_context_is_injected_by_name_too() -> None:
    async def act(ctx) -> str:  # type: ignore[no-untyped-def]
        return ctx.idempotency_key

    first, second = await perform(act, {"a": 1}), await perform(act, {"a": 1.0}, attempt=2, start=5)
    assert first.output == second.output == idempotency_key(f"{CASE}.1", "tried", {"a": 1})
    assert (await perform(act, {"a": 2})).output != first.output
    assert (await perform(act, {"a": 1}, execution_id=f"{CASE}.2")).output != first.output


# What a function should not do


@pytest.mark.parametrize("error", [KeyboardInterrupt("now"), SystemExit(3), GeneratorExit()])
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_nothing_that_a_function_raises_ends_the_process(error: BaseException, asynchronous: bool) -> None:
    def blocking() -> None:
        raise error

    async def concurrent() -> None:
        raise error

    with pytest.raises(ActionFailed, match=f"tried raised {type(error).__name__}"):
        await perform(concurrent if asynchronous else blocking)


async def test_a_thread_that_raises_stop_iteration_ends_too() -> None:
    def act() -> None:
        raise StopIteration

    with pytest.raises((StopIteration, RuntimeError)):
        await perform(act)


async def test_a_function_that_never_returns_keeps_its_thread_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release, began, heard = threading.Event(), asyncio.Event(), []
    loop = asyncio.get_running_loop()

    def hangs(ctx: BlockingContext) -> None:
        loop.call_soon_threadsafe(began.set)
        release.wait(30)
        try:
            ctx.step("late", lambda: heard.append("done"))
        except Cancelled as error:
            heard.append(error.message)
            raise

    known = {"hangs": described(hangs), "quick": described(lambda: 1, "quick")}
    action, context = FunctionAction(known, 1), Remembering()
    task = asyncio.create_task(action.perform(call("function", {"name": "hangs"}), context))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "hangs did not return when it was cancelled" in caplog.text and "(1 of 1 are held so)" in caplog.text
    with pytest.raises(ActionFailed, match=r"quick has no thread: all 1 are held by functions .*\(hangs\)"):
        await action.perform(call("function", {"name": "quick"}), Remembering())
    with caplog.at_level(logging.WARNING):
        release.set()
        await eventually(lambda: "which was left behind, has returned" in caplog.text)
        assert (await action.perform(call("function", {"name": "quick"}), Remembering())).output == 1
    assert len(heard) == 1 and "has ended" in heard[0]
    assert context.journal == {}


def test_silence_is_a_time_out_and_a_heartbeat_ends_it() -> None:
    async def silent(ctx: Context) -> None:
        await asyncio.Event().wait()

    async def alive(ctx: Context) -> str:
        for _ in range(20):
            await pass_time(0.9)
            await ctx.heartbeat()
        return "done"

    async def both() -> None:
        with pytest.raises(ExecutionTimeout, match=r"tried was silent for more than 1 s"):
            await perform(silent, config={"heartbeat_seconds": 1.0})
        assert (await perform(alive, config={"heartbeat_seconds": 1.0})).output == "done"

    run(both())


async def test_a_function_that_the_worker_does_not_have() -> None:
    with pytest.raises(ActionFailed, match=r"no function 'other'; it knows none\. Start it with --actions MODULE"):
        await FunctionAction({}, 1).perform(call("function", {"name": "other"}), Remembering())
