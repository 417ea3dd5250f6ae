"""From text to structured output: what is tolerated, and what is refused with which words."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit.agents.output import ANSWER_LIMIT, check_size, interpret
from circuit.errors import ContentFiltered, InvalidOutput, ModelRefusal, OutputTruncated, ProviderError

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["verdict"],
    "properties": {"verdict": {"enum": ["yes", "no"]}, "score": {"type": "integer", "maximum": 10}, "note": {}},
}


def test_without_a_schema_there_is_no_output() -> None:
    assert interpret('{"a": 1}', "stop", None) is None
    assert interpret("half", "length", None) is None


@pytest.mark.parametrize(
    "text",
    [
        '{"verdict": "yes"}',
        ' \n\ufeff{"verdict": "yes"}\n\n',
        '```json\n{"verdict": "yes"}\n```',
        '```\r\n{"verdict":\n"yes"}\r\n```\n',
        'Here it is:\n```JSON\n{"verdict": "yes"}\n```\nAnything else?',
    ],
)
def test_fences_and_space_are_tolerated(text: str) -> None:
    assert interpret(text, "stop", SCHEMA) == {"verdict": "yes"}


def test_raw_control_characters_are_tolerated() -> None:
    assert interpret('{"verdict": "no", "note": "a\tb\nc"}', "stop", SCHEMA)["note"] == "a\tb\nc"


def test_a_fence_inside_of_a_string_stays() -> None:
    value = {"verdict": "yes", "note": "```json\n{}\n```"}
    assert interpret(json.dumps(value), "stop", SCHEMA) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty answer"),
        ("   ", "empty answer"),
        ("Yes.", "not JSON .*begins with 'Yes.'"),
        ('{"verdict": "yes"', "not JSON"),
        ('{"verdict": "yes"} and more', "not JSON"),
        ('{"verdict": NaN}', "NaN is not a number"),
        ('{"verdict": "yes", "score": -Infinity}', "-Infinity is not a number"),
        ("```json\nx\n```", "not JSON"),
        ("```json\n{}\n```\n```json\n{}\n```", "not JSON"),
        ("[" * 100_000 + "]" * 100_000, "nested more than 100 deep"),
        ('{"verdict": "yes", "note": ' + "[" * 101 + "]" * 101 + "}", "nested more than 100 deep"),
        ('{"verdict": "maybe"}', "does not fit output_schema: verdict: "),
        ('{"score": 11}', "score: 11 is greater than the maximum of 10"),
        ("[]", "does not fit output_schema"),
        ('{"verdict": "yes", "note": "\\u0000"}', "note holds a NUL"),
        ('{"verdict": "yes", "note": ["\\ud800"]}', r"note\[0\] holds .* surrogate"),
        ('{"verdict": "yes", "\\udfff": 1}', "a key in the value holds"),
        ('{"verdict": "yes", "note": 1e999}', "note is a number too large"),
        ('{"verdict": "yes", "note": 99999999999999999999}', "note is an integer of more than 64 bits"),
        ('{"verdict": "yes", "note": ' + "9" * 5000 + "}", "not JSON"),
        ('{"verdict": "yes"}\0', "NUL"),
        ('{"verdict": "yes", "note": "\ud83d"}', "surrogate"),
    ],
)
def test_what_is_no_output_is_explained(text: str, says: str) -> None:
    with pytest.raises(InvalidOutput, match=says) as caught:
        interpret(text, "stop", SCHEMA)
    assert len(caught.value.message) < 1500
    orjson.dumps(caught.value.as_dict())


def test_many_faults_make_a_short_message() -> None:
    schema = {"type": "array", "items": {"type": "integer"}}
    with pytest.raises(InvalidOutput) as caught:
        interpret(json.dumps(["x" * 10_000] * 1000), "stop", schema)
    assert len(caught.value.message) < 1500
    assert caught.value.message.endswith("and more")


def test_a_schema_may_not_reach_out() -> None:
    with pytest.raises(InvalidOutput, match="output_schema is not a JSON Schema"):
        interpret("{}", "stop", {"$ref": "http://127.0.0.1:9/schema.json"})


def test_a_truncated_structured_answer_says_what_to_do() -> None:
    with pytest.raises(OutputTruncated, match="raise max_tokens"):
        interpret('{"verdict": "yes"}', "length", SCHEMA)


@pytest.mark.parametrize(
    ("reason", "error", "who"),
    [("refusal", ModelRefusal, "the model"), ("content_filter", ContentFiltered, "content filter")],
)
def test_refusals(reason: str, error: type[ProviderError], who: str) -> None:
    with pytest.raises(error, match=rf"{who} refused to answer: I will not\."):
        interpret("I will\nnot.", reason, SCHEMA)
    with pytest.raises(error, match=r"refused to answer$"):
        interpret("", reason, None)


def test_the_size_is_bounded() -> None:
    check_size(ANSWER_LIMIT)
    with pytest.raises(InvalidOutput, match="max_tokens"):
        check_size(ANSWER_LIMIT + 1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab`\n{", max_size=3), inner, max_size=3),
)  # fmt: skip


@given(value=JSON, fence=st.sampled_from(["", "```", "```json"]), escaped=st.booleans())
def test_any_json_survives(value: Any, fence: str, escaped: bool) -> None:
    text = json.dumps(value, ensure_ascii=escaped)
    if fence and "```" not in text:
        text = f"{fence}\n{text}\n```"
    assert interpret(text, "stop", {}) == value


@given(text=st.text())
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        orjson.dumps(interpret(text, "stop", {}))
    except InvalidOutput as error:
        orjson.dumps(error.as_dict())
