"""One start of an action: what its end is called, what is journalled, and what may not be stored."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from parts import Doing, MemoryLog, SystemClock, at_once, call, for_ever

from circuit.engine.action import ActionCall, ActionContext, ActionOutput
from circuit.engine.execution import Cutoff, Ended, Screened, Surroundings, execute
from circuit.engine.firings import Start
from circuit.engine.payload import MOST_DEEP, PayloadFault, storable
from circuit.errors import Cancelled, DatabaseUnreachable, RateLimited
from circuit.events import StreamDelta
from circuit.streams.broker import Broker
from circuit.streams.publisher import Publisher

Perform = Callable[[ActionCall, ActionContext], Awaitable[ActionOutput]]


class Bench:
    """Runs one action with everything around it in memory."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.broker = Broker()
        self.points: list[str] = []

    def around(self, action: Doing) -> Surroundings:
        clock = SystemClock()
        publisher = Publisher(self.log, self.broker, clock.now, lambda name: None)
        return Surroundings({"test": action}, publisher, self.log, clock.now, self.points.append)

    async def run(self, perform: Perform, *, reason: str | None = None, **changes: object) -> Ended:
        ended = await execute(Start(call(**changes), reason), self.around(Doing(perform)))
        assert len(self.broker) == 0, "the outlet was left open"
        return ended


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_an_output_and_the_number_of_the_last_frame_are_reported(bench: Bench) -> None:
    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        await context.emit(StreamDelta.thinking("looking"))
        await context.emit(StreamDelta.content("found"))
        return ActionOutput({"answer": 42}, text="found")

    ended = await bench.run(perform)
    assert ended.output == ActionOutput({"answer": 42}, text="found")
    assert (ended.error, ended.interrupted) == (None, None)
    assert [frame["eventType"] for frame in bench.log.frames] == ["thinking", "content_chunk"]
    assert ended.sequence == 2


async def test_a_later_start_opens_with_restarted_and_why(bench: Bench) -> None:
    ended = await bench.run(at_once, start=2, reason="resumed")
    assert [(frame["eventType"], frame["reason"]) for frame in bench.log.frames] == [("restarted", "resumed")]
    assert ended.sequence == 1


async def test_an_error_of_circuit_is_reported_as_it_is(bench: Bench) -> None:
    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        raise RateLimited("too many requests", retry_after=7)

    ended = await bench.run(perform)
    assert isinstance(ended.error, RateLimited)
    assert ended.error.retry_after == 7


async def test_a_foreign_exception_is_action_failed_without_what_looks_like_a_key(bench: Bench) -> None:
    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        raise ValueError("bad key sk-abcdefghijkl\0 and a lot more: " + "x" * 5000)

    ended = await bench.run(perform)
    assert ended.error is not None
    assert ended.error.code == "action_failed"
    assert "ValueError" in ended.error.message
    assert "sk-abcdefghijkl" not in ended.error.message
    assert "\0" not in ended.error.message
    assert len(ended.error.message) < 600


@pytest.mark.parametrize("poison", [SystemExit(3), RecursionError("deep"), MemoryError()])
async def test_an_action_that_tries_to_end_the_process_only_fails(bench: Bench, poison: BaseException) -> None:
    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        raise poison

    ended = await bench.run(perform)
    assert ended.error is not None and ended.error.code == "action_failed"


async def test_an_action_that_takes_too_long_times_out(bench: Bench) -> None:
    ended = await bench.run(for_ever, timeout_seconds=0.02)
    assert ended.error is not None
    assert (ended.error.code, ended.error.retryable) == ("timeout", True)


async def test_a_time_out_of_the_action_itself_is_its_failure(bench: Bench) -> None:
    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        raise TimeoutError("its own")

    ended = await bench.run(perform)
    assert ended.error is not None and ended.error.code == "action_failed"


async def test_an_action_cancelled_from_within_fails(bench: Bench) -> None:
    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        raise asyncio.CancelledError

    ended = await bench.run(perform)
    assert ended.error is not None and ended.error.code == "action_failed"


async def test_an_execution_that_the_engine_cancels_reports_nothing(bench: Bench) -> None:
    begun = asyncio.Event()

    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        begun.set()
        return await for_ever(call, context)

    task = asyncio.create_task(bench.run(perform))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(bench.broker) == 0


async def test_an_unknown_kind_of_action_says_which_kinds_there_are(bench: Bench) -> None:
    ended = await bench.run(at_once, kind="teleport")
    assert ended.error is not None
    assert "teleport" in ended.error.message and "test" in ended.error.message


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"a": "\0"}, id="NUL"),
        pytest.param({"a": "\ud800"}, id="lone surrogate"),
        pytest.param({"\ud800": 1}, id="lone surrogate in a key"),
        pytest.param({"a": math.nan}, id="nan"),
        pytest.param({"a": [1.0, math.inf]}, id="infinity"),
        pytest.param({"a": 2**64}, id="large integer"),
        pytest.param({"a": object()}, id="object"),
        pytest.param({1: 2}, id="key that is no text"),
    ],
)
async def test_an_output_that_cannot_be_stored_is_invalid(bench: Bench, value: dict[Any, Any]) -> None:
    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        return ActionOutput(value)

    ended = await bench.run(perform)
    assert ended.error is not None and ended.error.code == "invalid_output", ended


async def test_nesting_without_end_and_output_without_end_are_invalid(bench: Bench) -> None:
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]

    async def nested(call: ActionCall, context: ActionContext) -> ActionOutput:
        return ActionOutput({"deep": deep})

    async def large(call: ActionCall, context: ActionContext) -> ActionOutput:
        return ActionOutput({"large": "x" * (4 * 1024 * 1024 + 1)})

    for perform in (nested, large):
        ended = await bench.run(perform)
        assert ended.error is not None and ended.error.code == "invalid_output", ended
        assert len(ended.error.message) < 1000


def nested(depth: int, around: str = "list") -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value] if around == "list" else {"a": value}
    return value


@pytest.mark.parametrize("around", ["list", "object"])
def test_what_is_nested_deeper_than_an_event_can_carry_is_refused(around: str) -> None:
    for depth in (1, 50, MOST_DEEP):
        assert storable(nested(depth, around)) == nested(depth, around)
    for depth in (MOST_DEEP + 1, 251, 5_000):
        with pytest.raises(PayloadFault, match="deep"):
            storable(nested(depth, around))
    broad = {"rows": [{"[{": ["[", {}]} for _ in range(1_000)]}
    assert storable(broad) == broad, "many brackets are not deep ones"


async def test_an_execution_that_is_cut_off_says_and_records_nothing_more(bench: Bench) -> None:
    begun, go = asyncio.Event(), asyncio.Event()
    heard: list[BaseException] = []

    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        begun.set()
        await go.wait()
        for late in (context.emit(StreamDelta.content("late")), context.record("answer-0", "late")):
            try:
                await late
            except Cancelled as error:
                heard.append(error)
        return ActionOutput({})

    cutoff = Cutoff()
    task = asyncio.create_task(execute(Start(call(), None), bench.around(Doing(perform)), cutoff))
    await begun.wait()
    cutoff.end()
    cutoff.end()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(heard) == 2
    assert bench.log.writes == []
    assert len(bench.broker) == 0


async def test_an_output_is_what_the_database_would_give_back(bench: Bench) -> None:
    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        return ActionOutput({"list": (1, 2), "null": None, "escaped": "\\u0000"})

    ended = await bench.run(perform)
    assert ended.output is not None
    assert ended.output.outputs == {"list": [1, 2], "null": None, "escaped": "\\u0000"}


async def test_what_is_recorded_is_journalled_and_given_back(bench: Bench) -> None:
    seen: list[Any] = []

    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        seen.append(await context.record("answer-0", {"text": ("yes",)}))
        seen.append(await context.record("answer-0", {"text": "something else"}))
        return ActionOutput({})

    await bench.run(perform)
    assert seen == [{"text": ["yes"]}, {"text": ["yes"]}]
    assert bench.log.journal == {"answer-0": {"text": ["yes"]}}
    assert bench.points == ["after_answer", "after_journal"]


async def test_what_an_earlier_start_recorded_wins_and_is_not_written_again(bench: Bench) -> None:
    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        return ActionOutput({"answer": await context.record("answer-0", "new")})

    ended = await bench.run(perform, recorded={"answer-0": "old"})
    assert ended.output is not None and ended.output.outputs == {"answer": "old"}
    assert bench.log.writes == []


async def test_a_journal_that_cannot_be_written_interrupts_and_does_not_fail(bench: Bench) -> None:
    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        await context.record("answer-0", "yes")
        raise AssertionError("unreachable")

    bench.log.refuse = DatabaseUnreachable("gone")
    ended = await bench.run(perform)
    assert ended.interrupted is bench.log.refuse
    assert (ended.output, ended.error) == (None, None)


async def test_a_stream_that_cannot_be_written_interrupts_and_does_not_fail(bench: Bench) -> None:
    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        await context.emit(StreamDelta.content("lost"))
        return ActionOutput({})

    bench.log.refuse = DatabaseUnreachable("gone")
    ended = await bench.run(perform)
    assert ended.interrupted is bench.log.refuse


async def test_the_crash_point_before_an_answer_is_its_first_text(bench: Bench) -> None:
    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        await context.emit(StreamDelta.thinking("looking"))
        assert bench.points == []
        await context.emit(StreamDelta.content("a"))
        await context.emit(StreamDelta.content("b"))
        return ActionOutput({})

    await bench.run(perform)
    assert bench.points == ["before_answer"]


async def test_nothing_is_journalled_before_the_history_has_what_screening_found(bench: Bench) -> None:
    """Of a run that has its first answer nothing is found any more: an answer without the finding would lose it."""
    found: list[str] = []
    kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    both = asyncio.Event()

    async def perform(call: ActionCall, context: ActionContext) -> ActionOutput:
        context.screened("screened:input", {"refused": None}, {})
        await asyncio.gather(context.record("answer:0", "said"), context.record("step:1", "done"))
        return ActionOutput({})

    def screened(one: Screened) -> asyncio.Future[None]:
        found.append(one.step)
        return kept

    def fault(point: str) -> None:
        bench.points.append(point)
        if bench.points.count("after_answer") == 2:
            both.set()

    around = replace(bench.around(Doing(perform)), fault=fault, screened=screened)
    running = asyncio.create_task(execute(Start(call(), None), around))
    await both.wait()
    assert found == ["screened:input"] and bench.log.journal == {}
    kept.set_result(None)
    assert (await running).output == ActionOutput({})
    assert bench.log.journal == {"answer:0": "said", "step:1": "done"}
