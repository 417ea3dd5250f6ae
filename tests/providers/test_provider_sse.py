"""Splitting bytes into events: every line end, every cut, nothing else."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit.providers import sse
from circuit.providers.sse import EventOversize, EventSplitter, ServerEvent


def split(pieces: list[bytes], *, flush: bool = False) -> list[ServerEvent]:
    splitter = EventSplitter()
    events = [event for piece in pieces for event in splitter.feed(piece)]
    if flush and (event := splitter.flush()) is not None:
        events.append(event)
    return events


def test_fields_comments_and_names() -> None:
    body = b": hello\nevent: error\nid: 4\nretry: 10\ndata: one\ndata:two\ndata\n\n\nunknown: x\n\ndata:  three\n\n"
    assert split([body]) == [ServerEvent("error", b"one\ntwo\n"), ServerEvent("", b" three")]


def test_an_event_is_given_as_soon_as_its_empty_line_is_there() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: x\r") == []
    assert splitter.feed(b"\n\r") == [ServerEvent("", b"x")]
    assert splitter.feed(b"\ndata: y\n\n") == [ServerEvent("", b"y")]


def test_only_cr_and_lf_end_lines() -> None:
    text = "a\u2028b\u2029c\u0085d\x0b\x0ce\x1cf"
    assert split([f"data: {text}\n\n".encode()]) == [ServerEvent("", text.encode())]


def test_a_byte_order_mark_is_skipped_even_when_it_is_cut() -> None:
    for at in range(4):
        body = b"\xef\xbb\xbfdata: x\n\n"
        assert split([body[:at], body[at:]]) == [ServerEvent("", b"x")]


def test_flush_gives_what_the_end_cut_off() -> None:
    assert split([b"data: [DONE]"], flush=True) == [ServerEvent("", b"[DONE]")]
    assert split([b"data: [DONE]\n"], flush=True) == [ServerEvent("", b"[DONE]")]
    assert split([b"data: x\n\n: bye"], flush=True) == [ServerEvent("", b"x")]


@pytest.mark.parametrize("line", [b"data: " + b"x" * 64, b"data: " + b"x" * 8 + b"\n"])
def test_an_endless_event_is_refused(monkeypatch: pytest.MonkeyPatch, line: bytes) -> None:
    monkeypatch.setattr(sse, "LINE_LIMIT", 100)
    splitter = EventSplitter()
    with pytest.raises(EventOversize):
        for _ in range(20):
            splitter.feed(line)


LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)


@given(
    datas=st.lists(st.lists(LINE, min_size=1, max_size=3), max_size=5),
    ends=st.lists(st.sampled_from(["\n", "\r", "\r\n"]), min_size=40, max_size=40),
    cuts=st.lists(st.integers(0, 400), max_size=30),
)
def test_any_line_ends_and_any_cuts_give_the_same_events(
    datas: list[list[str]], ends: list[str], cuts: list[int]
) -> None:
    lines = [line for data in datas for line in [*(f"data: {part}" for part in data), ": note", ""]]
    body = b""
    for line, end in zip(lines, ends * 2, strict=False):
        # An LF after a CR would be one line end, not two.
        safe = "\n" if not line and body.endswith(b"\r") and end == "\n" else end
        if not line and body.endswith(b"\r") and safe == "\n":
            safe = "\r"
        body += line.encode() + safe.encode()
    bounds = sorted({0, len(body), *(at for at in cuts if at < len(body))})
    pieces = [body[a:b] for a, b in pairwise(bounds)]
    assert split(pieces) == [ServerEvent("", "\n".join(data).encode()) for data in datas]
