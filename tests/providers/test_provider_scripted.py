"""The scripted provider: which answer comes, how it fails on purpose, and what it makes up."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from replay import finished_of, reasoning_of, text_of

from circuit.errors import (
    AuthenticationRefused,
    ModelRequestRefused,
    ProviderError,
    ProviderMisconfigured,
    ProviderTimeout,
    RateLimited,
)
from circuit.providers.messages import Message, Role
from circuit.providers.provider import ModelChunk, ModelRequest, TextChunk
from circuit.providers.sample import NoSample, sample
from circuit.providers.scripted import ScriptedProvider


async def say(options: dict[str, Any], prompt: str = "Well?", **more: Any) -> list[ModelChunk]:
    request = ModelRequest(model="demo", messages=(Message.text(Role.USER, prompt),), **more)
    return [chunk async for chunk in ScriptedProvider(options).stream(request)]


async def test_by_turn_and_the_last_one_repeats() -> None:
    options = {"responses": ["one", {"two": 2}, "three"]}
    said = [text_of(await say(options, occurrence=n)) for n in range(5)]
    assert said == ["one", '{"two":2}', "three", "three", "three"]
    assert text_of(await say(options, occurrence=1, turn=1)) == "three"


async def test_by_prompt() -> None:
    options = {
        "responses": [
            {"when": "red (", "response": {"colour": "red"}},
            {"when": "/gr[ae]y.*sky/", "response": "grey"},
            "something else",
        ]
    }
    assert text_of(await say(options, "a red (bright) car")) == '{"colour":"red"}'
    assert text_of(await say(options, "a gray\nsky")) == "grey"
    assert text_of(await say(options, "a blue one", occurrence=4)) == "something else"


async def test_no_entry_fits() -> None:
    with pytest.raises(ModelRequestRefused, match="no scripted response fits"):
        await say({"responses": [{"when": "x", "response": "y"}]})


async def test_an_answer_may_have_keys_that_look_like_instructions() -> None:
    for answer in ({"error": "none"}, {"when": "now"}, {"response": "r", "score": 1}, {"error": "timeout", "x": 1}):
        assert json.loads(text_of(await say({"responses": [answer]}))) == answer


@pytest.mark.parametrize(
    ("code", "error"),
    [("rate_limit", RateLimited), ("timeout", ProviderTimeout), ("authentication", AuthenticationRefused)],
)
async def test_failures(code: str, error: type[ProviderError]) -> None:
    options = {"responses": [{"error": code, "message": "as told", "retry_after": 3, "text": "half an"}, "then"]}
    heard: list[ModelChunk] = []
    request = ModelRequest(model="demo", messages=())
    with pytest.raises(error, match="as told") as caught:
        async for chunk in ScriptedProvider(options).stream(request):
            heard.append(chunk)  # noqa: PERF401
    assert text_of(heard) == "half an"
    assert caught.value.retry_after == 3
    assert text_of(await say(options, occurrence=1)) == "then"


async def test_failures_before_an_answer_are_for_its_first_attempts() -> None:
    fails = {"error": "rate_limit"}
    options = {"responses": [fails, fails, "one", "two", fails, "three"]}

    async def heard(occurrence: int, attempt: int) -> str:
        try:
            return text_of(await say(options, occurrence=occurrence, attempt=attempt))
        except RateLimited:
            return "-"

    table = {number: [await heard(number, attempt) for attempt in range(1, 5)] for number in range(4)}
    assert table == {
        0: ["-", "-", "one", "one"],
        1: ["two", "two", "two", "two"],
        2: ["-", "three", "three", "three"],
        3: ["three", "three", "three", "three"],
    }
    with pytest.raises(RateLimited):
        await say({"responses": [fails]}, occurrence=5, attempt=5)


async def test_a_failure_may_depend_on_the_prompt() -> None:
    options = {"responses": [{"when": "bad", "error": "rate_limit"}, "good"]}
    with pytest.raises(RateLimited):
        await say(options, "a bad one")
    assert text_of(await say(options, "a fine one")) == "good"


async def test_pieces_and_pauses() -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    options = {"responses": [{"response": "abcdefg", "reasoning": "hm", "finish": "length"}], "chunk_size": 3}
    provider = ScriptedProvider(options | {"delay_seconds": 0.5}, sleep=pause)
    chunks = [chunk async for chunk in provider.stream(ModelRequest(model="", messages=()))]
    assert [chunk.text for chunk in chunks if isinstance(chunk, TextChunk)] == ["abc", "def", "g"]
    assert reasoning_of(chunks) == "hm"
    assert pauses == [0.5] * 4
    assert (finished_of(chunks).reason, finished_of(chunks).model) == ("length", "scripted")


@pytest.mark.parametrize(
    "options",
    [
        {"responses": "text"},
        {"responses": [3]},
        {"responses": [{"when": 3, "response": "x"}]},
        {"responses": [{"when": "/(/", "response": "x"}]},
        {"delay_seconds": -1},
        {"delay_seconds": "soon"},
        {"chunk_size": 0},
        {"chunk_size": True},
    ],
)
def test_options_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(ProviderMisconfigured):
        ScriptedProvider(options)


async def test_without_a_script_it_says_so() -> None:
    assert "no model was asked" in text_of(await say({}))


REVIEW = {
    "type": "object",
    "required": ["assessment", "confidence_score", "issues"],
    "additionalProperties": False,
    "properties": {
        "assessment": {"enum": ["approve", "needs_revision", "reject"]},
        "confidence_score": {"type": "integer", "minimum": 1, "maximum": 10},
        "issues": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 2},
        "note": {"type": ["string", "null"]},
    },
}


async def test_without_a_script_it_makes_up_what_the_schema_asks_for() -> None:
    first = text_of(await say({"seed": 1}, output_schema=REVIEW))
    jsonschema_rs.validate(REVIEW, json.loads(first))
    assert text_of(await say({"seed": 1}, output_schema=REVIEW)) == first
    others = {text_of(await say({"seed": seed}, "Another?", output_schema=REVIEW)) for seed in range(8)}
    assert len(others) > 3


async def test_a_schema_that_nothing_fits() -> None:
    with pytest.raises(ModelRequestRefused, match="give it responses"):
        await say({}, output_schema={"type": "object", "required": ["a"], "properties": {"a": False}})


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"const": {"a": [1]}},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"type": "number", "minimum": 0.5, "maximum": 0.5},
        {"type": "integer", "exclusiveMinimum": 3, "maximum": 4},
        {"type": "integer", "multipleOf": 7, "minimum": 10, "maximum": 20},
        {"type": "integer", "minimum": 500},
        {"type": "integer", "maximum": -500},
        {"type": "string", "minLength": 100, "maxLength": 100},
        {"type": "string", "format": "date-time"},
        {"type": "array", "minItems": 4, "uniqueItems": True, "items": {"type": "integer"}},
        {"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "minItems": 2, "items": {"type": "boolean"}},
        {"type": "object", "required": ["x"], "additionalProperties": {"type": "integer"}, "minProperties": 3},
        {"anyOf": [{"type": "null"}, {"type": "boolean"}]},
        {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"], "oneOf": [{"required": ["a"]}]},
        {"allOf": [{"required": ["a"]}, {"properties": {"a": {"type": "integer"}}}, {"type": "object"}]},
        {"$ref": "#/$defs/tree", "$defs": {"tree": {
            "type": "object", "required": ["name"],
            "properties": {"name": {"type": "string"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
        }}},
        {"$ref": "#/definitions/a~1b", "definitions": {"a/b": {"type": "null"}}},
    ],
)  # fmt: skip
def test_samples_fit(schema: dict[str, Any]) -> None:
    for seed in range(20):
        value = sample(schema, str(seed))
        jsonschema_rs.validate(schema, value)
        assert value == sample(schema, str(seed))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"$ref": "#/nowhere"},
        {"$ref": "https://example.org/schema.json"},
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"type": "string", "pattern": "^[0-9]{40}$"},
        {"$ref": "#/$defs/loop", "$defs": {"loop": {"$ref": "#/$defs/loop"}}},
    ],
)
def test_schemas_without_a_sample(schema: dict[str, Any]) -> None:
    with pytest.raises(NoSample):
        sample(schema, "1")


LEAF = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.builds(
        lambda a, b: {"type": "integer", "minimum": a, "maximum": a + b}, st.integers(-99, 99), st.integers(0, 9)
    ),
    st.builds(
        lambda n, m: {"type": "string", "minLength": n, "maxLength": n + m}, st.integers(0, 90), st.integers(0, 9)
    ),
    st.builds(lambda values: {"enum": values}, st.lists(st.integers(), min_size=1, max_size=3, unique=True)),
)
SCHEMAS = st.recursive(
    LEAF,
    lambda inner: st.one_of(
        st.builds(lambda item, n: {"type": "array", "items": item, "minItems": n}, inner, st.integers(0, 3)),
        st.builds(
            lambda fields: {"type": "object", "properties": fields, "required": sorted(fields)[:2]},
            st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
        ),
        st.builds(lambda options: {"anyOf": options}, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=8,
)


@given(schema=SCHEMAS, seed=st.integers())
def test_ordinary_schemas_always_have_a_sample(schema: dict[str, Any], seed: int) -> None:
    jsonschema_rs.validate(schema, sample(schema, str(seed)))
