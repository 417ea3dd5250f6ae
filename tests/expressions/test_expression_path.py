"""Dotted paths: reading never raises, writing never changes what is shared."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuit.expressions.path import MAX_SEGMENTS, MISSING, Path, assign

EXAMPLES = settings(max_examples=60, deadline=None, database=None)
KEYS = st.sampled_from(["a", "b", "c_1", "d-e", "0", "1"])
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=6,
)
ROOTS = st.dictionaries(KEYS, VALUES, max_size=3)
PATHS = st.lists(KEYS, min_size=1, max_size=4).map(lambda segments: Path.parse(".".join(segments)))
DATA = {"content": "x", "items": [{"name": "first"}, [1, 2]], "null": None, "0": "zero", "größe": 7, "no": False}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("content", "x"),
        ("items.0.name", "first"),
        ("items.1.1", 2),
        ("null", None),
        ("0", "zero"),
        ("größe", 7),
        ("no", False),
        ("items.2", MISSING),
        ("items.name", MISSING),
        ("content.length", MISSING),
        ("null.x", MISSING),
        ("content.0", MISSING),
        ("absent.deeper", MISSING),
    ],
)
def test_get(text: str, expected: object) -> None:
    assert Path.parse(text).get(DATA) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        (".", "empty segment"),
        ("a..b", "empty segment"),
        ("a.", "empty segment"),
        ("a b", "neither a name"),
        ("a[0]", r"items\.0"),
        ("-a", "neither a name"),
        ("a.\x00", "neither a name"),
        ("a\n", "neither a name"),
        ("1e5", "neither a name"),
        ("items.00", "neither a name"),
        ("a.9999999999", "neither a name"),
        (".".join(["a"] * (MAX_SEGMENTS + 1)), "segments"),
    ],
)
def test_a_path_that_is_none_says_why(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Path.parse(text)


def test_missing_is_not_null_and_not_true() -> None:
    assert MISSING is not None and not MISSING and repr(MISSING) == "MISSING"


@pytest.mark.parametrize(
    ("root", "text", "expected"),
    [
        ({}, "a.b.c", {"a": {"b": {"c": 1}}}),
        ({"a": {"x": 0}}, "a.b", {"a": {"x": 0, "b": 1}}),
        ({"a": None}, "a.b", {"a": {"b": 1}}),
        ({"a": [1, 2]}, "a.1", {"a": [1, 1]}),
        ({"a": [1]}, "a.1", {"a": [1, 1]}),
        ({"a": [{}]}, "a.0.b", {"a": [{"b": 1}]}),
        ({}, "a.0", {"a": {"0": 1}}),
    ],
)
def test_assign(root: dict, text: str, expected: dict) -> None:
    assert assign(root, Path.parse(text), 1) == expected


@pytest.mark.parametrize(
    ("root", "text", "says"),
    [
        ({"a": "text"}, "a.b", "a is a string"),
        ({"a": {"b": 3}}, "a.b.c", r"a\.b is a number"),
        ({"a": True}, "a.b", "a boolean"),
        ({"a": [1]}, "a.b", "not an index of a list of 1"),
        ({"a": [1]}, "a.2", "not an index of a list of 1"),
    ],
)
def test_assign_through_what_is_no_object_is_refused(root: dict, text: str, says: str) -> None:
    before = copy.deepcopy(root)
    with pytest.raises(ValueError, match=says):
        assign(root, Path.parse(text), 1)
    assert root == before


@EXAMPLES
@given(ROOTS, PATHS, VALUES)
def test_what_is_assigned_is_found_and_nothing_else_changes(root: dict, path: Path, value: object) -> None:
    before = copy.deepcopy(root)
    try:
        after = assign(root, path, value)
    except ValueError:
        assert path.get(root) is MISSING
        return
    finally:
        assert root == before, "the original stays as it was"
    assert path.get(after) == value
    head = path.segments[0]
    assert {key: after[key] for key in after if key != head} == {key: root[key] for key in root if key != head}
    assert all(after[key] is root[key] for key in root if key != head), "what is not touched is shared, not copied"


@EXAMPLES
@given(st.text(max_size=12))
def test_any_text_is_a_path_or_a_value_error(text: str) -> None:
    try:
        path = Path.parse(text)
    except ValueError:
        return
    assert str(path) == text
    path.get(DATA)
