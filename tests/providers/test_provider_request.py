"""The body of a request: parameters by profile, the schema, strictness."""

from __future__ import annotations

import json
from typing import Any

import pytest
from replay import WIRES

from circuit.providers.completion import request_body
from circuit.providers.messages import Message, ReasoningPart, Role, TextPart
from circuit.providers.profiles import DEFAULT, misfits, profile_of
from circuit.providers.provider import ModelRequest, ToolSpec
from circuit.providers.strict import satisfies_strict

PARAMETERS = {
    "temperature": 0.0,
    "max_tokens": 800,
    "top_p": 0.9,
    "frequency_penalty": -0.5,
    "presence_penalty": 0.5,
    "stop_sequences": ["END"],
}
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string"}}}


def body(model: str, *, own: bool = False, **more: Any) -> dict[str, Any]:
    request = ModelRequest(model=model, messages=(Message.text(Role.USER, "?"),), **more)
    return request_body(request, profile_of(model), own=own)


def test_all_parameters_of_an_ordinary_model() -> None:
    made = body("gpt-4.1-mini", own=True, parameters=PARAMETERS)
    assert made["max_tokens"] == 800
    assert made["stop"] == ["END"]
    assert {name: made[name] for name in ("temperature", "top_p", "frequency_penalty", "presence_penalty")} == {
        "temperature": 0.0,
        "top_p": 0.9,
        "frequency_penalty": -0.5,
        "presence_penalty": 0.5,
    }
    assert made["stream_options"] == {"include_usage": True, "include_obfuscation": False}


def test_what_is_not_set_is_not_sent() -> None:
    made = body("anything", parameters={"temperature": None, "max_tokens": None, "stop_sequences": []})
    assert sorted(made) == ["messages", "model", "stream", "stream_options"]


@pytest.mark.parametrize(
    "model", ["o3", "o4-mini", "gpt-5", "gpt-5-mini-2025-08-07", "openai/gpt-5.1", "ft:o4-mini:me:x"]
)
def test_reasoning_models_take_no_sampling(model: str) -> None:
    made = body(model, parameters=PARAMETERS)
    assert made["max_completion_tokens"] == 800
    assert not {"temperature", "top_p", "frequency_penalty", "presence_penalty", "stop", "max_tokens"} & made.keys()
    assert profile_of(model).reasoning


@pytest.mark.parametrize("model", ["llama3:8b", "o300-local", "olmo-2", "qwen3"])
def test_models_that_no_profile_knows_get_the_defaults(model: str) -> None:
    assert profile_of(model) == DEFAULT


def test_a_chat_variant_of_a_reasoning_family_takes_sampling() -> None:
    assert body("gpt-5-chat-latest", parameters=PARAMETERS)["temperature"] == 0.0


def test_the_schema_goes_into_response_format() -> None:
    made = body("gpt-4o-mini", output_schema=SCHEMA, schema_name="content reviewer/ü" + "x" * 80)
    assert made["response_format"]["type"] == "json_schema"
    asked = made["response_format"]["json_schema"]
    assert asked["schema"] == SCHEMA
    assert asked["strict"] is False
    assert asked["name"].startswith("content_reviewer_x")
    assert len(asked["name"]) == 64


@pytest.mark.parametrize("model", ["gpt-4", "gpt-3.5-turbo", "gpt-4-turbo", "gpt-4o-2024-05-13"])
def test_old_models_get_the_schema_in_the_prompt(model: str) -> None:
    made = body(model, output_schema=SCHEMA)
    assert "response_format" not in made
    assert json.dumps(SCHEMA, separators=(",", ":")) in made["messages"][0]["content"]


@pytest.mark.parametrize(
    ("protocol", "model", "own", "together"),
    [
        ("chat", "gpt-4.1-mini", True, True),
        ("chat", "gpt-4.1-mini", False, True),
        ("chat", "a-model-that-came-later", True, True),
        # What serves open models holds all of an answer to the schema: it would never call a tool.
        ("chat", "qwen3", False, False),
        ("responses", "gpt-5-mini", True, True),
        ("responses", "gpt-oss:20b", False, False),
        ("ollama", "qwen3", True, False),
        ("google", "gemini-2.5-flash", True, False),
        ("google", "gemini-3-pro", True, True),
        ("anthropic", "claude-sonnet-4-5", True, True),
    ],
)
def test_a_schema_keeps_no_model_from_its_tools(protocol: str, model: str, own: bool, together: bool) -> None:
    def made(choice: str) -> tuple[bool, bool]:
        told = (Message.text(Role.SYSTEM, "Be brief."), Message.text(Role.USER, "?"))
        tools = (ToolSpec("look", "Looks.", {"type": "object"}),)
        asked = ModelRequest(model, told, {}, SCHEMA, tools=tools, tool_choice=choice)
        whole = WIRES[protocol].body(asked, own=own)
        native = any(
            key in json.dumps(whole) for key in ('"json_schema"', '"responseJsonSchema"', '"format": {"type": "object"')
        )
        return native, "It must fit this JSON Schema" in json.dumps(whole)

    assert made("auto") == made("required") == (together, not together)
    assert made("none") == (True, False), "no call is meant, so the schema is kept to"


def test_compatible_servers_get_one_message_of_the_system_in_front() -> None:
    """Templates of open models take no other."""
    told = [(Role.SYSTEM, "One."), (Role.USER, "?"), (Role.SYSTEM, "Two."), (Role.ASSISTANT, "!")]
    messages = tuple(Message.text(role, text) for role, text in told)
    asked = ModelRequest("qwen3", messages, {}, SCHEMA, tools=(ToolSpec("look", "", {"type": "object"}),))
    first, *rest = request_body(asked, DEFAULT, own=False)["messages"]
    assert first["role"] == "system"
    assert first["content"].startswith("One.\n\nTwo.\n\nAnswer with one JSON value")
    assert [one["role"] for one in rest] == ["user", "assistant"]
    assert [one["role"] for one in request_body(asked, DEFAULT, own=True)["messages"]] == [role for role, _ in told]


def test_reasoning_is_not_sent_back() -> None:
    message = Message(Role.ASSISTANT, (ReasoningPart("why"), TextPart("be"), TextPart("cause")))
    request = ModelRequest(model="m", messages=(message,))
    assert request_body(request, DEFAULT, own=False)["messages"] == [{"role": "assistant", "content": "because"}]


STRICT: dict[str, Any] = {
    "type": "object",
    "required": ["a", "b"],
    "additionalProperties": False,
    "properties": {
        "a": {"type": ["string", "null"], "enum": ["x", None]},
        "b": {"type": "array", "items": {"$ref": "#/$defs/inner"}},
    },
    "$defs": {"inner": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}},
}


def test_a_strict_schema_is_known() -> None:
    assert satisfies_strict(STRICT)
    assert body("gpt-4o", output_schema=STRICT)["response_format"]["json_schema"]["strict"] is True


@pytest.mark.parametrize(
    "change",
    [
        {"additionalProperties": True},
        {"additionalProperties": {}},
        {"required": ["a"]},
        {"type": "array"},
        {"allOf": []},
        {"minProperties": 1},
        {"properties": {"a": {"enum": ["x"]}, "b": {"type": "string"}}},
        {"properties": {"a": {"type": "string", "maxLength": 4}, "b": {"type": "string"}}},
        {"properties": {"a": {"type": "array"}, "b": {"type": "string"}}},
        {"properties": {"a": {"type": "object"}, "b": {"type": "string"}}},
        {"properties": {"a": True, "b": {"type": "string"}}},
        {"$defs": {"inner": {"not": {}}}},
    ],
)
def test_any_other_schema_is_not_strict(change: dict[str, Any]) -> None:
    assert not satisfies_strict(STRICT | change)


@pytest.mark.parametrize(
    ("model", "context"),
    [
        ("gpt-4.1-mini", 1_047_576),
        ("gpt-5-mini", 400_000),
        ("claude-3-5-sonnet-20241022", 200_000),
        ("claude-sonnet-4-5", 200_000),
        ("gemini-2.5-flash", 1_048_576),
        ("anthropic/claude-3-haiku", 200_000),
        ("llama3", None),
    ],
)
def test_what_models_hold(model: str, context: int | None) -> None:
    assert profile_of(model).context == context


def test_what_does_not_fit_a_model_is_named() -> None:
    assert misfits("gpt-4o", {"max_tokens": 16_384}) == []
    assert misfits("gpt-4o", {"max_tokens": 16_385}) == ["max_tokens is 16385, and gpt-4o gives 16384 tokens at most"]
    assert misfits("claude-2.1", {}, True) == ["claude-2.1 takes no tools"]
    assert misfits("gpt-4o", {"reasoning_effort": "low"}) == ["reasoning_effort is set, and gpt-4o does not reason"]
    assert misfits("unknown", {"max_tokens": 10**9, "reasoning_effort": "low"}, True) == []
