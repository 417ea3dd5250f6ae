"""CEL behind its door: plain values in and out, readable faults, no exception of the library."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuit.expressions.cel import (
    MAX_SOURCE_LENGTH,
    EvaluationFault,
    Expression,
    ExpressionFault,
    compile_expression,
)

EXAMPLES = settings(max_examples=80, deadline=None, database=None)
VARIABLES = ("data", "metadata", "tokens", "case")
# The library cuts strings at NUL, and knows no integers beyond 64 bits.
TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=5)
PLAIN = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        TEXT,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)


def expression(source: str) -> Expression:
    return compile_expression(source, VARIABLES)


def evaluate(source: str, **values: object) -> object:
    return expression(source).evaluate(values)


@pytest.mark.parametrize(
    ("source", "values", "expected"),
    [
        ("data.x > 1", {"data": {"x": 2}}, True),
        ("size(data.content) > 20", {"data": {"content": "é" * 20}}, False),
        ("tokens.part.map(p, p.data.id)", {"tokens": {"part": [{"data": {"id": 1}}, {"data": {"id": 2}}]}}, [1, 2]),
        ("case.fired.review < 3", {"case": {"fired": {"review": 3}}}, False),
        ("{'a': [1, {'b': null}]}", {}, {"a": [1, {"b": None}]}),
        ("has(data.x) && data.x == 1", {"data": {}}, False),
        ("data.x == 1", {"data": {"x": True}}, False),
        ("data.x == 1", {"data": {"x": 1.0}}, True),
        ("timestamp('2024-01-01T00:00:00.5Z')", {}, "2024-01-01T00:00:00.500000Z"),
        ("duration('1h') + duration('0.25s')", {}, "3600.25s"),
        ("duration('100000000s')", {}, "100000000s"),
        (
            "data.x",
            {"data": {"x": "NOT_FOUND: a text that looks like a fault"}},
            "NOT_FOUND: a text that looks like a fault",
        ),
    ],
)
def test_values(source: str, values: dict, expected: object) -> None:
    found = evaluate(source, **values)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("source", "values", "says"),
    [
        ("data.y", {"data": {}}, "no key 'y'"),
        ("data.x.y", {"data": {"x": 1}}, "not an object"),
        ("data.x > 1", {"data": {"x": "a"}}, "no operation for these types"),
        ("1 / data.x", {"data": {"x": 0}}, "divide by zero"),
        ("data.x[3]", {"data": {"x": [1]}}, "index=3"),
        ("data.x", {"data": {"x": 2**70}}, "out of range"),
        ("size(data.x)", {"data": {"x": [-(2**64)]}}, "out of range"),
        ("data.x", {"data": {"x": "\ud800"}}, "surrogate"),
        ("data", {"data": {1: 2}}, "keys are strings"),
        ("{1: 2}", {}, "keys are strings"),
        ("data.x", {"data": {"x": object()}}, "Non-CEL value"),
        ("data.x", {"data": {"x": (1,)}}, "Non-CEL value"),
        ("data.x", {"data": {"x": math.nan}}, "JSON cannot hold"),
        ("b'a'", {}, "JSON cannot hold"),
        ("type(1)", {}, "JSON cannot hold"),
        ("data.x", {}, "exactly one consumed token"),
        ("case.id", {}, "case is not known here"),
        ("data.x.matches('(')", {"data": {"x": ""}}, "regular expression"),
    ],
)
def test_an_evaluation_that_fails_says_why(source: str, values: dict, says: str) -> None:
    with pytest.raises(EvaluationFault, match=says) as caught:
        evaluate(source, **values)
    assert str(caught.value).startswith(f"{source}: ")


def test_a_value_that_is_nested_too_deeply_is_a_fault() -> None:
    deep: dict = {}
    for _ in range(3000):
        deep = {"a": deep}
    assert evaluate("size(data)", data=deep) == 1
    with pytest.raises(EvaluationFault, match="too deeply"):
        evaluate("data", data=deep)


@pytest.mark.parametrize(
    ("source", "line", "column", "says"),
    [
        ("data.x ==", 1, 10, "ends too early"),
        ("data\n.x @ 2", 2, 4, "token recognition"),
        ("foo + bar", 1, 1, r"undeclared reference to 'foo'; undeclared reference to 'bar' \(at 1:7\)"),
        ("'é' + foo", 1, 7, "undeclared reference to 'foo'"),
        ("1 + 'a'", 1, 3, "no matching overload"),
        ("data.x and true", 1, 8, "CEL writes &&"),
        ("data.x = 3", 1, 8, "CEL writes &&"),
        ("", 1, 1, "empty"),
        (" \n", 1, 1, "empty"),
        ("1" * (MAX_SOURCE_LENGTH + 1), 1, 1, "at most 4000"),
        ("(" * 300 + "1" + ")" * 300, 1, 1, "nested too deeply"),
        ("+".join("1" * 40), 1, 1, "nested too deeply"),
        ("data.\ud800", 1, 1, "surrogate"),
        ("size(data.x) > 3\x00", 1, 17, "token recognition"),
    ],
)
def test_a_source_that_does_not_compile_says_where_and_why(source: str, line: int, column: int, says: str) -> None:
    with pytest.raises(ExpressionFault, match=says) as caught:
        expression(source)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert "expecting {" not in caught.value.message and "<input>" not in caught.value.message


def test_only_variables_that_were_declared_are_known() -> None:
    assert compile_expression("tokens.a", ("tokens",)).variables == ("tokens",)
    with pytest.raises(ExpressionFault, match="undeclared reference to 'data"):
        compile_expression("data.x", ("tokens", "case"))


def test_an_expression_says_what_it_needs_and_gives() -> None:
    found = expression("tokens.a.data.x > case.fired.t")
    assert set(found.names) >= {"tokens", "case"} and "metadata" not in found.names
    assert found.returns == "BOOL"
    assert expression("size(data.x)").returns == "INT"
    assert expression("data.x").returns == "DYN"
    assert found == expression(found.source) and hash(found) == hash(expression(found.source))
    assert found != expression("data.x") and repr(expression("data.x")) == "Expression('data.x')"


def test_a_long_chain_of_conditions_compiles() -> None:
    assert evaluate(" && ".join(["data.x"] * 40), data={"x": True}) is True


@EXAMPLES
@given(PLAIN)
def test_plain_values_go_through_unchanged(value: object) -> None:
    found = evaluate("data.x", data={"x": value})
    assert found == value
    assert evaluate("[{'k': data.x}]", data={"x": value}) == [{"k": value}]


@EXAMPLES
@given(st.text("data.x()[]{}+-*/?:&|!<>='\"\\ 01\né\x00", max_size=14))
def test_any_source_compiles_or_is_a_fault_with_a_place(source: str) -> None:
    try:
        found = expression(source)
    except ExpressionFault as fault:
        assert fault.message and fault.line >= 1 and fault.column >= 1
        return
    try:
        found.evaluate({"data": {"x": 1}, "metadata": {}, "tokens": {}, "case": {}})
    except EvaluationFault as fault:
        assert str(fault)
