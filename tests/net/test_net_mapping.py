"""Mappings and merges: what an action is given, and what the produced tokens hold."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import CASE, token

from circuit.errors import MappingError, MergeConflict
from circuit.expressions.cel import ExpressionFault
from circuit.net.binding import Binding
from circuit.net.mapping import MAX_DEPTH, InputMapping, OutputData, OutputMapping, map_inputs, merge_inputs, produce
from circuit.net.structure import InputArc, Merge, Mode, OutputArc, Transition

ONE = Binding("t", (token(1, "a", {"x": 1, "o": {"p": 2}}, metadata={"m": 1, "x": 9}),))
TWO = Binding("t", (token(1, "a", {"x": 1}), token(2, "b", {"x": 2, "y": 3})), (token(3, "r", {"z": 4}),))
OUTPUTS = {"assessment": "approve", "usage": {"input": 3}, "form": {"content": "new"}, "list": [1, 2], "nothing": None}


def inputs(value: dict[str, Any], binding: Binding = ONE) -> dict[str, Any]:
    return map_inputs(InputMapping.parse(value), binding.scope(CASE))


def transition(outputs: tuple[OutputArc, ...] = (OutputArc("z"),), **changes: Any) -> Transition:
    return Transition("t", (InputArc("a"),), outputs, **changes)


def outputs(mapping: dict[str, Any], *arcs: OutputArc, binding: Binding = ONE, **changes: Any) -> list:
    part = transition(arcs or (OutputArc("z"),), output_mapping=OutputMapping.parse(mapping), **changes)
    return produce(part, binding, OUTPUTS, CASE)


# Inputs


def test_paths_bare_names_defaults_and_optional_inputs() -> None:
    assert inputs(
        {
            "a": "data.x",
            "b": "x",
            "c": "o",
            "d": {"path": "data.absent", "default": "d"},
            "e": {"path": "data.absent", "optional": True},
            "f": {"path": "data.absent", "optional": True, "default": None},
            "g": {"path": "data.x", "default": 0},
            "h": "tokens.a.version",
            "i": "case.workflow_id",
            "j": "tokens.a.id",
        }
    ) == {
        "a": 1,
        "b": 9,
        "c": {"p": 2},
        "d": "d",
        "f": None,
        "g": 1,
        "h": 1,
        "i": "random",
        "j": f"{CASE['id']}.1",
    }


def test_a_path_that_leads_nowhere_names_the_input_and_the_way_out() -> None:
    with pytest.raises(MappingError, match=r"input a: data\.y is missing; mark it `optional`"):
        inputs({"a": "data.y"})
    with pytest.raises(MappingError, match=r"use tokens\.PLACE"):
        inputs({"a": "data.x"}, TWO)
    assert inputs({"a": "tokens.b.data.y", "b": "tokens.r.data.z"}, TWO) == {"a": 3, "b": 4}


def test_without_a_mapping_the_inputs_are_the_data() -> None:
    for mapping in (None, InputMapping.parse({})):
        assert map_inputs(mapping, ONE.scope(CASE)) == {"x": 1, "o": {"p": 2}}
        merged, _ = merge_inputs(TWO.consumed, Merge.LAST)
        assert map_inputs(mapping, TWO.scope(CASE), merged=merged) == {"x": 2, "y": 3}
        assert map_inputs(mapping, Binding("t", ()).scope(CASE)) == {}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"a": 1}, "a must be a path"),
        ({"a": None}, "a must be a path"),
        ({"a": {"default": 1}}, "a must be a path"),
        ({"a": {"path": "data.x", "defualt": 1}}, "a must be a path"),
        ({"a": {"path": "data.x", "optional": "yes"}}, "true or false"),
        ({"a": {"path": 3}}, "must be text"),
        ({"a": "review.x"}, "must begin with data"),
        ({"a": ""}, "empty"),
    ],
)
def test_what_is_no_input_mapping_says_so(value: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        InputMapping.parse(value)


def test_mappings_tell_what_they_name() -> None:
    mapping = InputMapping.parse({"a": "data.x", "b": {"path": "y", "optional": True}})
    assert mapping.names == ("a", "b") and mapping.paths == ("data.x", "y")
    out = OutputMapping.parse({"to.z.data.a": "text", "to.z.metadata.b": "usage.input", "data.c": "model"})
    assert out.places == ("z",) and out.sources == ("text", "usage.input", "model")


# Outputs


def test_outputs_are_written_to_every_target_or_to_one() -> None:
    before = copy.deepcopy(ONE)
    drafts = outputs(
        {
            "data.review.verdict": "assessment",
            "metadata.input": "usage.input",
            "to.z.data.only": "list.1",
            "data.x": "nothing",
        },
        OutputArc("y"),
        OutputArc("z", 2),
    )
    written = {"x": None, "o": {"p": 2}, "review": {"verdict": "approve"}}
    assert [draft.place for draft in drafts] == ["y", "z", "z"]
    assert [draft.data for draft in drafts] == [written, {**written, "only": 2}, {**written, "only": 2}]
    assert all(draft.metadata == {"m": 1, "x": 9, "input": 3} for draft in drafts)
    assert before == ONE, "the consumed token is not changed"


def test_a_source_that_is_missing() -> None:
    with pytest.raises(MappingError, match=r"output_mapping data\.a: there is no output other\.x"):
        outputs({"data.a": "other.x"})
    (draft,) = outputs(
        {
            "data.a": {"path": "other", "optional": True},
            "data.b": {"path": "other", "default": [0]},
            "data.c": "nothing",
        }
    )
    assert draft.data == {"x": 1, "o": {"p": 2}, "b": [0], "c": None}


def test_a_target_below_a_value_that_is_no_object() -> None:
    with pytest.raises(MappingError, match=r"output_mapping data\.x\.y: .*x is a number"):
        outputs({"data.x.y": "assessment"})


def test_a_form_is_read_like_any_output() -> None:
    (draft,) = outputs({"data.x": "form.content"})
    assert draft.data["x"] == "new"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"review": "text"}, "must begin with data"),
        ({"data": "text"}, "must begin with data"),
        ({"to.z.other.a": "text"}, "must begin with data"),
        ({"to.z.data": "text"}, "must begin with data"),
        ({"to.z": "text"}, "must begin with data"),
        ({"tokens.z.data.a": "text"}, "must begin with data"),
        ({"data.a": 3}, "must be a path"),
        ({"data.a": {"path": 3}}, "must name an output"),
        ({"data.a": ""}, "empty"),
        ({"data..a": "text"}, "empty segment"),
    ],
)
def test_what_is_no_output_mapping_says_so(value: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        OutputMapping.parse(value)


def test_computed_data_replaces_the_inputs_and_the_mapping_comes_after() -> None:
    data = OutputData.parse(
        {"sum": "tokens.a.data.x + tokens.b.data.y", "ids": "[tokens.r.data.z]"}, ("tokens", "case")
    )
    part = transition(
        (OutputArc("z", data=data), OutputArc("z2", data=data)),
        output_mapping=OutputMapping.parse({"to.z.data.verdict": "assessment"}),
    )
    drafts = produce(part, TWO, OUTPUTS, CASE)
    assert [draft.data for draft in drafts] == [{"sum": 4, "ids": [4], "verdict": "approve"}, {"sum": 4, "ids": [4]}]


def test_computed_data_that_cannot_be_computed() -> None:
    data = OutputData.parse({"k": "data.absent"}, ("data",))
    with pytest.raises(MappingError, match=r"data\.k: data\.absent: there is no key 'absent'"):
        produce(transition((OutputArc("z", data=data),)), ONE, {}, CASE)
    with pytest.raises(ExpressionFault):
        OutputData.parse({"k": "data +"}, ("data",))
    with pytest.raises(ValueError, match=r"data\.k must be a CEL expression"):
        OutputData.parse({"k": 1}, ("data",))


def test_computed_data_spares_the_merge_of_data_but_not_of_metadata() -> None:
    data = OutputData.parse({"k": "1"}, ("tokens",))
    part = transition((OutputArc("z", data=data),))
    (draft,) = produce(part, TWO, {}, CASE)
    assert draft.data == {"k": 1}
    clash = Binding("t", (token(1, "a", metadata={"by": "one"}), token(2, "b", metadata={"by": "two"})))
    with pytest.raises(MergeConflict, match=r"of a and b have different values of metadata\.by; give `merge: last`"):
        produce(part, clash, {}, CASE)


def test_read_tokens_give_no_data() -> None:
    part = Transition("t", (InputArc("a"), InputArc("r", 1, Mode.READ)), (OutputArc("z"), OutputArc("y")))
    drafts = produce(part, Binding("t", ONE.consumed, TWO.read), {}, CASE)
    assert [draft.data for draft in drafts] == [ONE.consumed[0].data] * 2
    (draft,) = produce(Transition("t", part.inputs[1:], (OutputArc("z"),)), Binding("t", (), TWO.read), {}, CASE)
    assert draft.data == {} and draft.metadata == {}


# Merges


def merged(merge: Merge, *data: dict[str, Any]) -> Any:
    tokens = [token(number, f"p{number}", values) for number, values in enumerate(data, 1)]
    before = copy.deepcopy(data)
    try:
        return merge_inputs(tokens, merge)[0]
    finally:
        assert data == before


@pytest.mark.parametrize(
    ("merge", "data", "expected"),
    [
        (Merge.REFUSE, [{"a": 1}, {"b": 2}], {"a": 1, "b": 2}),
        (Merge.REFUSE, [{"a": {"x": [1]}}, {"a": {"x": [1.0]}}], {"a": {"x": [1]}}),
        (Merge.LAST, [{"a": 1}, {"a": 2}, {"b": 0}], {"a": 2, "b": 0}),
        (Merge.DEEP, [{"a": {"x": 1, "l": [1]}}, {"a": {"y": 2, "l": [2]}}], {"a": {"x": 1, "y": 2, "l": [2]}}),
        (Merge.DEEP, [{"a": {"x": 1}}, {"a": 2}], {"a": 2}),
        (Merge.LIST, [{"a": 1, "b": 0}, {"a": 2}, {"a": 1, "c": 3}], {"a": [1, 2, 1], "b": 0, "c": 3}),
        (Merge.LIST, [{"a": [1]}, {"a": [1]}], {"a": [1]}),
        (Merge.LIST, [{"a": [1]}, {"a": [2]}], {"a": [[1], [2]]}),
    ],
)
def test_merges(merge: Merge, data: list, expected: dict) -> None:
    assert merged(merge, *data) == expected


def test_a_conflict_names_the_key_the_tokens_and_the_places() -> None:
    with pytest.raises(
        MergeConflict, match=r"tokens 1 and 3 of p1 and p3 have different values of data\.a; .* or `data:`"
    ):
        merged(Merge.REFUSE, {"a": 1}, {"b": 1}, {"a": True})
    with pytest.raises(MergeConflict, match=r"tokens 1 and 2 in p have"):
        merge_inputs([token(1, "p", {"a": 1}), token(2, "p", {"a": 2})], Merge.REFUSE)


def test_objects_without_end_are_not_merged_deeply() -> None:
    one: dict = {}
    other: dict = {}
    for _ in range(MAX_DEPTH + 2):
        one, other = {"a": one}, {"a": other}
    with pytest.raises(MergeConflict, match="nested deeper"):
        merged(Merge.DEEP, one, other)


VALUES = st.recursive(
    st.integers(0, 2), lambda inner: st.dictionaries(st.sampled_from("ab"), inner, max_size=2), max_leaves=4
)
DATA = st.lists(st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3), min_size=2, max_size=3)


@settings(max_examples=60, deadline=None, database=None)
@given(DATA)
def test_no_merge_loses_a_key_and_all_agree_where_nothing_conflicts(data: list[dict[str, Any]]) -> None:
    keys = {key for one in data for key in one}
    last, deep, listed = (merged(merge, *data) for merge in (Merge.LAST, Merge.DEEP, Merge.LIST))
    assert set(last) == set(deep) == set(listed) == keys
    try:
        refused = merged(Merge.REFUSE, *data)
    except MergeConflict:
        clashing = [key for key in keys if listed[key] != last[key]]
        assert clashing
        for key in clashing:
            assert listed[key] == [one[key] for one in data if key in one], "nothing is lost"
        return
    assert refused == last == deep == listed
