"""JSON equality: by value for numbers, strict about booleans, safe for data of any depth."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuit.expressions.value import exact_json, kind, same

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.0, 1.0, 0.5]), st.sampled_from("ab")),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("ab"), inner, max_size=2)),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        ([1], [True], False),
        ({"a": 0}, {"a": False}, False),
        ({"a": 1, "b": 2}, {"b": 2.0, "a": 1}, True),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ([1, 2], [2, 1], False),
        ([1], [1, 1], False),
        ("1", 1, False),
        (None, False, False),
        (None, None, True),
        ({}, [], False),
    ],
)
def test_same(left: object, right: object, expected: bool) -> None:
    assert same(left, right) is expected and same(right, left) is expected


def test_same_on_values_deeper_than_the_stack() -> None:
    one: dict = {}
    other: dict = {"end": 1}
    for _ in range(5000):
        one, other = {"a": one}, {"a": other}
    assert same(one, one) and not same(one, other)


@settings(max_examples=60, deadline=None, database=None)
@given(JSON, JSON)
def test_same_agrees_with_the_text_of_the_values(left: object, right: object) -> None:
    def normal(value: object) -> str:
        return json.dumps(value, sort_keys=True).replace(".0", "")

    assert same(left, right) == (normal(left) == normal(right))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "null"),
        (True, "a boolean"),
        (1, "a number"),
        (0.5, "a number"),
        ("", "a string"),
        ([], "a list"),
        ({}, "an object"),
    ],
)
def test_kind(value: object, expected: str) -> None:
    assert kind(value) == expected


@pytest.mark.parametrize("text", ['{"n": 12345678901234567890123}', b"[-9223372036854775809]", "9223372036854775807"])
def test_an_integer_is_read_as_it_is_written(text: str | bytes) -> None:
    assert exact_json(text) == json.loads(text)
    assert "." not in json.dumps(exact_json(text))


def test_what_is_no_json_says_where() -> None:
    with pytest.raises(orjson.JSONDecodeError) as refused:
        exact_json('{"a":\n }')
    assert refused.value.lineno == 2
