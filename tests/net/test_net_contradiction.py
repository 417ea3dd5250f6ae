"""Schemas that nothing satisfies: what is found is one, and nothing that has an instance is found."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit.net.contradiction import contradiction

ENDLESS: dict[str, Any] = {
    "$ref": "#/$defs/a",
    "$defs": {
        "a": {
            "type": "object",
            "required": ["l", "r"],
            "properties": {"l": {"$ref": "#/$defs/a"}, "r": {"$ref": "#/$defs/a"}},
        }
    },
}


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (False, "nothing is allowed there"),
        ({"type": "object", "not": {}}, "`not` leaves nothing out"),
        ({"type": "object", "not": {"description": "anything"}}, "`not` leaves nothing out"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "no integer is between 3 and 2 as it asks"),
        ({"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2}, "no integer is between 1 and 2 as it asks"),
        ({"type": "number", "minimum": 1, "exclusiveMaximum": 1}, "no number is between 1 and 1 as it asks"),
        ({"type": "string", "minLength": 3, "maxLength": 1}, "it asks for 3 characters at least and 1 at most"),
        ({"type": "array", "minItems": 1, "items": False}, "[]: nothing is allowed there"),
        ({"type": "object", "required": ["a", "b"], "maxProperties": 1}, "it requires 2 properties and allows 1"),
        (
            {"type": "object", "required": ["n"], "properties": {"m": {}}, "additionalProperties": False},
            "it requires 'n' and allows no such property",
        ),
        (
            {
                "type": "object",
                "required": ["a"],
                "properties": {"a": {"$ref": "#/$defs/a"}},
                "$defs": {"a": {"type": "object", "required": ["b"], "properties": {"b": {"enum": []}}}},
            },
            "a.b: none of the values that it lists fits the rest",
        ),
        ({"type": "object", "anyOf": [{"type": "string"}, {"type": "null"}]}, "no type is left"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "no type is left"),
        ({"const": 1, "minimum": 2}, "none of the values that it lists fits the rest"),
    ],
)
def test_what_nothing_satisfies(schema: Any, why: str) -> None:
    assert contradiction(schema) == why


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        {"required": ["n"], "properties": {"n": False}},  # anything that is no object
        {"type": "object", "properties": {"n": False}},
        {"type": "array", "items": False},
        {"type": ["integer", "string"], "minimum": 2, "maximum": 1},
        {"type": "number", "exclusiveMinimum": 1, "exclusiveMaximum": 2},
        {"oneOf": [{"type": "string"}, False]},
        {"$ref": "https://elsewhere/schema"},
        {"$ref": "#"},
        {"type": "object", "allOf": [{"$ref": "#"}]},
        ENDLESS,  # a contradiction that only shows at infinity
    ],
)
def test_what_something_may_satisfy(schema: Any) -> None:
    assert contradiction(schema) is None


SMALL = st.integers(-1, 3)
NAMES = st.sampled_from(["a", "b"])
VALUES = st.recursive(
    st.none() | st.booleans() | SMALL | st.sampled_from([0.5, 1.5]) | st.text("ab", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
COUNT = st.integers(0, 3)
SCHEMAS = st.recursive(
    st.booleans()
    | st.fixed_dictionaries({"enum": st.lists(VALUES, max_size=2)})
    | st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["integer", "number", "string", "array", "object", "null"]),
            **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), SMALL),
            **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "maxProperties"), COUNT),
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["array", "object", "string"]),
            "required": st.lists(NAMES, unique=True, max_size=2),
            "properties": st.dictionaries(NAMES, inner, max_size=2),
            "additionalProperties": st.booleans(),
            "minItems": COUNT,
            "items": inner,
            "not": inner,
            **{key: st.lists(inner, min_size=1, max_size=2) for key in ("allOf", "anyOf", "oneOf")},
        },
    ),
    max_leaves=6,
)


@given(SCHEMAS, st.lists(VALUES, min_size=5, max_size=20))
def test_nothing_that_has_an_instance_is_a_contradiction(schema: Any, values: list[Any]) -> None:
    if (why := contradiction(schema)) is not None:
        validator = jsonschema_rs.validator_for(schema)
        fitting = [value for value in values if validator.is_valid(value)]
        assert not fitting, why
