"""The parsers and requests of every protocol, on bytes alone: cut anywhere, against the SDKs, and their known traps."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from provider_shapes import SIGNATURE, stream_bytes
from replay import WIRES, finished_of, heard_by_circuit, heard_by_sdk, parse, reasoning_of, said_calls, text_of

from circuit.errors import (
    BadResponse,
    ContentFiltered,
    ModelRequestRefused,
    ProviderError,
    ProviderUnavailable,
    StreamCut,
)
from circuit.providers.messages import (
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    message_from,
    message_json,
)
from circuit.providers.provider import ModelRequest, ToolSpec

PROTOCOLS = sorted(WIRES)
CALLS = [{"name": "look", "arguments": {"at": "ü😀", "n": [1, 2]}}, {"name": "now"}]


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def body_of(protocol: str, *messages: Message, own: bool = False, **more: Any) -> dict[str, Any]:
    request = ModelRequest(**{"model": "m", "messages": messages} | more)
    return WIRES[protocol].body(request, own=own)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_every_boundary_gives_what_the_sdk_hears(protocol: str) -> None:
    # The SDK of Ollama splits lines at U+2028 and U+0085 too: for it these are left out.
    odd = "" if protocol == "ollama" else "\u2028\u0085"
    reply = {"text": f"Grüße,{odd} 😀!", "reasoning": f"Hm{odd} …", "calls": CALLS, "pieces": 3}
    body = stream_bytes(reply, protocol)
    whole = heard_by_circuit([body], protocol)
    assert whole.text == reply["text"]
    assert whole.reasoning == reply["reasoning"]
    assert whole.calls == (("look", CALLS[0]["arguments"]), ("now", {}))
    assert (whole.reason, whole.usage) == ("tool_calls", (11, 7))
    for at in range(1, len(body), 1 if len(body) < 3000 else 3):
        assert heard_by_circuit([body[:at], body[at:]], protocol) == whole
    for at in range(1, len(body), len(body) // 6):
        assert await heard_by_sdk([body[:at], body[at:]], protocol) == whole


@given(
    protocol=st.sampled_from(PROTOCOLS),
    text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
    argument=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    pieces=st.integers(1, 9),
    cuts=st.sets(st.integers(1, 4000), max_size=40),
)
def test_any_text_and_any_arguments_cut_anywhere(
    protocol: str, text: str, argument: str, pieces: int, cuts: set[int]
) -> None:
    body = stream_bytes(
        {"text": text, "calls": [{"name": "f", "arguments": {"a": argument}}], "pieces": pieces}, protocol
    )
    bounds = sorted({0, len(body), *(at for at in cuts if at < len(body))})
    chunks = parse((body[a:b] for a, b in pairwise(bounds)), protocol)
    assert text_of(chunks) == text
    assert [json.loads(arguments) for _, _, arguments in said_calls(chunks)] == [{"a": argument}]


@pytest.mark.parametrize("protocol", ["responses", "anthropic", "google", "ollama"])
def test_a_stream_that_is_cut_anywhere_never_passes_for_a_whole_one(protocol: str) -> None:
    body = stream_bytes({"text": "The answer is forty-two.", "pieces": 5}, protocol)
    end = {
        "responses": b"response.completed",
        "anthropic": b"message_stop",
        "google": b"STOP",
        "ollama": b'"done": true',
    }
    for at in range(body.rindex(end[protocol])):
        with pytest.raises((StreamCut, BadResponse)):
            parse([body[:at]], protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "body",
    [
        b"<html>502</html>",
        b"nothing of the kind",
        b"\x00\xff\xfe",
        b"data: not json\n\n",
        b'{"id": 1}',
        b"[1]",
    ],
)
def test_garbage_is_a_bad_response(protocol: str, body: bytes) -> None:
    with pytest.raises(BadResponse):
        parse([body], protocol)


@given(protocol=st.sampled_from(PROTOCOLS), data=st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([
        "type", "choices", "delta", "content", "tool_calls", "function", "index", "item", "response", "output", "usage",
        "content_block", "message", "candidates", "parts", "functionCall", "text", "error", "usageMetadata", "done",
        "finishReason", "thinking", "arguments", "output_index", "name", "reasoning_content", "finish_reason", "parts",
    ]), inner, max_size=4), max_leaves=12))  # fmt: skip
def test_whatever_comes_is_understood_or_refused_by_name(protocol: str, data: Any) -> None:
    """JSON of any shape ends in chunks or in one of Circuit's errors, never in another one."""
    line = json.dumps(data).encode()
    for body in (b"data: " + line + b"\n\n", line + b"\n"):
        with suppress(ProviderError):
            parse([body], protocol)


class TestAnthropic:
    def test_thinking_goes_back_with_its_signature(self) -> None:
        end = finished_of(parse([stream_bytes({"text": "yes", "reasoning": "why"}, "anthropic")], "anthropic"))
        assert end.parts[0] == ReasoningPart("why", {"protocol": "anthropic", "signature": SIGNATURE})
        kept = message_from(json.loads(json.dumps(message_json(Message(Role.ASSISTANT, end.parts)))))
        made = body_of("anthropic", kept)
        assert made["messages"][0]["content"][0] == {"type": "thinking", "thinking": "why", "signature": SIGNATURE}
        for other in ("chat", "responses", "google"):
            assert SIGNATURE not in json.dumps(body_of(other, kept)), "another provider never sees the state"

    def test_redacted_thinking_and_blocks_of_the_server_are_opaque(self) -> None:
        search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
        body = sse(
            {"type": "message_start", "message": {"model": "c", "usage": {"input_tokens": 3}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "redacted_thinking", "data": "xyz"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "content_block_start", "index": 1, "content_block": search},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"q"'}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": ":1}"}},
            {"type": "content_block_stop", "index": 1},
            {"type": "message_delta", "delta": {"stop_reason": "pause_turn"}, "usage": {"output_tokens": 5}},
            {"type": "message_stop"},
        )
        chunks = parse([body], "anthropic")
        end = finished_of(chunks)
        assert (end.reason, len(chunks)) == ("pause", 1)
        back = body_of("anthropic", Message(Role.ASSISTANT, end.parts))["messages"][0]["content"]
        assert back == [{"type": "redacted_thinking", "data": "xyz"}, {**search, "input": {"q": 1}}]

    def test_it_thinks_only_where_the_calls_before_were_thought_about(self) -> None:
        state = {"protocol": "anthropic", "signature": SIGNATURE}
        call, result = ToolCallPart("c", "f", "{}"), Message(Role.TOOL, (ToolResultPart("c", "f", "1"),))
        asked = Message.text(Role.USER, "?")
        for parts, thinks in (((ReasoningPart("why", state), call), True), ((call,), False)):
            told = (asked, Message(Role.ASSISTANT, parts), result)
            for model, does in (("claude-sonnet-4-5", thinks), ("claude-opus-4-6", True)):
                request = ModelRequest(model, told, {"reasoning_effort": "low"})
                assert ("thinking" in WIRES["anthropic"].body(request, own=True)) is does
            # The next question begins anew.
            request = ModelRequest("claude-sonnet-4-5", (*told, Message.text(Role.ASSISTANT, "1."), asked),
                                   {"reasoning_effort": "low"})  # fmt: skip
            assert "thinking" in WIRES["anthropic"].body(request, own=True)

    def test_later_counts_replace_earlier_ones(self) -> None:
        usage = {
            "input_tokens": 10,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 5,
            "output_tokens": 1,
        }
        body = sse(
            {"type": "message_start", "message": {"usage": usage}},
            {"type": "message_start", "message": {"usage": usage}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 8}},
            {"type": "message_stop"},
        )
        end = finished_of(parse([body], "anthropic"))
        assert end.usage == {
            "input_tokens": 115, "output_tokens": 8, "cached_input_tokens": 100, "cache_write_tokens": 5
        }  # fmt: skip
        assert end.raw_usage == {**usage, "output_tokens": 8}

    def test_a_refusal_may_have_no_content(self) -> None:
        details = {"category": "cyber", "explanation": "not this"}
        body = sse(
            {"type": "message_start", "message": {"usage": {"input_tokens": 1}}},
            {"type": "message_delta", "delta": {"stop_reason": "refusal", "stop_details": details}, "usage": {}},
            {"type": "message_stop"},
        )
        end = finished_of(parse([body], "anthropic"))
        assert (end.reason, end.detail, end.parts) == ("refusal", "not this", ())

    def test_an_error_may_come_at_any_time(self) -> None:
        with pytest.raises(ProviderUnavailable, match="overloaded"):
            parse([sse({"type": "error", "error": {"type": "overloaded_error", "message": "x"}})], "anthropic")

    def test_results_of_tools_are_the_users_and_come_together(self) -> None:
        made = body_of(
            "anthropic",
            Message.text(Role.SYSTEM, "Be brief."),
            Message.text(Role.USER, "?"),
            Message(Role.ASSISTANT, (ToolCallPart("a", "f.x", ""), ToolCallPart("b", "f.x", "not json"))),
            Message(Role.TOOL, (ToolResultPart("a", "f.x", "1"),)),
            Message(Role.TOOL, (ToolResultPart("b", "f.x", "bad", failed=True),)),
        )
        assert made["system"] == "Be brief."
        assert [turn["role"] for turn in made["messages"]] == ["user", "assistant", "user"]
        assert [block["input"] for block in made["messages"][1]["content"]] == [{}, {"invalid_arguments": "not json"}]
        assert made["messages"][2]["content"][1]["is_error"] is True

    @pytest.mark.parametrize("model", ["claude-3-7-sonnet-latest", "claude-sonnet-4-5", "claude-opus-5"])
    def test_thinking_is_asked_for_as_the_model_takes_it(self, model: str) -> None:
        made = body_of(
            "anthropic", Message.text(Role.USER, "?"), model=model,
            parameters={"reasoning_effort": "low", "temperature": 0.5, "max_tokens": 100},
        )  # fmt: skip
        assert "temperature" not in made
        if model == "claude-opus-5":
            assert made["thinking"] == {"type": "adaptive"}
        else:
            assert made["max_tokens"] == 100 + made["thinking"]["budget_tokens"]

    @pytest.mark.parametrize("model", ["claude-opus-4-6", "claude-opus-4-7", "claude-sonnet-5", "claude-fable-5-1"])
    def test_the_newest_models_take_no_temperature(self, model: str) -> None:
        made = body_of("anthropic", Message.text(Role.USER, "?"), model=model, parameters={"temperature": 0.5})
        assert ("temperature" in made) is (model == "claude-opus-4-6")

    def test_thinking_does_not_lead_past_what_the_model_gives(self) -> None:
        """Claude Opus 4.1 gives 32,000 tokens, thoughts included."""
        more = {"model": "claude-opus-4-1", "parameters": {"reasoning_effort": "high"}}
        made = body_of("anthropic", Message.text(Role.USER, "?"), **more)
        assert made["max_tokens"] == 32_000 > made["thinking"]["budget_tokens"]


class TestGoogle:
    def test_signatures_stay_on_their_parts(self) -> None:
        body = sse(
            {"candidates": [{"content": {"parts": [{"text": "a"}, {"text": "b"}]}}]},
            {"candidates": [{"content": {"parts": [{"functionCall": {"name": "f"}, "thoughtSignature": "s1"}]}}]},
            {"candidates": [{"content": {"parts": [{"functionCall": {"name": "f"}}]}}]},
            {"candidates": [{"content": {"parts": [{"text": "", "thoughtSignature": "s2"}]}, "finishReason": "STOP"}]},
        )
        end = finished_of(parse([body], "google"))
        assert [type(part) for part in end.parts] == [TextPart, ToolCallPart, ToolCallPart, TextPart]
        (turn,) = body_of("google", Message(Role.ASSISTANT, end.parts))["contents"]
        assert [part.get("thoughtSignature") for part in turn["parts"]] == [None, "s1", None, "s2"]
        assert len({part["functionCall"]["id"] for part in turn["parts"] if "functionCall" in part}) == 2

    def test_the_last_account_counts_and_thoughts_are_output(self) -> None:
        body = sse(
            {"candidates": [{"content": {"parts": [{"text": "x"}]}}], "usageMetadata": {"promptTokenCount": 59}},
            {
                "candidates": [{"finishReason": "MAX_TOKENS"}],
                "usageMetadata": {"promptTokenCount": 174, "candidatesTokenCount": 3, "thoughtsTokenCount": 40},
            },
        )
        end = finished_of(parse([body], "google"))
        assert (end.reason, end.usage) == (
            "length",
            {"input_tokens": 174, "output_tokens": 43, "reasoning_tokens": 40},
        )

    def test_arguments_may_come_value_by_value_on_vertex(self) -> None:
        def call(**said: Any) -> dict[str, Any]:
            return {"candidates": [{"content": {"parts": [{"functionCall": said}]}}]}

        def piece(*values: dict[str, Any], more: bool = True) -> dict[str, Any]:
            return call(partialArgs=list(values), willContinue=more)

        body = sse(
            call(name="book", willContinue=True),
            piece({"jsonPath": "$.city", "stringValue": "New ", "willContinue": True}),
            piece({"jsonPath": "$.city", "stringValue": "Delhi"}, {"jsonPath": "$.nights", "numberValue": 2}),
            piece({"jsonPath": "$.guests[1].name", "stringValue": "Ada"}, {"jsonPath": "$['a b'].c", "nullValue": 0}),
            piece({"jsonPath": "$.late", "boolValue": True}, {"jsonPath": "nonsense", "stringValue": "x"}),
            call(),
            call(name="look", args={"at": 1}),
            call(name="cut", willContinue=True),
            piece({"jsonPath": "$.rate", "numberValue": 1.5}, {"jsonPath": "$.rate.of", "stringValue": "x"}),
            {"candidates": [{"finishReason": "STOP"}]},
        )
        end = finished_of(parse([body], "google"))
        calls = [(part.name, json.loads(part.arguments)) for part in end.parts if isinstance(part, ToolCallPart)]
        booked = {
            "city": "New Delhi",
            "nights": 2,
            "guests": [None, {"name": "Ada"}],
            "a b": {"c": None},
            "late": True,
        }
        assert calls == [("book", booked), ("look", {"at": 1}), ("cut", {"rate": {"of": "x"}})]

    @pytest.mark.parametrize("why", ["SAFETY", "RECITATION", "PROHIBITED_CONTENT"])
    def test_what_was_filtered(self, why: str) -> None:
        assert finished_of(parse([sse({"candidates": [{"finishReason": why}]})], "google")).reason == "content_filter"
        blocked = finished_of(parse([sse({"promptFeedback": {"blockReason": why}})], "google"))
        assert (blocked.reason, why in blocked.detail) == ("content_filter", True)

    def test_a_call_that_could_not_be_read_may_be_tried_again(self) -> None:
        with pytest.raises(BadResponse, match="MALFORMED_FUNCTION_CALL"):
            parse([sse({"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL"}]})], "google")

    def test_a_json_array_instead_of_events(self) -> None:
        chunks = [{"candidates": [{"content": {"parts": [{"text": t}]}, "finishReason": f}]} for t, f in
                  (("a", None), ("b", "STOP"))]  # fmt: skip
        assert text_of(parse([json.dumps(chunks).encode()], "google")) == "ab"
        with pytest.raises(ProviderUnavailable, match="quota"):
            parse([json.dumps([{"error": {"message": "quota"}}]).encode()], "google")

    def test_results_are_objects_and_schemas_exclude_tools_before_gemini_3(self) -> None:
        result = Message(Role.TOOL, (ToolResultPart("a", "f", "[1]"), ToolResultPart("b", "f", '{"x": 1}')))
        parts = body_of("google", result)["contents"][0]["parts"]
        assert [part["functionResponse"]["response"] for part in parts] == [{"result": "[1]"}, {"x": 1}]
        asked: dict[str, Any] = {"output_schema": {"type": "object"}, "tools": (ToolSpec("f"),)}
        old = body_of("google", Message.text(Role.USER, "?"), model="gemini-2.5-pro", **asked)
        new = body_of("google", Message.text(Role.USER, "?"), model="gemini-3-pro", **asked)
        assert "responseJsonSchema" not in old["generationConfig"]
        assert "JSON Schema" in old["systemInstruction"]["parts"][0]["text"]
        assert new["generationConfig"]["responseJsonSchema"] == {"type": "object"}


class TestResponses:
    def test_reasoning_goes_back_encrypted_as_it_was_at_its_end(self) -> None:
        item = {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "early", "status": "in_progress"}
        body = sse(
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            {"type": "response.output_item.done", "output_index": 0, "item": {**item, "encrypted_content": "late"}},
            {"type": "response.completed", "response": {"status": "completed", "output": []}},
        )
        end = finished_of(parse([body], "responses"))
        (back,) = body_of("responses", Message(Role.ASSISTANT, end.parts))["input"]
        assert back == {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "late"}

    def test_items_are_known_by_their_index_though_their_ids_change(self) -> None:
        call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""}
        body = sse(
            {"type": "response.output_item.added", "output_index": 0, "item": {**call, "id": "1"}},
            {"type": "response.function_call_arguments.delta", "output_index": 0, "item_id": "2", "delta": '{"a"'},
            {"type": "response.function_call_arguments.delta", "output_index": 0, "item_id": "3", "delta": ":1}"},
            {
                "type": "response.output_item.done",
                "output_index": 0,
                "item": {**call, "id": "4", "arguments": '{"a":1}'},
            },
            {"type": "response.completed", "response": {"status": "completed"}},
        )
        assert said_calls(parse([body], "responses")) == [("c", "f", '{"a":1}')]

    @pytest.mark.parametrize("nested", [True, False])
    def test_an_error_and_its_failure_are_one(self, nested: bool) -> None:
        error = {"type": "server_error", "code": "x", "message": "it broke"}
        said = {"type": "error", "error": error} if nested else {**error, "type": "error"}
        failed = {"type": "response.failed", "response": {"status": "failed", "error": error}}
        with pytest.raises(ProviderUnavailable, match="it broke"):
            parse([sse(said, failed)], "responses")
        with pytest.raises(ProviderUnavailable, match="it broke"):
            parse([sse(failed)], "responses")

    def test_what_stopped_it_is_said(self) -> None:
        text = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "hal"}
        refusal = {"type": "response.refusal.delta", "output_index": 0, "content_index": 0, "delta": "no"}

        def incomplete(reason: str) -> dict[str, Any]:
            return {"type": "response.incomplete", "response": {"incomplete_details": {"reason": reason}}}

        completed = {"type": "response.completed", "response": {}}
        assert finished_of(parse([sse(text, incomplete("max_output_tokens"))], "responses")).reason == "length"
        assert finished_of(parse([sse(text, incomplete("content_filter"))], "responses")).reason == "content_filter"
        assert finished_of(parse([sse(refusal, completed)], "responses")).reason == "refusal"
        with pytest.raises(ContentFiltered):
            parse([sse(incomplete("content_filter"))], "responses")

    def test_a_whole_response_instead_of_a_stream(self) -> None:
        content = [{"type": "output_text", "text": "all"}]
        call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
        response = {
            "object": "response",
            "status": "completed",
            "output": [{"type": "message", "content": content}, call],
        }
        chunks = parse([json.dumps(response).encode()], "responses")
        assert (text_of(chunks), said_calls(chunks)) == ("all", [("c", "f", "{}")])

    def test_nothing_is_stored_with_the_provider(self) -> None:
        parts: tuple[Part, ...] = (TextPart("said"), ToolCallPart("c", "f", ""), TextPart("more"))
        made = body_of("responses", Message(Role.ASSISTANT, parts), Message(Role.USER, (ImagePart(url="http://x"),)))
        assert made["store"] is False
        assert [item.get("type", item.get("role")) for item in made["input"]] == [
            "assistant", "function_call", "assistant", "user"
        ]  # fmt: skip


class TestChat:
    def call(self, **fields: Any) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": {"tool_calls": [fields]}}]}

    def heard(self, *calls: dict[str, Any]) -> list[tuple[str, Any]]:
        end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
        said = said_calls(parse([sse(*calls, end)]))
        return [(name, json.loads(arguments)) for _, name, arguments in said]

    def test_a_new_id_at_an_occupied_index_is_a_new_call(self) -> None:
        first = self.call(index=0, id="a", function={"name": "f", "arguments": '{"n":1}'})
        second = self.call(index=0, id="b", function={"name": "f", "arguments": '{"n":2}'})
        assert self.heard(first, second) == [("f", {"n": 1}), ("f", {"n": 2})]

    def test_whole_calls_without_ids_at_one_index_are_several(self) -> None:
        one = self.call(index=0, function={"name": "f", "arguments": '{"n":1}'})
        assert self.heard(one, one) == [("f", {"n": 1}), ("f", {"n": 1})]

    @pytest.mark.parametrize("said", [{"detail": "Not Found"}, {"choices": []}, {"choices": [{"index": 1}]}])
    def test_an_end_without_a_choice_is_no_empty_answer(self, said: dict[str, Any]) -> None:
        with pytest.raises(BadResponse, match="without an answer"):
            parse([sse(said), b"data: [DONE]\n\n"])

    def test_no_index_at_all(self) -> None:
        begin = self.call(id="a", function={"name": "f", "arguments": '{"n"'})
        assert self.heard(begin, self.call(function={"arguments": ":1}"})) == [("f", {"n": 1})]

    def test_arguments_that_come_as_an_object(self) -> None:
        assert self.heard(self.call(index=0, id="a", function={"name": "f", "arguments": {"n": 1}})) == [
            ("f", {"n": 1})
        ]

    def test_reasoning_beside_calls_goes_back_under_the_name_it_came_by(self) -> None:
        think = {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]}
        call = self.call(index=0, id="a", function={"name": "f", "arguments": "{}"}, extra_content={"google": {"s": 1}})
        end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
        parts = finished_of(parse([sse(think, call, end)])).parts
        (entry,) = body_of("chat", Message(Role.ASSISTANT, parts))["messages"]
        assert entry["reasoning_content"] == "hm"
        assert entry["tool_calls"][0]["extra_content"] == {"google": {"s": 1}}


class TestOllama:
    def test_the_same_call_twice_is_two_calls(self) -> None:
        line = {"message": {"tool_calls": [{"function": {"name": "f", "arguments": {"n": 1}}}]}, "done": False}
        body = b"".join(json.dumps(item).encode() + b"\n" for item in (line, line, {"done": True}))
        said = said_calls(parse([body], "ollama"))
        assert [name for _, name, _ in said] == ["f", "f"]
        assert len({call_id for call_id, _, _ in said}) == 2

    @pytest.mark.parametrize("end", [b"\n", b""])
    def test_the_last_line_may_lack_its_end(self, end: bytes) -> None:
        assert finished_of(parse([b'{"message":{"content":"x"},"done":true}' + end], "ollama")).reason == "stop"

    def test_an_error_may_come_after_a_200(self) -> None:
        with pytest.raises(ProviderUnavailable, match="out of memory"):
            parse([b'{"message":{"content":"x"},"done":false}\n{"error":"out of memory"}\n'], "ollama")

    def test_parameters_are_options(self) -> None:
        made = body_of(
            "ollama",
            Message(Role.USER, (TextPart("?"), ImagePart("image/png", "QUJD"))),
            parameters={"max_tokens": 5, "temperature": 0.0, "stop_sequences": ["X"], "reasoning_effort": "high"},
            output_schema={"type": "object"},
        )
        assert made["options"] == {"num_predict": 5, "temperature": 0.0, "stop": ["X"]}
        assert (made["think"], made["format"]) == (True, {"type": "object"})
        assert made["messages"][0]["images"] == ["QUJD"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_images_go_in(protocol: str) -> None:
    sent = json.dumps(body_of(protocol, Message(Role.USER, (TextPart("?"), ImagePart("image/jpeg", "QUJD")))))
    assert "QUJD" in sent
    assert protocol == "ollama" or "image/jpeg" in sent
    address = Message(Role.USER, (TextPart("?"), ImagePart(url="https://a/b.png")))
    if protocol == "ollama":
        with pytest.raises(ModelRequestRefused, match="Ollama fetches no images"):
            body_of(protocol, address)
    else:
        assert "https://a/b.png" in json.dumps(body_of(protocol, address))


@pytest.mark.parametrize("protocol", ["chat", "responses", "anthropic", "google"])
@pytest.mark.parametrize("choice", ["required", "none", "f.x"])
def test_a_tool_can_be_asked_for(protocol: str, choice: str) -> None:
    made = body_of(protocol, Message.text(Role.USER, "?"), tools=(ToolSpec("f.x"),), tool_choice=choice)
    said = json.dumps({name: value for name, value in made.items() if name in ("tool_choice", "toolConfig")})
    assert {"required": '"required"' in said or '"any"' in said or '"ANY"' in said,
            "none": '"none"' in said or '"NONE"' in said}.get(choice, "f_x" in said)  # fmt: skip


def test_reasoning_is_heard_from_every_protocol() -> None:
    for protocol in PROTOCOLS:
        assert reasoning_of(parse([stream_bytes({"text": "x", "reasoning": "y z"}, protocol)], protocol)) == "y z"
