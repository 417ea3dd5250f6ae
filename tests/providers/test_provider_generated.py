"""Answers as servers may give them within their protocols, made up: byte by byte they are what the official SDK hears.

Calls are interleaved, blocks of every kind follow one another, usage comes once or with each chunk, nulls stand where
nothing is said, lines end in LF or CRLF. What a provider's SDK cannot read is left out for it: comments and U+2028.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from replay import heard_by_circuit, heard_by_sdk

TEXTS = ("Hello ", "wörld", "😀", "\n\n", "data: [DONE]", '{"a":1}', "\ufeff", "\x01", " ", "```")
ARGUMENTS: tuple[dict[str, Any], ...] = ({}, {"a": 1}, {"path": "ä😀", "n": [1, {"x": None}]}, {"q": 'x"y\\z'})
Event = dict[str, Any]


def said(source: Random, most: int = 3) -> list[str]:
    return [source.choice(TEXTS) for _ in range(source.randint(0, most))]


def arguments(source: Random) -> list[str]:
    """The arguments of a call in pieces."""
    text = json.dumps(source.choice(ARGUMENTS), ensure_ascii=False)
    bounds = sorted({0, len(text), *(source.randint(0, len(text)) for _ in range(4))})
    return [text[a:b] for a, b in pairwise(bounds)]


def events(source: Random, values: list[Event], *, comments: bool = True) -> bytes:
    newline = source.choice(["\n", "\r\n"])
    lines: list[str] = []
    for value in values:
        if comments and source.random() < 0.2:
            lines.append(source.choice([": ping", ":"]) + newline)
        if "type" in value:
            lines.append(f"event: {value['type']}{newline}")
        lines.append(f"data: {json.dumps(value, ensure_ascii=source.random() < 0.5)}{newline * 2}")
    return "".join(lines).encode()


def chat(source: Random) -> bytes:
    def chunk(delta: Event, finish: str | None = None) -> Event:
        return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "model": "m"}

    name = source.choice(["reasoning", "reasoning_content"])
    found = [chunk({"role": "assistant", "content": source.choice(["", None])})]
    found += [chunk({name: text, "content": None}) for text in said(source)]
    found += [chunk({"content": text}) for text in said(source)]
    calls = source.choice([0, 0, 1, 2, 3])
    waiting = [
        [{"index": n, "id": f"c{n}", "type": "function", "function": {"name": f"f{n}", "arguments": ""}}]
        + [{"index": n, "id": None, "function": {"name": None, "arguments": piece}} for piece in arguments(source)]
        for n in range(calls)
    ]
    while left := [pieces for pieces in waiting if pieces]:
        found.append(chunk({"tool_calls": [pieces.pop(0) for pieces in left if source.random() < 0.6]}))
    found.append(chunk({}, "tool_calls" if calls else source.choice(["stop", "length"])))
    counted: Event = {"prompt_tokens": 9, "completion_tokens": source.randint(0, 9), "total_tokens": 18}
    if source.random() < 0.5:
        found = [{**one, "usage": {**counted, "completion_tokens": n}} for n, one in enumerate(found)]
    else:
        found = [*({**one, "usage": None} for one in found), {"choices": [], "usage": counted}]
    return events(source, found) + b"data: [DONE]\n\n"


def anthropic(source: Random) -> bytes:
    usage = source.choice([{}, {"cache_read_input_tokens": 5}, {"cache_read_input_tokens": None}])
    begun: Event = {"id": "m", "type": "message", "role": "assistant", "content": [], "model": "c"}
    begun |= {"stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 4, "output_tokens": 1, **usage}}
    found: list[Event] = [{"type": "message_start", "message": begun}]
    kinds = [source.choice(["text", "thinking", "redacted", "call", "search"]) for _ in range(source.randint(0, 4))]
    for at, kind in enumerate(kinds):
        block, deltas = {
            "text": ({"type": "text", "text": ""}, [{"type": "text_delta", "text": text} for text in said(source)]),
            "thinking": (
                {"type": "thinking", "thinking": "", "signature": ""},
                [*({"type": "thinking_delta", "thinking": text} for text in said(source)),
                 {"type": "signature_delta", "signature": "s"}],
            ),
            "redacted": ({"type": "redacted_thinking", "data": "ZZ"}, []),
            "call": (
                {"type": "tool_use", "id": f"t{at}", "name": f"f{at}", "input": {}},
                [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *arguments(source)]],
            ),
            "search": (
                {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
                [{"type": "input_json_delta", "partial_json": piece} for piece in ('{"q', 'uery":"x"}')],
            ),
        }[kind]  # fmt: skip
        found.append({"type": "content_block_start", "index": at, "content_block": block})
        found += [{"type": "content_block_delta", "index": at, "delta": delta} for delta in deltas]
        found.append({"type": "content_block_stop", "index": at})
    why = "tool_use" if "call" in kinds else source.choice(["end_turn", "max_tokens", "stop_sequence", "refusal"])
    told = source.choice([{}, {"input_tokens": 22, "cache_read_input_tokens": 1}])
    found.append({"type": "message_delta", "delta": {"stop_reason": why}, "usage": {"output_tokens": 7, **told}})
    return events(source, [*found, {"type": "message_stop"}])


def google(source: Random) -> bytes:
    def chunk(parts: list[Event], **more: Any) -> Event:
        usage = {"promptTokenCount": source.randint(1, 9), **source.choice([{}, {"thoughtsTokenCount": 4}])}
        usage |= source.choice([{}, {"candidatesTokenCount": 3}, {"toolUsePromptTokenCount": 2}])
        return {"candidates": [{"content": {"parts": parts}, "index": 0, **more}], "usageMetadata": usage}

    def part(number: int) -> Event:
        signed = source.choice([{}, {"thoughtSignature": "QUJD"}])
        match source.choice(["text", "thought", "call"]):
            case "text":
                return {"text": source.choice(TEXTS), **signed}
            case "thought":
                return {"text": source.choice(TEXTS), "thought": True}
            case _:
                return {"functionCall": {"name": f"f{number}", "args": source.choice(ARGUMENTS)}, **signed}

    found = [chunk([part(n) for n in range(source.randint(1, 3))]) for _ in range(source.randint(1, 4))]
    found.append(chunk([{"text": ""}], finishReason=source.choice(["STOP", "MAX_TOKENS"])))
    return events(source, found, comments=False)


def ollama(source: Random) -> bytes:
    def line(message: Event, **more: Any) -> Event:
        return {"model": "o", "message": {"role": "assistant", "content": "", **message}, "done": False, **more}

    found = [line({"content": text, **source.choice([{}, {"thinking": text}])}) for text in said(source, 5)]
    calls = [{"function": {"name": f"f{n}", "arguments": source.choice(ARGUMENTS)}} for n in range(2)]
    found += [line({"tool_calls": calls}) for _ in range(source.randint(0, 2))]
    found.append(line({}, done=True, done_reason="stop", prompt_eval_count=5, eval_count=source.randint(1, 9)))
    return "".join(json.dumps(one) + source.choice(["\n", "\r\n"]) for one in found).encode()


def responses(source: Random) -> bytes:
    found: list[Event] = []
    whole: list[Event] = []
    for at in range(source.randint(0, 3)):
        place: Event = {"output_index": at, "item_id": f"i{at}"}
        item: Event = {"id": f"i{at}", "type": source.choice(["message", "function_call", "reasoning"])}
        if item["type"] == "message":
            item |= {"role": "assistant", "status": "completed", "content": []}
            found.append({"type": "response.output_item.added", **place, "item": item})
            for number in range(source.randint(1, 2)):
                pieces = said(source)
                found += [{"type": "response.output_text.delta", **place, "content_index": number, "delta": piece,
                           "logprobs": []} for piece in pieces]  # fmt: skip
                text = {"type": "output_text", "text": "".join(pieces), "annotations": []}
                item = {**item, "content": [*item["content"], text]}
        elif item["type"] == "function_call":
            pieces = arguments(source)
            item |= {"call_id": f"c{at}", "name": f"f{at}", "arguments": ""}
            found.append({"type": "response.output_item.added", **place, "item": item})
            found += [{"type": "response.function_call_arguments.delta", **place, "delta": piece} for piece in pieces]
            item = {**item, "arguments": "".join(pieces)}
        else:
            item |= {"summary": []}
            found.append({"type": "response.output_item.added", **place, "item": item})
            for number in range(source.randint(0, 2)):
                pieces = [source.choice(TEXTS), *said(source)]
                found += [{"type": "response.reasoning_summary_text.delta", **place, "summary_index": number,
                           "delta": piece} for piece in pieces]  # fmt: skip
                item = {**item, "summary": [*item["summary"], {"type": "summary_text", "text": "".join(pieces)}]}
        found.append({"type": "response.output_item.done", **place, "item": item})
        whole.append(item)
    usage = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    status, why = source.choice([("completed", None), ("incomplete", {"reason": "max_output_tokens"})])
    end = {"id": "r", "object": "response", "model": "m", "status": status, "incomplete_details": why}
    found.append({"type": f"response.{status}", "response": {**end, "output": whole, "usage": usage}})
    return events(source, [{**one, "sequence_number": n} for n, one in enumerate(found)])


@pytest.mark.parametrize("made", [chat, responses, anthropic, google, ollama])
async def test_what_is_made_up_is_heard_as_the_sdk_hears_it(made: Callable[[Random], bytes]) -> None:
    protocol = made.__name__
    for seed in range(40):
        body = made(Random(seed))
        heard = heard_by_circuit((body[at : at + 1] for at in range(len(body))), protocol)
        assert heard == heard_by_circuit([body], protocol), seed
        expected = await heard_by_sdk([body], protocol)
        # The helper that asks Google's SDK knows two reasons, and no calls that were cut.
        assert replace(heard, reason=None) == replace(expected, reason=None), seed
        assert heard.reason == expected.reason or (protocol == "google" and heard.calls), seed
