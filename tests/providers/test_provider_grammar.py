"""To what part of a schema Anthropic holds an answer: what its own SDK would ask for, and nothing that it refuses."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
from anthropic import transform_schema
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from replay import WIRES

from circuit.agents.strategies.self_reflection import JUDGEMENT
from circuit.providers.grammar import grammar_of
from circuit.providers.messages import Message, Role
from circuit.providers.provider import ModelRequest


class Line(BaseModel):
    what: str
    amount: float = Field(ge=0)
    kind: str | None = None


class Invoice(BaseModel):
    """An invoice."""

    number: str = Field(pattern="^[A-Z]+$", max_length=10)
    lines: list[Line] = Field(min_length=2)
    paid: bool = False


def plain(schema: Any) -> Any:
    """A schema without what is said to the model alone."""
    if isinstance(schema, dict):
        return {key: plain(one) for key, one in schema.items() if key not in ("title", "description")}
    return [plain(one) for one in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize(
    "schema",
    [
        Invoice.model_json_schema(),
        JUDGEMENT,
        {"type": "object", "properties": {"a": {"enum": ["x", 1, None]}, "b": {"const": 2}}, "required": ["a"]},
        {"type": "object", "properties": {"a": {"oneOf": [{"type": "string", "format": "date"}, {"type": "null"}]}}},
        {"type": "array", "items": {"type": "integer", "multipleOf": 2}, "minItems": 1, "uniqueItems": True},
    ],
)
def test_it_asks_for_what_the_sdk_asks_for(schema: dict[str, Any]) -> None:
    made = grammar_of(schema)
    assert made is not None
    assert plain(made.schema) == plain(transform_schema(schema))


NODE: dict[str, Any] = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"type": "object", "properties": {"a": {"type": "object"}}},
        {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": True},
        {"type": "object", "properties": {"a": {}}},
        {"type": "array"},
        {"allOf": [{"type": "object", "properties": {"a": {"type": "string"}}}]},
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["b"]},
        {"enum": [{"a": 1}]},
        {"$ref": "#/$defs/node", "$defs": {"node": NODE}},
        {"$ref": "#/properties/a", "properties": {"a": {"type": "string"}}},
    ],
)
def test_what_cannot_be_said_is_no_grammar(schema: dict[str, Any]) -> None:
    assert grammar_of(schema) is None


def body(schema: dict[str, Any], protocol: str = "anthropic", model: str = "claude-sonnet-4-5") -> dict[str, Any]:
    request = ModelRequest(model, (Message.text(Role.USER, "?"),), output_schema=schema)
    return WIRES[protocol].body(request, own=True)


def test_what_the_grammar_leaves_out_is_told() -> None:
    exact = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    made = body(exact)
    assert made["output_config"]["format"]["schema"] == {**exact, "additionalProperties": False}
    assert "system" not in made
    made = body(JUDGEMENT)
    assert "maximum" not in str(made["output_config"]) and '"maximum":1' in made["system"]
    made = body({"type": "object"})
    assert "output_config" not in made and "JSON Schema" in made["system"]


@pytest.mark.parametrize(("protocol", "key"), [("chat", "response_format"), ("responses", "text")])
def test_openai_is_told_of_schemas_of_anything_but_objects(protocol: str, key: str) -> None:
    made = body({"type": "array"}, protocol, "gpt-4o")
    assert key not in made
    assert "JSON Schema" in str(made)
    assert key in body({"type": "object"}, protocol, "gpt-4o")


SCALARS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"type": "string", "maxLength": 2},
        {"type": "integer", "minimum": 1},
        {"type": ["number", "null"], "minimum": 1},
        {"const": "a"},
    ]
)
SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: (
        st.fixed_dictionaries({"type": st.just("array"), "items": inner})
        | st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=2)})
        | st.fixed_dictionaries(
            {
                "type": st.just("object"),
                "properties": st.dictionaries(st.sampled_from("ab"), inner, min_size=1),
                # Where nothing is said of others they are left out, as the API asks for.
                "additionalProperties": st.just(False),
            },
            optional={"required": st.just(["a"])},
        )
    ),
    max_leaves=5,
)
VALUES = st.recursive(
    st.none() | st.integers(0, 2) | st.sampled_from(["a", "abc", 0.5]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)


@given(SCHEMAS, st.lists(VALUES, min_size=3, max_size=10))
def test_a_grammar_excludes_nothing_that_fits_and_names_only_what_it_knows(schema: Any, values: list[Any]) -> None:
    made = grammar_of(schema)
    if made is not None:
        for value in values:
            fits, may = (jsonschema_rs.validator_for(one).is_valid(value) for one in (schema, made.schema))
            assert may or not fits
            assert fits or not (may and made.whole)
