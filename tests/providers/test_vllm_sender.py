"""When what a model says leaves its process: first pieces and ends at once, the rest together, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from itertools import pairwise
from typing import Any, cast

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuit.providers.vllm.child import PAUSE_SECONDS, PIECES_A_SECOND, Sender, answer
from circuit.providers.vllm.port import joined
from tests.streams.virtual_time import pass_time, run


class Line:
    """What was sent, with the time; a reader that is slow holds `drain` up."""

    def __init__(self) -> None:
        self.sent: list[tuple[float, list[list[Any]]]] = []
        self.flows = asyncio.Event()
        self.flows.set()

    def write(self, data: bytes) -> None:
        assert int.from_bytes(data[:4], "big") == len(data) - 4
        self.sent.append((asyncio.get_running_loop().time(), orjson.loads(data[4:])))

    async def drain(self) -> None:
        await self.flows.wait()

    @property
    def messages(self) -> list[list[Any]]:
        return [message for _, batch in self.sent for message in batch]

    def of(self, number: int) -> str:
        return "".join(content for kind, of, content in self.messages if of == number and kind == "text")


def sending(body: Any) -> None:
    async def main() -> None:
        line = Line()
        sender = Sender(cast("asyncio.StreamWriter", line))
        task = asyncio.ensure_future(sender.run())
        await cast("Coroutine[Any, Any, None]", body(sender, line))
        task.cancel()

    run(main())


def test_the_first_piece_and_the_end_go_at_once_and_what_is_between_goes_together() -> None:
    async def body(sender: Sender, line: Line) -> None:
        for number in (1, 2):
            sender.send("text", number, f"first of {number}")
        await pass_time(0.001)
        assert line.sent == [(0.0, [["text", 1, "first of 1"], ["text", 2, "first of 2"]])]
        # Nothing was held back of late: nothing is.
        sender.send("text", 1, "-")
        await pass_time(0.001)
        assert line.sent.pop(1)[1] == [["text", 1, "-"]]
        for piece in "abc":
            for number in (1, 2):
                sender.send("text", number, piece)
            await pass_time(0.001)
        sender.send("text", 2, "d")
        sender.send("end", 2, {"reason": "stop"})
        await pass_time(0.001)
        assert line.sent[1][1] == [["text", 2, "abcd"], ["end", 2, {"reason": "stop"}]]
        await pass_time(PAUSE_SECONDS)
        assert line.messages[-1] == ["text", 1, "abc"] and len(line.sent) == 3
        # An answer that comes in one piece, and what is no answer of pieces, wait for nothing.
        sender.send("end", 7, {"vectors": []})
        sender.send("text", 8, "all")
        sender.send("fault", 8, {"code": 500})
        await pass_time(0.001)
        assert line.sent[3][1] == [["end", 7, {"vectors": []}], ["text", 8, "all"], ["fault", 8, {"code": 500}]]

    sending(body)


def test_the_more_are_answered_the_larger_are_the_pieces() -> None:
    many, steps = 400, 200

    async def body(sender: Sender, line: Line) -> None:
        for _ in range(steps):
            for number in range(many):
                sender.send("text", number, "x")
            await pass_time(0.01)
        took = asyncio.get_running_loop().time()
        between = [second - first for (first, _), (second, _) in pairwise(line.sent[1:])]
        assert min(between) >= many / PIECES_A_SECOND - 0.011
        assert len(line.messages) <= many + (took + 0.1) * PIECES_A_SECOND
        for number in range(many):
            sender.send("end", number, {})
        await pass_time(0.001)
        assert all(line.of(number) == "x" * steps for number in range(many))

    sending(body)


class Endless:
    """An engine whose answers begin, and never end."""

    async def answer(self, *_: Any) -> AsyncGenerator[tuple[str, Any]]:
        yield "text", "first"
        await asyncio.Event().wait()


def test_answers_that_were_given_up_slow_nobody_down() -> None:
    async def body(sender: Sender, line: Line) -> None:
        engine: Any = Endless()
        orders = [asyncio.ensure_future(answer(engine, sender, number, {"ask": "chat"})) for number in range(1_000)]
        await pass_time(0.001)
        for order in orders:
            order.cancel()
        await asyncio.gather(*orders, return_exceptions=True)
        for piece in "abc":
            sender.send("text", 5_000, piece)
            await pass_time(0.001)
        await pass_time(PAUSE_SECONDS)
        assert line.of(5_000) == "abc"

    sending(body)


def test_who_reads_slowly_gets_longer_pieces_and_not_more_of_them() -> None:
    async def body(sender: Sender, line: Line) -> None:
        sender.send("text", 1, "0")
        await pass_time(0.001)
        line.flows.clear()
        for _ in range(100):
            sender.send("text", 1, "x")
            await pass_time(PAUSE_SECONDS)
        assert len(line.sent) <= 2
        line.flows.set()
        await pass_time(0.001)
        assert line.of(1) == "0" + "x" * 100 and len(line.sent) <= 3

    sending(body)


PIECES = st.one_of(
    st.tuples(st.just("text"), st.text(max_size=3)),
    st.tuples(st.just("delta"), st.dictionaries(st.sampled_from(["content", "reasoning"]), st.text(max_size=3))),
    st.tuples(st.just("delta"), st.just({"tool_calls": [{"index": 0}]})),
)


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(1, 3), PIECES, st.sampled_from([0.0, 0.01, 0.1])), max_size=25))
def test_nothing_is_lost_and_nothing_changes_its_place(said: list[tuple[int, tuple[str, Any], float]]) -> None:
    async def body(sender: Sender, line: Line) -> None:
        for number, (kind, content), pause in said:
            sender.send(kind, number, content)
            await pass_time(pause)
        for number in (1, 2, 3):
            sender.send("end", number, {})
        await pass_time(1.0)
        for number in (1, 2, 3):
            whole = flat([(kind, content) for of, (kind, content), _ in said if of == number])
            assert flat([(kind, content) for kind, of, content in line.messages if of == number]) == [*whole, "end"]

    sending(body)


def flat(messages: list[tuple[str, Any]]) -> list[Any]:
    """What messages say, however it was cut."""
    told: list[Any] = []
    for kind, content in messages:
        if kind == "end":
            told.append("end")
        elif isinstance(content, str):
            told += [("text", letter) for letter in content]
        elif content.keys() in ({"content"}, {"reasoning"}):
            [(name, text)] = content.items()
            told += [(name, letter) for letter in text]
        else:
            told.append(content)
    return told


@pytest.mark.parametrize(
    ("last", "new", "both"),
    [
        (("text", "a"), ("text", "b"), ("text", "ab")),
        (("delta", {"reasoning": "a"}), ("delta", {"reasoning": "b"}), ("delta", {"reasoning": "ab"})),
        (("delta", {"reasoning": "a"}), ("delta", {"content": "b"}), None),
        (("delta", {"content": "a", "role": "x"}), ("delta", {"content": "b"}), None),
        (("delta", {"tool_calls": []}), ("delta", {"tool_calls": []}), None),
        (("text", "a"), ("end", {}), None),
        (("end", {}), ("end", {}), None),
    ],
)
def test_only_one_text_is_joined(last: Any, new: Any, both: Any) -> None:
    assert joined(last, new) == both
