"""What an execution says, redacted: whatever the pieces, nothing is shown that later turns out to be a secret."""

from __future__ import annotations

import asyncio
from threading import get_ident
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from test_stream_publisher import FIRING, KEY, Bench, in_virtual_time
from virtual_time import pass_time

from circuit.events import StreamDelta, StreamType
from circuit.security.redactor import LENGTHY, redaction
from circuit.security.rules import Rule
from circuit.streams import publisher as publishing
from circuit.streams.publisher import Outlet
from circuit.streams.veil import Veil

EVENTS = redaction(
    [Rule("email", "email"), Rule("payment_card", "payment_card"), Rule("status", None, "status|content|c1")]
)
CALL = {"toolName": "status", "callId": "c1", "arguments": {"to": "ada@example.com", "card": 4111111111111111}}


def opened(bench: Bench, start: int = 1, reason: str | None = None) -> Outlet:
    return bench.publisher.open(KEY, FIRING, start, reason=reason, redaction=EVENTS)


def said(events: list[dict[str, Any]], kind: StreamType = StreamType.CONTENT_CHUNK) -> str:
    return "".join(event["content"] for event in events if event["eventType"] == kind)


@in_virtual_time
async def test_a_secret_that_comes_in_pieces_is_never_shown_and_the_rest_at_once() -> None:
    bench = Bench()
    outlet = opened(bench)
    for piece in ("Write to ", "ada", "@exa", "mple.com"):
        await outlet.emit(StreamDelta.content(piece))
        await pass_time(publishing.COALESCE_SECONDS * 1.1)
        assert said(bench.live()) == "Write to "
    await outlet.emit(StreamDelta.content(", or"))
    assert said(bench.live()) == "Write to [email], "
    await outlet.close()
    assert said(bench.live()) == "Write to [email], or"
    assert [frame.body for frame in bench.stored()] == [frame.body for frame in bench.held()]


@in_virtual_time
async def test_a_start_that_is_cut_off_neither_shows_nor_loses_what_it_held_back() -> None:
    bench = Bench()
    outlet = opened(bench)
    await outlet.emit(StreamDelta.content("Write to ada@exa"))
    await pass_time(1)
    outlet.abandon()
    assert said([orjson.loads(frame.body) for frame in bench.stored()]) == "Write to "
    outlet = opened(bench, start=2, reason="resumed")
    # The journal has the whole answer, which is said again.
    await outlet.emit(StreamDelta.content("Write to ada@example.com"))
    await outlet.close()
    second = [orjson.loads(frame.body) for frame in bench.stored() if frame.start == 2]
    assert second[0]["eventType"] == "restarted"
    assert said(second) == "Write to [email]"


@in_virtual_time
async def test_other_events_are_redacted_under_their_own_names() -> None:
    bench = Bench()
    outlet = opened(bench)
    await outlet.emit(StreamDelta.content("For ada"))
    await outlet.emit(StreamDelta(StreamType.TOOL_CALL, CALL))
    result = {
        "toolName": "status",
        "callId": "c1",
        "result": ["bob@example.com", {"bob@example.com": "4111 1111 1111 1111"}],
    }
    await outlet.emit(StreamDelta(StreamType.TOOL_RESULT, result))
    await outlet.emit(StreamDelta.restarted("the server said: no ada@example.com"))
    await outlet.emit(StreamDelta.thinking("asking bob@example.com"))
    await outlet.close()
    *texts, call, result, restarted, thought = bench.live()
    assert said(texts) == "For ada"
    assert (call["toolName"], call["callId"]) == ("status", "c1")
    assert call["arguments"] == {"to": "[email]", "card": "[payment_card]"}
    assert result["result"] == ["[email]", {"[email]": "[payment_card]"}]
    assert restarted["reason"] == "the server said: no [email]"
    assert thought["status"] == "asking [email]"


@in_virtual_time
async def test_an_answer_goes_on_behind_a_thought() -> None:
    bench = Bench()
    outlet = opened(bench)
    await outlet.emit(StreamDelta.thinking("reasoning", "of ada@exam"))
    await outlet.emit(StreamDelta.thinking("waiting"))
    await outlet.emit(StreamDelta.thinking("reasoning", "ple.com."))
    await outlet.emit(StreamDelta.content("to ada@exam"))
    await outlet.emit(StreamDelta.thinking("waiting"))
    await outlet.emit(StreamDelta.content("ple.com"))
    await outlet.close()
    thoughts = [event for event in bench.live() if event["eventType"] == "thinking"]
    assert "".join(event.get("content", "") for event in thoughts) == "of [email]."
    assert said(bench.live()) == "to [email]"


async def test_what_is_long_is_redacted_apart_and_in_its_place() -> None:
    bench, where = Bench(), set[int]()
    counting = redaction([Rule("email", "email")], counted=lambda _: where.add(get_ident()))
    outlet = bench.publisher.open(KEY, FIRING, 1, reason=None, redaction=counting)
    long = "of bob@example.com " * (LENGTHY // 19 + 1)
    results = [StreamDelta(StreamType.TOOL_RESULT, {**CALL, "result": one}) for one in (long, "to ada@example.com")]
    first = asyncio.ensure_future(outlet.emit(results[0]))
    second = asyncio.ensure_future(outlet.emit(results[1]))
    await asyncio.gather(first, second)
    await outlet.close()
    assert [event["result"] for event in bench.live()] == [long.replace("bob@example.com", "[email]"), "to [email]"]
    assert len(where - {get_ident()}) == 1


_TEXTS = st.lists(
    st.tuples(
        st.sampled_from(["", "answer", "reasoning", "note", "call"]),
        st.sampled_from(
            ["ada", "@", "example.com", " ", "4111 1111", " 1111 1111", "1", ". ", "é", "\ud83d", "\ude00"]
        ),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(_TEXTS)
def test_whatever_comes_between_each_text_reads_as_its_whole(pieces: list[tuple[str, str]]) -> None:
    """A text ends with a call, a thought also where the answer goes on."""
    veil, told = Veil(EVENTS), list[StreamDelta]()
    wholes: dict[str, list[str]] = {"answer": [""], "reasoning": [""]}
    for kind, text in pieces:
        if kind == "note":
            told += veil.told(StreamDelta.thinking("note"))
        elif kind == "call":
            told += veil.told(StreamDelta(StreamType.TOOL_CALL, CALL))
            wholes["answer"].append("")
            wholes["reasoning"].append("")
        elif kind == "reasoning":
            told += veil.told(StreamDelta.thinking("reasoning", text))
            wholes["reasoning"][-1] += text
        else:
            told += veil.told(StreamDelta.content(text))
            wholes["answer"][-1] += text
            wholes["reasoning"].append("")
    told += veil.end()
    answers = "".join(delta.fields["content"] for delta in told if delta.type is StreamType.CONTENT_CHUNK)
    thoughts = "".join(delta.fields.get("content", "") for delta in told if delta.type is StreamType.THINKING)
    assert answers == "".join(EVENTS.text(text) for text in wholes["answer"])
    assert thoughts == "".join(EVENTS.text(text) for text in wholes["reasoning"])
