"""The parser of chat completions, on bytes alone, with the official SDK as the oracle."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from provider_shapes import stream_bytes
from replay import finished_of, heard_by_circuit, heard_by_sdk, parse, parser, reasoning_of, text_of

from circuit.errors import BadResponse, ProviderUnavailable, StreamCut
from circuit.providers.messages import text_of as text_in
from circuit.providers.provider import Finished, ModelChunk, ReasoningChunk, TextChunk

TRICKY = 'Zeile\u2028eins\u0085 zwei\r\n\t"quoted" \\ ☃ 😀 {json} data: [DONE]\n\n'


def event(delta: dict[str, Any] | None = None, finish: str | None = None, **extra: Any) -> bytes:
    choice: dict[str, Any] = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice], **extra}, ensure_ascii=False).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def bare(end: ModelChunk) -> Finished:
    """The end without what it repeats: the parts, and the account in the provider's own words."""
    assert isinstance(end, Finished)
    return replace(end, parts=(), raw_usage={})


async def test_every_boundary_gives_what_the_sdk_hears() -> None:
    body = stream_bytes({"text": "Grüße,\u2028 😀!", "reasoning": "Hm\u0085 …", "pieces": 3, "newline": "\r\n"})
    whole = heard_by_circuit([body])
    assert whole.text == "Grüße,\u2028 😀!"
    assert whole.reasoning == "Hm\u0085 …"
    assert (whole.reason, whole.usage) == ("stop", (11, 7))
    for at in range(1, len(body)):
        assert heard_by_circuit([body[:at], body[at:]]) == whole
    for at in range(1, len(body), 7):
        assert await heard_by_sdk([body[:at], body[at:]]) == whole


@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    pieces=st.integers(1, 9),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    cuts=st.sets(st.integers(1, 3000), max_size=40),
)
def test_any_text_cut_anywhere(text: str, pieces: int, newline: str, cuts: set[int]) -> None:
    body = stream_bytes({"text": text, "pieces": pieces, "newline": newline})
    bounds = sorted({0, len(body), *(at for at in cuts if at < len(body))})
    chunks = parse(body[a:b] for a, b in pairwise(bounds))
    assert text_of(chunks) == text
    assert bare(chunks[-1]) == Finished("stop", "loopback-1", {"input_tokens": 11, "output_tokens": 7})
    assert text_in(finished_of(chunks).parts) == text


def test_text_one_byte_at_a_time() -> None:
    body = stream_bytes({"text": TRICKY, "cuts": None})
    assert text_of(parse(bytes([byte]) for byte in body)) == TRICKY


def test_chunks_come_as_soon_as_their_event_is_whole() -> None:
    reader = parser()
    assert reader.feed(event({"content": "a"})[:-1]) == []
    assert reader.feed(b"\n") == [TextChunk("a")]


def test_content_may_be_a_list_of_parts() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "why"}]},
        {"type": "text", "text": "be"},
        {"type": "image_url", "image_url": {}},
        {"type": "text", "text": "cause"},
    ]
    chunks = parse([event({"content": parts}), event({}, "stop"), DONE])
    assert (reasoning_of(chunks), text_of(chunks)) == ("why", "because")


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_has_two_names(name: str) -> None:
    chunks = parse([event({name: "think", "content": None}), event({"content": "say"}, "stop"), DONE])
    assert chunks[:2] == [ReasoningChunk("think"), TextChunk("say")]


def test_a_refusal_is_text_with_its_own_reason() -> None:
    chunks = parse([event({"content": None, "refusal": "I will not."}), event({"refusal": ""}, "stop"), DONE])
    assert [chunks[0], bare(chunks[1])] == [TextChunk("I will not."), Finished("refusal", "asked-for")]


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("function_call", "tool_calls"),
        ("eos_token", "stop"),
        ("model_length", "length"),
        ("sensitive", "content_filter"),
        ("new_word", "new_word"),
    ],
)
def test_finish_reasons(sent: str, reason: str) -> None:
    assert finished_of(parse([event({"content": "x"}), event({}, sent), DONE])).reason == reason


def test_done_without_a_finish_reason_is_an_end() -> None:
    chunk = b'data: {"choices":[{"delta":{"content":"4"},"index":0}],"model":""}\n\n'
    first, last = parse([chunk, DONE])
    assert [first, bare(last)] == [TextChunk("4"), Finished("stop", "asked-for")]


def test_a_finish_reason_without_done_is_an_end() -> None:
    assert finished_of(parse([event({"content": "x"}, "length")])).reason == "length"


@pytest.mark.parametrize("tail", [b"data: [DONE]", b"data: [DONE]\n"])
def test_the_last_line_may_lack_its_end(tail: bytes) -> None:
    assert text_of(parse([event({"content": "x"}), tail])) == "x"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b": waiting\n\n",
        event({"content": "half"}),
        event({"content": "half"}) + b'data: {"choices":[{"del',
        event({"content": "half"}) + b"data: [DO",
        b'data: {"cho',
        b"da",
    ],
)
def test_a_stream_without_an_end_is_cut(body: bytes) -> None:
    with pytest.raises(StreamCut):
        parse([body])


def test_a_stream_that_is_cut_anywhere_never_passes_for_a_whole_one() -> None:
    body = stream_bytes({"text": "The answer is forty-two.", "pieces": 5})
    for at in range(body.index(b'"finish_reason": "stop"')):
        with pytest.raises(StreamCut):
            parse([body[:at]])


@pytest.mark.parametrize(
    "body",
    [
        b"<html>502</html>",
        b"nothing of the kind",
        b"\x00\xff\xfe",
        b"data: not json\n\n",
        b"data: [1, 2]\n\n",
        b'data: {"choices": 4}\n\n',
        b'data: {"choices": [4]}\n\n',
        b'data: {"choices":[{"delta":{"content":"\xff\xfe"}}]}\n\n',
        b'{"id": 1}',
        b'{"choices": []}',
        b'{"cut',
        b'{"a": 1}\n{"b": 2}',
        b"data: " + b"[" * 100_000 + b"\n\n",
    ],
)
def test_garbage_is_a_bad_response(body: bytes) -> None:
    with pytest.raises(BadResponse):
        parse([body])


@pytest.mark.parametrize(
    "body",
    [
        event({"content": "x"}) + b'data: {"error": {"message": "overloaded", "type": "server_error"}}\n\n',
        event({"content": "x"}, error={"code": 502, "message": "upstream"}),
        b'event: error\ndata: {"message": "no"}\n\n',
        b"event: error\ndata: plainly no\n\n",
        b'data: {"object": "error", "message": "bad", "code": 400}\n\n',
        event({}, "error"),
        event({}, "insufficient_system_resource"),
        b'{"error": {"message": "no such model"}}',
    ],
)
def test_an_error_inside_a_200_is_raised(body: bytes) -> None:
    with pytest.raises(ProviderUnavailable):
        parse([body])


def test_a_whole_completion_instead_of_a_stream() -> None:
    completion = {
        "object": "chat.completion",
        "model": "local",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "all"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "completion_tokens_details": {"reasoning_tokens": 9}},
    }
    body = json.dumps(completion, indent=1).encode()
    usage = {"input_tokens": 3, "output_tokens": 1, "reasoning_tokens": 9}
    for at in range(len(body)):
        first, last = parse([body[:at], body[at:]])
        assert [first, bare(last)] == [TextChunk("all"), Finished("stop", "local", usage)]


def test_other_choices_are_left_out_and_the_last_usage_counts() -> None:
    other = b'data: {"choices":[{"index":1,"delta":{"content":"other"}}],"usage":{"prompt_tokens":1}}\n\n'
    last = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":6}}\n\n'
    chunks = parse([other, event({"content": "mine"}, "stop"), last, DONE, event({"content": "late"})])
    assert text_of(chunks) == "mine"
    assert finished_of(chunks).usage == {"input_tokens": 5, "output_tokens": 6}


def test_a_surrogate_pair_cut_in_two_is_joined() -> None:
    first = b'data: {"choices":[{"delta":{"content":"a\\ud83d"}}]}\n\n'
    second = b'data: {"choices":[{"delta":{"content":"\\ude00b"},"finish_reason":"stop"}]}\n\n'
    assert text_of(parse([first, second, DONE])) == "a😀b"
    assert text_of(parse([first, event({}, "stop"), DONE])) == "a\ud83d"
