"""Guards: structured rules and conditions, with reasons, and no answer where there is none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuit.expressions.cel import compile_expression
from circuit.net.guard import MAX_DEPTH, Guard, Rule

SCOPE = {
    "data": {
        "text": "hello",
        "n": 3,
        "flag": True,
        "tags": ["a", 1],
        "none": None,
        "deep": {"x": [{"y": "z"}]},
        "k": 1,
    },
    "metadata": {"status": "draft", "n": 9},
    "tokens": {"a": {"id": "c.1", "version": 1, "data": {"n": 3}, "metadata": {}}, "many": [{"data": {"n": 1}}]},
    "case": {"id": "c", "fired": {"t": 2}},
}
TRUE = {"field_exists": "data.n"}
FALSE = {"field_exists": "data.absent"}
FAULT = {"field_equals": {"field": "data.absent", "value": 1}}


def compare(kind: str, field: str, value: object) -> dict:
    return {kind: {"field": field, "value": value}}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"field_exists": "data.n"}, True),
        ({"field_exists": "data.none"}, True),
        ({"field_exists": "data.absent"}, False),
        ({"field_exists": "status"}, True),
        ({"field_exists": "text"}, True),
        ({"field_exists": "data.deep.x.0.y"}, True),
        ({"field_exists": "tokens.b"}, False),
        (compare("field_equals", "n", 9), True),
        (compare("field_equals", "data.n", 3.0), True),
        (compare("field_equals", "data.flag", 1), False),
        (compare("field_equals", "data.flag", True), True),
        (compare("field_equals", "data.none", None), True),
        (compare("field_equals", "data.deep", {"x": [{"y": "z"}]}), True),
        (compare("field_equals", "tokens.a.data.n", 3), True),
        (compare("field_equals", "tokens.many.0.data.n", 1), True),
        (compare("field_equals", "data.absent", None), None),
        (compare("field_greater_than", "data.n", 2.5), True),
        (compare("field_greater_than", "data.n", 3), False),
        (compare("field_greater_than", "data.text", "hallo"), True),
        (compare("field_greater_than", "data.text", 1), None),
        (compare("field_greater_than", "data.flag", 0), None),
        (compare("field_less_than", "case.fired.t", 3), True),
        (compare("field_less_than", "case.fired.t", 2), False),
        (compare("field_less_than", "data.none", 2), None),
        (compare("field_contains", "data.text", "ell"), True),
        (compare("field_contains", "data.text", "x"), False),
        (compare("field_contains", "data.text", 1), None),
        (compare("field_contains", "data.tags", 1), True),
        (compare("field_contains", "data.tags", True), False),
        (compare("field_contains", "data.deep", "x"), True),
        (compare("field_contains", "data.n", 3), None),
        ({"not": FALSE}, True),
        ({"not": TRUE}, False),
        ({"not": FAULT}, None),
        ({"and": [TRUE, FALSE]}, False),
        ({"and": [FAULT, FALSE]}, False),
        ({"and": [TRUE, FAULT]}, None),
        ({"or": [FAULT, TRUE]}, True),
        ({"or": [FALSE, FAULT]}, None),
        ({"or": [FALSE, FALSE]}, False),
    ],
)
def test_a_rule_holds_does_not_hold_or_has_no_answer(rule: dict, expected: bool | None) -> None:
    verdict = Rule.parse(rule).judge(SCOPE)
    assert verdict.holds is (expected is True)
    assert verdict.faulty is (expected is None)
    assert bool(verdict.reasons) is not verdict.holds


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (FALSE, "data.absent is missing"),
        (compare("field_equals", "status", "done"), "status is 'draft', not 'done'"),
        (compare("field_equals", "flag", False), "flag is true, not false"),
        (compare("field_equals", "none", 1), "none is null, not 1"),
        (compare("field_equals", "deep", {}), "deep is an object, not an object"),
        (compare("field_greater_than", "data.n", 7), "data.n is 3, not above 7"),
        (compare("field_less_than", "data.text", 7), "data.text is a string, which cannot be compared with a number"),
        (compare("field_contains", "data.tags", "b"), "data.tags does not contain 'b'"),
        ({"id": "has_body", **FALSE}, "has_body: data.absent is missing"),
        ({"description": "A body", **FALSE}, "A body: data.absent is missing"),
        ({"not": {"id": "open", **TRUE}}, "not (open): it does hold"),
        ({"not": TRUE}, "not (field_exists data.n): it does hold"),
    ],
)
def test_a_rule_says_why_it_does_not_hold(rule: dict, reason: str) -> None:
    assert Rule.parse(rule).judge(SCOPE).reasons == (reason,)


def test_a_long_text_is_not_shown_in_reasons() -> None:
    scope = {"data": {"text": "s" * 41}, "metadata": {}}
    (reason,) = Rule.parse(compare("field_equals", "data.text", "x")).judge(scope).reasons
    assert reason == "data.text is a string of 41 characters, not 'x'"


def test_data_where_several_tokens_are_consumed_has_no_answer() -> None:
    scope = {"tokens": SCOPE["tokens"], "case": SCOPE["case"]}
    verdict = Rule.parse(compare("field_equals", "data.n", 3)).judge(scope)
    assert verdict.faulty and "use tokens.PLACE" in verdict.reasons[0]


def test_what_a_rule_reads() -> None:
    rule = Rule.parse({"or": [{"field_exists": "status"}, {"not": compare("field_equals", "tokens.a.data.n", 1)}]})
    assert rule.paths == ("status", "tokens.a.data.n")
    assert Guard((rule,)).needs == {"data", "metadata", "tokens"}
    condition = compile_expression("case.fired.t < 1", ("tokens", "case"))
    assert Guard((), (condition,)).needs == {"case"}


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ([], "must be a mapping"),
        ("data.x", "must be a mapping"),
        ({}, "exactly one of"),
        ({"id": "only"}, "here: none"),
        ({"field_exist": "data.x"}, "here: field_exist"),
        ({"field_exists": "data.x", "not": TRUE}, "here: field_exists, not"),
        ({"field_exists": ""}, "empty"),
        ({"field_exists": 3}, "must be text"),
        ({"field_exists": "review.score"}, "must begin with data"),
        ({"field_equals": {"field": "data.x"}}, "exactly field and value"),
        ({"field_equals": {"field": "data.x", "value": 1, "extra": 2}}, "exactly field and value"),
        ({"field_equals": ["data.x", 1]}, "exactly field and value"),
        ({"field_equals": {"field": None, "value": 1}}, "must be text"),
        ({"and": []}, "not empty"),
        ({"or": TRUE}, "a list of rules"),
        ({"and": [TRUE, {"bad": 1}]}, "here: bad"),
        ({"not": [TRUE]}, "must be a mapping"),
        ({"id": 7, **TRUE}, "must be text"),
    ],
)
def test_what_is_no_rule_says_so(rule: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Rule.parse(rule)  # type: ignore[arg-type]


def test_rules_nested_without_end_are_refused() -> None:
    rule: dict = TRUE
    for _ in range(MAX_DEPTH):
        rule = {"not": rule}
    with pytest.raises(ValueError, match="nested deeper"):
        Rule.parse(rule)


def test_a_guard_gives_a_reason_for_everything_that_does_not_hold() -> None:
    conditions = ("data.n > 5", "data.absent == 1", "data.n + 1", "data.n == 3", "data.flag")
    guard = Guard(
        (Rule.parse(TRUE), Rule.parse({"id": "r", **FALSE})),
        tuple(compile_expression(source, ("data", "metadata")) for source in conditions),
    )
    verdict = guard.judge(SCOPE)
    assert not verdict.holds and verdict.faulty
    assert verdict.reasons == (
        "r: data.absent is missing",
        "data.n > 5: is false",
        "data.absent == 1: there is no key 'absent'",
        "data.n + 1: gives a number, not true or false",
    )
    assert Guard().judge(SCOPE).holds


def rules(depth: int = 3) -> st.SearchStrategy[dict]:
    leaves = st.sampled_from([TRUE, FALSE, FAULT])
    if depth == 0:
        return leaves
    inner = rules(depth - 1)
    lists = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        leaves,
        inner.map(lambda rule: {"not": rule}),
        lists.map(lambda parts: {"and": parts}),
        lists.map(lambda parts: {"or": parts}),
    )


def cel(rule: dict) -> str:
    ((kind, body),) = rule.items()
    if kind == "field_exists":
        return "has(data.n)" if body == "data.n" else "has(data.absent)"
    if kind == "field_equals":
        return "(data.absent == 1)"
    if kind == "not":
        return f"!({cel(body)})"
    return "(" + (" && " if kind == "and" else " || ").join(cel(part) for part in body) + ")"


@settings(max_examples=60, deadline=None, database=None)
@given(rules())
def test_rules_and_the_same_in_cel_give_the_same_verdict(rule: dict) -> None:
    by_rule = Guard((Rule.parse(rule),)).judge(SCOPE)
    by_cel = Guard((), (compile_expression(cel(rule), ("data",)),)).judge(SCOPE)
    assert (by_rule.holds, by_rule.faulty) == (by_cel.holds, by_cel.faulty)
