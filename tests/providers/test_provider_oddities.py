"""What servers send beside what their protocols say: it changes nothing, or it is understood as the SDK does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson
import pytest
from provider_shapes import stream_bytes
from replay import WIRES, finished_of, heard_by_circuit, heard_by_sdk, parse, reasoning_of, said_calls, text_of

from circuit.errors import ProviderError
from circuit.providers.messages import Message, Role, TextPart, ToolCallPart, ToolResultPart, calls_of
from circuit.providers.provider import ModelRequest

REPLY: dict[str, Any] = {
    "text": "Hello big world",
    "reasoning": "let me see",
    "calls": [{"name": "f", "arguments": {"a": 1}}, {"name": "g"}],
    "finish": "tool_calls",
}


def event(value: Any, name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(value).encode() + b"\n\n"


def events(*values: dict[str, Any]) -> bytes:
    return b"".join(event(value, value.get("type", "")) for value in values)


def choice(delta: Any, index: int = 0, finish: Any = None) -> bytes:
    return event({"choices": [{"index": index, "delta": delta, "finish_reason": finish}]})


def candidate(**fields: Any) -> bytes:
    return event({"candidates": [fields]})


ANYWHERE = {
    "comment": b": keep-alive\n\n",
    "empty comment": b":\n",
    "no data": b"data:\n\n",
    "blank data": b"data: \n\n",
    "null": b"data: null\n\n",
    "nothing": b"data: {}\n\n",
    "id and retry": b"id: 7\nretry: 100\n\n",
    "blank lines": b"\n\n\n",
    "an unknown field": b"foo: bar\n\n",
    "a ping": event({"type": "ping"}, "ping"),
    "a ping of text": b"event: ping\ndata: 2026-01-01T00:00:00Z\n\n",
    "a keep-alive without data": b"event: keep-alive\ndata:\n\n",
    "an unknown event": event({"type": "something.new", "x": [1]}, "something.new"),
    "an unknown type": event({"type": "something.new", "x": [1]}),
}
BETWEEN: dict[str, dict[str, bytes]] = {
    "chat": {
        "usage alone": event({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}}),
        "no usage": event({"choices": [], "usage": None}),
        "no choices": event({"choices": None}),
        "an empty delta": choice({}),
        "no delta": choice(None),
        "another choice": choice({"content": "OTHER"}, 1, "length"),
        "the filter's results": event({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}),
        "an empty reason": choice({}, finish=""),
        "only nulls": choice({"content": None, "tool_calls": None, "reasoning": None, "refusal": None}),
        "no calls": choice({"tool_calls": []}),
    },
    "responses": {
        "it is queued": events({"type": "response.queued", "sequence_number": 1}),
        "an annotation": events({"type": "response.output_text.annotation.added", "output_index": 0, "annotation": {}}),
        "an unknown delta": events({"type": "response.new_thing.delta", "output_index": 98, "delta": "ZZZ"}),
    },
    "anthropic": {
        "an unknown delta": events({"type": "content_block_delta", "index": 0, "delta": {"type": "new", "x": "ZZ"}}),
        "a citation": events({"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta"}}),
        "a second beginning": events({"type": "message_start", "message": {"usage": {"input_tokens": 11}}}),
        "no usage": events({"type": "message_delta", "delta": {}}),
    },
    "google": {
        "no candidates": event({"responseId": "x"}),
        "no candidate": event({"candidates": []}),
        "no parts": candidate(content={"role": "model", "parts": []}),
        "no content": candidate(index=0),
        "another candidate": candidate(index=1, content={"parts": [{"text": "OTHER"}]}, finishReason="SAFETY"),
        "empty text": candidate(content={"parts": [{"text": ""}]}),
        "an unknown part": candidate(content={"parts": [{"newThing": {}}]}),
    },
    "ollama": {
        "a blank line": b"\r\n",
        "an empty message": b'{"model":"m","message":{"role":"assistant","content":"","new":1},"done":false,"x":1}\n',
    },
}


@pytest.mark.parametrize("protocol", list(BETWEEN))
def test_what_comes_between_changes_nothing(protocol: str) -> None:
    whole = stream_bytes(REPLY, protocol)
    plain = heard_by_circuit([whole], protocol)
    assert (plain.text, len(plain.calls)) == ("Hello big world", 2)
    end = b"\n" if protocol == "ollama" else b"\n\n"
    parts = [part + end for part in whole.split(end) if part.strip()]
    odd = {**({} if protocol == "ollama" else ANYWHERE), **BETWEEN[protocol]}
    for name, piece in odd.items():
        for at in range(len(parts)):
            body = b"".join([*parts[:at], piece, *parts[at:]])
            assert heard_by_circuit([body], protocol) == plain, (name, at)
    bent = {"crlf": whole.replace(b"\n", b"\r\n"), "bom": b"\xef\xbb\xbf" + whole, "blank": b"\n\n" + whole}
    for name, body in bent.items():
        assert heard_by_circuit([body], protocol) == plain, name
        assert heard_by_circuit([body[at : at + 1] for at in range(len(body))], protocol) == plain, name


def test_a_call_is_made_once_however_its_item_is_counted() -> None:
    item = {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a": 1}'}
    message = {"type": "message", "content": [{"type": "output_text", "text": "Hi."}]}
    body = events(
        {"type": "response.output_text.delta", "output_index": 3, "content_index": 0, "delta": "Hi."},
        {"type": "response.output_item.added", "output_index": 5, "item": {**item, "arguments": ""}},
        {"type": "response.function_call_arguments.delta", "output_index": 5, "delta": '{"a": 1}'},
        {"type": "response.output_item.done", "output_index": 5, "item": item},
        {"type": "response.completed", "response": {"output": [message, item, {**item, "call_id": "d"}]}},
    )
    chunks = parse([body], "responses")
    assert said_calls(chunks) == [("c", "f", '{"a": 1}'), ("d", "f", '{"a": 1}')]
    assert text_of(chunks) == "Hi."


def test_the_phase_of_a_message_goes_back_with_it() -> None:
    def message(phase: str, text: str) -> dict[str, Any]:
        return {"type": "message", "phase": phase, "content": [{"type": "output_text", "text": text}]}

    body = events(
        {"type": "response.output_item.done", "output_index": 0, "item": message("commentary", "Let me see.")},
        {"type": "response.output_item.done", "output_index": 1, "item": message("final_answer", "Yes.")},
        {"type": "response.completed", "response": {}},
    )
    told = Message(Role.ASSISTANT, (*finished_of(parse([body], "responses")).parts, TextPart("By the way.")))
    made = WIRES["responses"].body(ModelRequest("gpt-5", (told,)), own=True)["input"]
    assert [(one.get("phase"), one["content"][0]["text"]) for one in made] == [
        ("commentary", "Let me see."), ("final_answer", "Yes."), (None, "By the way."),
    ]  # fmt: skip


async def test_arguments_that_come_whole_with_their_call_count() -> None:
    body = events(
        {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "content": [],
         "model": "c", "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 0}}},
        {"type": "content_block_start", "index": 4,
         "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}},
        {"type": "content_block_stop", "index": 4},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    )  # fmt: skip
    heard = heard_by_circuit([body], "anthropic")
    assert heard.calls == (("f", {"a": 1}),)
    assert (await heard_by_sdk([body.replace(b'"index": 4', b'"index": 0')], "anthropic")).calls == heard.calls


ANYTHING: tuple[Any, ...] = (None, True, -1, 1.5, 10**30, "", "x", [], [None], [[]], {}, {"a": 1}, [{}], float("inf"))


def nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of each value in `value`."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, below in inner:
        yield from nodes(below, (*path, step))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(copy[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize("protocol", list(BETWEEN))
def test_whatever_stands_in_an_answer_it_is_heard_or_a_fault_of_the_provider(protocol: str) -> None:
    """And what was called can be sent back."""
    lines = stream_bytes({**REPLY, "pieces": 100}, protocol).split(b"\n")
    for at, line in enumerate(lines):
        prefix, brace, rest = line.partition(b"{")
        if not brace:
            continue
        value = json.loads(brace + rest)
        for path in nodes(value):
            for new in ANYTHING:
                bent = prefix + json.dumps(changed(value, path, new)).encode()
                body = b"\n".join([*lines[:at], bent, *lines[at + 1 :]])
                with suppress(ProviderError):
                    calls = calls_of(finished_of(parse([body], protocol)).parts)
                    made = WIRES[protocol].body(ModelRequest("m", (Message(Role.ASSISTANT, calls),)), own=False)
                    assert orjson.dumps(made)


@pytest.mark.parametrize(
    ("usage", "beside", "heard"),
    [
        # xAI counts what was thought apart from the answer; OpenAI counts it in.
        ({"total_tokens": 60, "completion_tokens_details": {"reasoning_tokens": 40}}, {}, (12, 48, None, 40)),
        ({"total_tokens": 20, "completion_tokens_details": {"reasoning_tokens": 5}}, {}, (12, 8, None, 5)),
        ({"prompt_cache_hit_tokens": 7, "prompt_cache_miss_tokens": 5}, {}, (12, 8, 7, None)),
        ({"cached_tokens": 9, "prompt_tokens_details": None}, {}, (12, 8, 9, None)),
        (None, {"x_groq": {"usage": {"prompt_tokens": 12, "completion_tokens": 8}}}, (12, 8, None, None)),
    ],
)
def test_an_account_has_many_forms(usage: Any, beside: dict[str, Any], heard: tuple[int | None, ...]) -> None:
    account = usage and {"prompt_tokens": 12, "completion_tokens": 8, **usage}
    names = ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens")
    told = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": account, **beside}
    for body in (
        event(told),
        event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": account}], **beside}),
    ):
        end = finished_of(parse([choice({"content": "x"}), body, b"data: [DONE]\n\n"]))
        assert tuple(end.usage.get(name) for name in names) == heard


def test_details_of_reasoning_are_heard_and_go_back_as_one() -> None:
    """Where a server tells the text itself too, it is not heard twice."""

    def told(**detail: Any) -> list[dict[str, Any]]:
        return [{"type": "reasoning.text", "index": 0, "format": "anthropic-claude-v1", **detail}]

    sealed = {"type": "reasoning.encrypted", "index": 1, "data": "QUJD", "id": "tool_0_f"}
    calls = [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}]
    for text in (True, False):
        body = b"".join(
            [
                choice({"reasoning_details": told(text="let "), **({"reasoning": "let "} if text else {})}),
                choice({"reasoning_details": told(text="me \ud83d"), **({"reasoning": "me \ud83d"} if text else {})}),
                choice({"reasoning_details": told(text="\ude00"), **({"reasoning": "\ude00"} if text else {})}),
                choice({"reasoning_details": told(signature="sig", text=None)}),
                choice({"reasoning_details": [sealed], "tool_calls": calls}, finish="tool_calls"),
            ]
        )
        chunks = parse([body])
        assert reasoning_of(chunks) == "let me 😀"
        turn = (Message(Role.ASSISTANT, finished_of(chunks).parts),)
        (entry,) = WIRES["chat"].body(ModelRequest("m", turn), own=False)["messages"]
        assert entry["reasoning_details"] == [*told(text="let me 😀", signature="sig"), sealed]
        assert "reasoning" not in entry
        assert set(WIRES["chat"].body(ModelRequest("m", turn), own=True)["messages"][0]) == {
            "role", "content", "tool_calls"
        }  # fmt: skip


def test_counts_are_whole_and_not_negative() -> None:
    usage = {"prompt_tokens": 3.0, "completion_tokens": -1, "prompt_tokens_details": {"cached_tokens": "2"}}
    body = choice({"content": "x"}, finish="stop") + event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n"
    end = finished_of(parse([body]))
    assert (end.usage, type(end.usage["input_tokens"])) == ({"input_tokens": 3}, int)


def test_calls_without_ids_get_ones_that_no_earlier_call_has() -> None:
    """Also where a conversation goes on in another run, whose first turn is turn 0 again."""
    known = (ToolCallPart("call_0_0", "f", "{}"), ToolCallPart("call_1_0", "f", "{}"))
    asked = ModelRequest("m", (Message(Role.ASSISTANT, known), Message.text(Role.USER, "?")))
    line = b'{"message": {"tool_calls": [{"function": {"name": "f", "arguments": {}}}]}, "done": true}\n'
    for turn, made in ((0, "call_2_0"), (1, "call_2_0"), (5, "call_5_0")):
        reader = WIRES["ollama"].parser(
            replace(asked, turn=turn), "http://server", lambda error: ProviderError(str(error))
        )
        assert [call.id for call in calls_of(finished_of([*reader.feed(line), *reader.finish()]).parts)] == [made]


@pytest.mark.parametrize("protocol", ["anthropic", "responses", "chat"])
def test_an_id_of_another_provider_becomes_one_that_this_one_takes(protocol: str) -> None:
    for theirs, kept in (("functions.f:0", False), ("x" * 80, False), ("toolu_01-a", True)):
        told = (
            Message(Role.ASSISTANT, (ToolCallPart(theirs, "f", "{}"),)),
            Message(Role.TOOL, (ToolResultPart(theirs, "f", "1"),)),
        )
        made = json.dumps(WIRES[protocol].body(ModelRequest("gpt-4o", told), own=True))
        ids = re.findall(r'"(?:id|tool_use_id|tool_call_id|call_id)": "([^"]+)"', made)
        assert len(ids) == 2 and len(set(ids)) == 1 and re.fullmatch(r"[A-Za-z0-9_-]{1,40}", ids[0])
        assert (ids[0] == theirs) is kept
    # A server of somebody else gets back what it gave.
    if protocol == "chat":
        assert theirs in json.dumps(WIRES[protocol].body(ModelRequest("k", told), own=False))
