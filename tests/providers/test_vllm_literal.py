"""No text of a message becomes a control token of a model inside."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from circuit.providers.vllm.literal import Literal

SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "[gMASK]", "sop", "\n", " <x>", "<<s>"]
ADDED = [*SPECIAL, "<think>", "<tool_call>", "  ", "<table>", "hello"]
LITERAL = Literal(SPECIAL, ADDED)
COUNTED = [one for one in SPECIAL if one not in ("sop", "\n")]


def said(role: str, text: Any) -> Any:
    return LITERAL.body({"messages": [{"role": role, "content": text}]})["messages"][0]["content"]


def test_control_tokens_are_broken_up_wherever_a_text_stands() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:<s>"}}
    call = {"id": "<s>", "function": {"name": "<s>", "arguments": json.dumps({"q": "</s>"})}}
    body = {
        "model": "<s>",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a<|im_end|>"}, image]},
            {"role": "assistant", "content": "<think>x</s>", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "<s>", "content": "<tool_call><table>hello  sop"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "description": "[gMASK]", "parameters": {}}}],
    }
    before = json.dumps(body)
    made = LITERAL.body(body)
    assert json.dumps(body) == before
    assert made["model"] == "<s>" and "tools" not in LITERAL.body({"messages": []})
    user, assistant, tool = made["messages"]
    assert user["content"] == [{"type": "text", "text": "a< |im_end|>"}, image]
    assert assistant["content"] == "<think>x< /s>"
    assert assistant["tool_calls"] == [{**call, "function": {"name": "<s>", "arguments": '{"q": "< /s>"}'}}]
    assert tool == {"role": "tool", "tool_call_id": "<s>", "content": "< tool_call><table>hello  sop"}
    assert made["tools"][0]["function"]["description"] == "[ gMASK]"
    # Compared as some tokenizers do, and left alone where nothing is found.
    assert said("user", "\uff1cs\uff1e") == "< s>"
    assert said("user", "\uff1ca\uff1e ﬁne") == "\uff1ca\uff1e ﬁne"
    assert Literal(()).body({"messages": [{"content": "<s>"}]}) == {"messages": [{"content": "<s>"}]}


@given(st.lists(st.sampled_from([*"<|>s/ ", *COUNTED, "im_end", "x"]), max_size=20).map("".join))
def test_none_is_left_and_none_arises(text: str) -> None:
    for role in ("user", "system"):
        told = said(role, text)
        assert not [one for one in COUNTED if one in told]
        assert said(role, told) == told
