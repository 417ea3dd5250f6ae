"""The publisher in virtual time: when frames go out, when they are stored, and what happens when the log fails."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_time import EPOCH, LoopClock, pass_time, run

from circuit.errors import Fenced
from circuit.events import Frame, StreamDelta, StreamType, encode_frame
from circuit.ids import CaseKey, Numbered, uuid7
from circuit.storage.records import LogWrite
from circuit.streams import publisher as publishing
from circuit.streams.broker import Broker
from circuit.streams.channel import place
from circuit.streams.cursor import BEGINNING, Cursor
from circuit.streams.log import FramePage
from circuit.streams.publisher import Outlet, Publisher
from circuit.streams.reader import Reader
from circuit.streams.relay import Relay

KEY = CaseKey(1, uuid7(1_000, 7))
FIRING = 3
NAME = str(Numbered(KEY.case, FIRING))


@dataclass
class Bench:
    """A publisher, what it wrote (with the time), and a reader's hold on the channel."""

    seconds_per_write: float = 0.0
    ring: int = 1000
    written: list[tuple[float, list[Frame]]] = field(default_factory=list)
    notified: list[str] = field(default_factory=list)
    failure: Exception | None = None

    def __post_init__(self) -> None:
        self.broker = Broker(self.ring)
        self.channel = self.broker.hold(NAME)
        self.publisher = Publisher(self.write, self.broker, LoopClock().now, self.notified.append)

    async def write(self, log: LogWrite) -> None:
        assert log.key == KEY and not log.journal
        assert all(row.firing == FIRING for row in log.frames)
        begun = asyncio.get_running_loop().time()
        if self.seconds_per_write:
            await pass_time(self.seconds_per_write)
        if self.failure is not None:
            raise self.failure
        self.written.append((begun, [row.frame for row in log.frames]))

    def open(self, start: int = 1, reason: str | None = None) -> Outlet:
        return self.publisher.open(KEY, FIRING, start, reason=reason)

    def live(self) -> list[dict[str, Any]]:
        return [orjson.loads(frame.body) for frame in self.held()]

    def held(self) -> list[Frame]:
        frames: list[Frame] = []
        while more := self.channel.after(place(frames[-1]) if frames else BEGINNING, 10_000):
            frames += more
        return frames

    def stored(self) -> list[Frame]:
        return [frame for _, frames in self.written for frame in frames]


def in_virtual_time(test: Any) -> Any:
    def wrapper() -> None:
        main: Coroutine[Any, Any, None] = test()
        run(main)

    wrapper.__name__ = test.__name__
    return wrapper


@in_virtual_time
async def test_the_first_text_goes_out_at_once_and_what_follows_soon_is_joined() -> None:
    bench = Bench()
    outlet = bench.open()
    await outlet.emit(StreamDelta.content("a"))
    assert [event["content"] for event in bench.live()] == ["a"]
    for piece in "bcd":
        await outlet.emit(StreamDelta.content(piece))
    assert len(bench.live()) == 1
    await pass_time(publishing.COALESCE_SECONDS)
    assert [event["content"] for event in bench.live()] == ["a", "bcd"]
    assert [event["sequence"] for event in bench.live()] == [1, 2]


@in_virtual_time
async def test_text_that_comes_slowly_is_never_held_back() -> None:
    bench = Bench()
    outlet = bench.open()
    for count in range(1, 6):
        await outlet.emit(StreamDelta.content("x"))
        assert len(bench.live()) == count
        await pass_time(publishing.COALESCE_SECONDS * 1.1)


@in_virtual_time
async def test_other_events_push_out_the_text_before_them() -> None:
    bench = Bench()
    outlet = bench.open()
    await outlet.emit(StreamDelta.content("a"))
    await outlet.emit(StreamDelta.content("b"))
    await outlet.emit(StreamDelta(StreamType.TOOL_CALL, {"toolName": "t", "arguments": {}, "callId": "1"}))
    await outlet.emit(StreamDelta.content("c"))
    await outlet.emit(StreamDelta.thinking("looking"))
    seen = [(event["eventType"], event.get("content")) for event in bench.live()]
    assert seen == [
        ("content_chunk", "a"),
        ("content_chunk", "b"),
        ("tool_call", None),
        ("content_chunk", "c"),
        ("thinking", None),
    ]


@in_virtual_time
async def test_thoughts_are_joined_under_one_status_only() -> None:
    bench = Bench()
    outlet = bench.open()
    for status, text in [("one", "a"), ("one", "b"), ("one", "c"), ("two", "d"), ("two", "e")]:
        await outlet.emit(StreamDelta.thinking(status, text))
    assert await outlet.close() == len(bench.live())
    merged: dict[str, str] = {}
    for event in bench.live():
        merged[event["status"]] = merged.get(event["status"], "") + event["content"]
    assert merged == {"one": "abc", "two": "de"}
    assert len(bench.live()) < 5


@in_virtual_time
async def test_a_lot_of_text_does_not_wait() -> None:
    bench = Bench()
    outlet = bench.open()
    await outlet.emit(StreamDelta.content("a"))
    await outlet.emit(StreamDelta.content("b" * publishing.LONGEST_TEXT))
    assert [len(event["content"]) for event in bench.live()] == [1, publishing.LONGEST_TEXT]


@in_virtual_time
async def test_the_log_is_written_in_batches_of_a_tenth_of_a_second() -> None:
    bench = Bench()
    outlet = bench.open()
    for _ in range(100):  # one second of a fast model
        await outlet.emit(StreamDelta.content("x"))
        await pass_time(0.01)
    last = await outlet.close()
    times = [at for at, _ in bench.written]
    assert 9 <= len(times) <= 12
    assert all(later - earlier >= publishing.STORE_SECONDS - 1e-9 for earlier, later in pairwise(times[:-1]))
    assert [frame.sequence for frame in bench.stored()] == list(range(1, last + 1))
    assert "".join(event["content"] for event in bench.live()) == "x" * 100
    assert [frame.body for frame in bench.stored()] == [frame.body for frame in bench.held()]
    assert bench.notified == [NAME] * len(times)


@in_virtual_time
async def test_all_that_speak_are_written_to_the_log_at_the_same_moments() -> None:
    benches = [Bench() for _ in range(5)]
    outlets = [bench.open() for bench in benches]
    for _ in range(60):
        for outlet in outlets:
            await outlet.emit(StreamDelta.content("x"))
            await pass_time(0.0071)
    written = [{round(at, 6) for at, _ in bench.written[1:]} for bench in benches]
    assert len(set.union(*written)) <= max(map(len, written)) + 1
    for outlet in outlets:
        await outlet.close()


@in_virtual_time
async def test_only_one_write_is_in_flight_and_frames_reach_the_log_in_order() -> None:
    bench = Bench(seconds_per_write=0.5)
    outlet = bench.open()
    for _ in range(50):
        await outlet.emit(StreamDelta.content("x"))
        await pass_time(0.04)
    last = await outlet.close()
    times = [at for at, _ in bench.written]
    assert all(later - earlier >= 0.5 for earlier, later in pairwise(times))
    assert [frame.sequence for frame in bench.stored()] == list(range(1, last + 1))


@in_virtual_time
async def test_who_fell_off_the_ring_goes_on_as_soon_as_the_log_has_what_it_lacks() -> None:
    bench = Bench(seconds_per_write=0.5, ring=3)
    relay = Relay(bench.broker, poll_seconds=60.0)

    async def look(after: Cursor, _: int) -> FramePage:
        return FramePage([frame for frame in bench.stored() if place(frame) > after], ended=False)

    outlet = bench.open()
    reader = Reader(NAME, BEGINNING, look, bench.broker, relay)
    await reader.open()
    for number in range(10):
        await outlet.emit(StreamDelta(StreamType.TOOL_RESULT, {"toolName": "t", "result": number, "callId": "1"}))
    seen: list[Frame] = []
    while len(seen) < 10:
        seen += await reader.read()
    assert asyncio.get_running_loop().time() < 2.0
    assert [frame.sequence for frame in seen] == list(range(1, 11))
    reader.close()
    outlet.abandon()


@in_virtual_time
async def test_close_stores_everything_and_an_outlet_without_a_word_writes_nothing() -> None:
    bench = Bench(seconds_per_write=0.2)
    assert await bench.open().close() == 0
    assert bench.written == []
    outlet = bench.open()
    await outlet.emit(StreamDelta.content("a"))
    await outlet.emit(StreamDelta.content("b"))
    assert await outlet.close() == 2
    assert [frame.sequence for frame in bench.stored()] == [1, 2]
    with pytest.raises(RuntimeError, match="closed"):
        await outlet.emit(StreamDelta.content("late"))


@in_virtual_time
async def test_a_later_start_opens_with_restarted() -> None:
    bench = Bench()
    outlet = bench.open(start=2, reason="the process that ran it was lost")
    await outlet.emit(StreamDelta.content("again"))
    await outlet.close()
    first, second = bench.live()
    assert (first["eventType"], first["reason"], first["cursor"]) == (
        "restarted",
        "the process that ran it was lost",
        "2-1",
    )
    assert (second["attempt"], second["sequence"]) == (2, 2)


@in_virtual_time
async def test_a_refused_write_stops_the_outlet_and_hides_what_was_not_stored() -> None:
    bench = Bench()
    outlet = bench.open()
    await outlet.emit(StreamDelta.content("a"))
    bench.failure = Fenced("declared dead")
    await pass_time(1.0)
    with pytest.raises(Fenced):
        await outlet.emit(StreamDelta.content("b"))
    with pytest.raises(Fenced):
        await outlet.close()
    outlet.abandon()
    assert bench.live() == []
    assert bench.channel.feeder is None
    assert bench.notified == []


@in_virtual_time
async def test_close_raises_when_its_own_write_is_refused() -> None:
    bench = Bench()
    outlet = bench.open()
    await outlet.emit(StreamDelta.content("a"))
    bench.failure = Fenced("declared dead")
    with pytest.raises(Fenced):
        await outlet.close()


@in_virtual_time
async def test_a_log_that_lags_slows_the_one_who_speaks() -> None:
    bench = Bench(seconds_per_write=5.0)
    outlet = bench.open()
    loop = asyncio.get_running_loop()
    for _ in range(publishing.MOST_UNSTORED * 2 + 10):
        await outlet.emit(StreamDelta(StreamType.TOOL_RESULT, {"toolName": "t", "result": 1, "callId": "1"}))
    assert loop.time() >= 5.0
    assert await outlet.close() == publishing.MOST_UNSTORED * 2 + 10
    assert len(bench.stored()) == publishing.MOST_UNSTORED * 2 + 10


@in_virtual_time
async def test_abandon_stores_nothing_more_and_may_be_said_twice() -> None:
    bench = Bench()
    outlet = bench.open()
    await outlet.emit(StreamDelta.content("a"))
    outlet.abandon()
    outlet.abandon()
    await pass_time(1.0)
    assert bench.written == []
    assert bench.live() == []


@in_virtual_time
async def test_a_new_start_in_the_same_process_is_not_disturbed_by_the_old_one() -> None:
    bench = Bench()
    old = bench.open(1)
    await old.emit(StreamDelta.content("old"))
    new = bench.open(2, "taken over")
    await old.emit(StreamDelta(StreamType.THINKING, {"status": "late"}))
    await new.emit(StreamDelta.content("new"))
    old.abandon()
    assert [event["attempt"] for event in bench.live()] == [1, 2, 2]
    assert bench.channel.feeder is new


@in_virtual_time
async def test_announce_hands_the_terminal_frame_to_live_readers_and_leaves_nothing_behind() -> None:
    bench = Bench()
    outlet = bench.open()
    await outlet.emit(StreamDelta.content("a"))
    last = await outlet.close()
    frame = encode_frame(NAME, 1, last + 1, StreamDelta(StreamType.COMPLETED, {"final_response": "a"}), EPOCH)
    bench.publisher.announce(KEY, FIRING, frame)
    assert bench.live()[-1]["eventType"] == "completed"
    bench.broker.release(bench.channel)
    assert len(bench.broker) == 0
    bench.publisher.announce(KEY, FIRING, frame)
    assert len(bench.broker) == 0


@in_virtual_time
async def test_a_pair_of_surrogates_that_was_cut_is_joined_and_a_lone_one_replaced() -> None:
    bench = Bench()
    outlet = bench.open()
    await outlet.emit(StreamDelta.content("smile \ud83d"))
    await outlet.emit(StreamDelta.content("\ude00!"))
    await outlet.emit(StreamDelta.content(" lone \ud83d"))
    await outlet.emit(
        StreamDelta(StreamType.TOOL_RESULT, {"toolName": "\udc00t", "callId": "1", "result": {"\ud800": ["\0", 2**80]}})
    )
    await outlet.close()
    text = "".join(event.get("content", "") for event in bench.live())
    assert text == "smile 😀! lone �"
    assert bench.live()[-1]["toolName"] == "�t"
    assert bench.live()[-1]["result"] == {"�": ["\0", str(2**80)]}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["text", "thought", "tool"]),
            st.text(st.characters(codec=None, exclude_categories=()), max_size=6),
            st.sampled_from([0.0, 0.005, 0.029, 0.05, 0.12]),
        ),
        max_size=30,
    ),
    st.sampled_from([0.0, 0.03, 0.4]),
)
def test_nothing_is_lost_reordered_or_stored_otherwise_than_sent(
    says: list[tuple[str, str, float]], seconds_per_write: float
) -> None:
    async def main() -> None:
        bench = Bench(seconds_per_write)
        outlet = bench.open()
        for kind, text, pause in says:
            if kind == "text":
                await outlet.emit(StreamDelta.content(text))
            elif kind == "thought":
                await outlet.emit(StreamDelta.thinking("thinking", text))
            else:
                await outlet.emit(StreamDelta(StreamType.TOOL_CALL, {"toolName": text, "arguments": {}, "callId": "1"}))
            await pass_time(pause)
        last = await outlet.close()
        live = bench.held()
        assert [frame.body for frame in bench.stored()] == [frame.body for frame in live]
        assert [frame.sequence for frame in live] == list(range(1, last + 1))
        assert _told([(event["eventType"], event) for event in bench.live()]) == _expected(says)

    run(main())


def _told(events: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, str]]:
    told: list[tuple[str, str]] = []
    for kind, event in events:
        text = event["toolName"] if kind == "tool_call" else event.get("content", "")
        if kind != "tool_call" and told and told[-1][0] == kind:
            told[-1] = (kind, told[-1][1] + text)
        else:
            told.append((kind, text))
    return told


def _expected(says: list[tuple[str, str, float]]) -> list[tuple[str, str]]:
    names = {"text": "content_chunk", "thought": "thinking", "tool": "tool_call"}
    joined: list[tuple[str, str]] = []
    for kind, text, _ in says:
        name = names[kind]
        if not text and kind == "text":
            continue
        if kind != "tool" and joined and joined[-1][0] == name:
            joined[-1] = (name, joined[-1][1] + text)
        else:
            joined.append((name, text))
    return [(name, text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")) for name, text in joined]


def test_a_frame_that_is_kept_takes_no_more_memory_than_it_is_long() -> None:
    said, at = StreamDelta.content("x" * 16_000), datetime(2026, 11, 1, tzinfo=UTC)
    tracemalloc.start()
    try:
        frame = encode_frame(NAME, 1, 1, said, at)
        assert tracemalloc.get_traced_memory()[0] < 1.5 * len(frame.body)
    finally:
        tracemalloc.stop()
