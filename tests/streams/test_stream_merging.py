"""A compacted stream says the same as before, from every cursor that a reader may have."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any
from unittest.mock import patch

import orjson
from hypothesis import example, given
from hypothesis import strategies as st
from pretended import NAME
from virtual_time import EPOCH

from circuit.events import Frame, StreamDelta, StreamType, encode_frame
from circuit.streams import merging
from circuit.streams.cursor import BEGINNING, Cursor
from circuit.streams.merging import Entry, merge, rest

SMALL = 20
"""Characters that a merged frame holds at most here."""

words = st.text(st.sampled_from('aé"\\\0𝄞 \n'), min_size=1, max_size=8)
deltas = st.one_of(
    words.map(StreamDelta.content),
    words.map(StreamDelta.content),
    st.tuples(st.sampled_from(["weighs", "reads"]), words).map(lambda said: StreamDelta.thinking(*said)),
    st.just(StreamDelta.thinking("weighs")),
    st.just(StreamDelta(StreamType.TOOL_CALL, {"toolName": "t", "arguments": {"content": "a"}, "callId": "1"})),
    st.just(StreamDelta(StreamType.CONTENT_CHUNK, {"$erased": "sha256:0"})),
    st.just(StreamDelta(StreamType.CONTENT_CHUNK, {"content": "a", "more": 1})),
)
starts = st.lists(st.lists(deltas, min_size=1, max_size=30), min_size=1, max_size=3)


def stream(said: Sequence[Sequence[StreamDelta]]) -> list[Frame]:
    """The frames of an execution that says this, start by start, and then that it is done."""
    frames: list[Frame] = []
    for start, some in enumerate(said, 1):
        begin = [StreamDelta.restarted("again")] if start > 1 else []
        end = [StreamDelta(StreamType.COMPLETED, {"final_response": ""})] if start == len(said) else []
        frames += [encode_frame(NAME, start, n, delta, EPOCH) for n, delta in enumerate([*begin, *some, *end], 1)]
    return frames


def stored(frames: Sequence[Frame]) -> list[Entry]:
    return [Entry(one.start, one.sequence, one.sequence, one.body.decode()) for one in frames]


def compacted(entries: Sequence[Entry], page: int) -> list[Entry]:
    """What lies in the log when all of it was compacted, page by page."""
    log, done = list(entries), 0
    while True:
        some = log[done : done + page]
        if not some:
            return log
        found = merge(some)
        by_end = {(one.entry.start, one.entry.sequence): one.entry for one in found.merged}
        merged = [
            by_end.get((entry.start, entry.sequence), entry)
            for entry in some
            if (entry.start, entry.sequence) in by_end
            or not any(one.start == entry.start and one.first <= entry.first <= one.sequence for one in by_end.values())
        ]
        log[done : done + page] = merged
        if len(some) < page:
            return log
        done += len(merged) - 1


def read(entries: Sequence[Entry], after: Cursor) -> list[Frame]:
    """What a reader behind `after` gets of the log."""
    found: list[Frame] = []
    for entry in entries:
        if (entry.start, entry.sequence) > after:
            body = (entry.body or "").encode()
            kind = StreamType(orjson.loads(body)["eventType"])
            whole = Frame(entry.start, entry.sequence, kind, EPOCH, body, entry.sequence - entry.first + 1)
            found.append(rest(whole, entry.lengths, after))
    return found


def told(frames: Sequence[Frame]) -> list[Any]:
    """What a reader has understood: texts, however they were cut, and all other frames byte for byte."""

    def kind(frame: Frame) -> Any:
        said = orjson.loads(frame.body)
        text = said.keys() & {"content"} and not said.keys() & {"more"}
        return (frame.start, said["eventType"], said.get("status")) if text else (frame.start, frame.sequence)

    return [
        (key, "".join(orjson.loads(one.body)["content"] for one in some) if len(key) == 3 else next(some).body)
        for key, some in groupby(frames, kind)
    ]


@given(starts, st.integers(2, 9), st.integers(2, 9))
@example([[StreamDelta.content("ab"), StreamDelta.content("cd"), StreamDelta.content("é")]], 2, 2)
def test_every_cursor_goes_on_in_a_compacted_stream(said: list[list[StreamDelta]], page: int, other_page: int) -> None:
    frames = stream(said)
    with patch.object(merging, "LONGEST_TEXT", SMALL):
        once = compacted(stored(frames), page)
        assert compacted(once, other_page) == once
        assert once == compacted(stored(frames), other_page)
    assert all(len(orjson.loads(entry.body or "{}")["content"]) <= SMALL for entry in once if entry.lengths is not None)
    for cursor in [BEGINNING, *(Cursor(one.start, one.sequence) for one in frames)]:
        expected = [one for one in frames if (one.start, one.sequence) > cursor]
        seen = read(once, cursor)
        assert told(seen) == told(expected)
        # Nothing is missing between two frames, and nothing comes twice.
        assert sum(one.merged for one in seen) == len(expected)
        assert [one.at for one in seen] == [EPOCH] * len(seen)
        # A reader that stops anywhere and comes back later has the same in the end.
        for index, one in enumerate(seen):
            assert read(once, Cursor(one.start, one.sequence)) == seen[index + 1 :]


def test_what_does_not_belong_together_stays_apart() -> None:
    """A gap, lengths that are not those of the text, and what is no text."""
    [one, two, four] = stored([encode_frame(NAME, 1, number, StreamDelta.content("ab"), EPOCH) for number in (1, 2, 4)])
    assert [found.entry[1:3] for found in merge([one, two, four]).merged] == [(1, 2)]
    assert merge([one, four]).merged == []
    broken = Entry(1, 2, 3, two.body, [1, 2])
    assert merge([one, broken]).merged == [] and merge([one, Entry(1, 2, 2, None)]).merged == []
    # Frames that are as long as one may be are left as they are.
    long = stored([encode_frame(NAME, 1, n, StreamDelta.content("x" * 9_000), EPOCH) for n in (1, 2)])
    assert merge(long) == ([], long[1])


def test_of_an_erased_frame_all_is_given() -> None:
    frame = Frame(1, 9, StreamType.CONTENT_CHUNK, EPOCH, b'{"$erased":"sha256:0"}', 5)
    assert rest(frame, None, Cursor(1, 6)).body == frame.body
    assert [rest(frame, None, Cursor(1, seen)).merged for seen in (4, 5, 6, 8)] == [5, 4, 3, 1]
    assert rest(frame, None, Cursor(1, 4)) is frame
