"""Whatever is done to a valid file, the answer is a workflow or faults at lines that the file has."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from circuit.definition import compile_document, load_workflow
from circuit.errors import DefinitionError

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
FILES = [*sorted((REPOSITORY / "workflows").glob("*.yaml")), HERE / "whole_format.yaml"]
TEXTS = [file.read_text() for file in FILES]
DOCUMENTS: list[Any] = []
PIECES = [
    "\t", "\n", " ", ":", ": ", "- ", "{", "}", "[", "]", "'", '"', "|", ">", "&a ", "*a", "#", "!!int ", "? ",
    "\0", "é", "😀", "\ud800", "\u2028", "\r", "null", "true", "1e999", ".nan", "---\n", "...", "%", "@", "<<: ",
    "data", "tokens.", "case.fired.", "${", "{x}", "$ref", "weight: 0", "mode: inhibit", "type: object", "places:",
]  # fmt: skip

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "data.x", "start", "tokens.a.data", "(", "{x}", "${A}", "1h", "object", "é" * 50])
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["place", "type", "weight", "data", "$ref", "properties", "path", "and", "not", "when", "x y"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


def _answer(text: str) -> None:
    try:
        made = load_workflow(text, "f")
    except DefinitionError as error:
        assert error.faults
        lines = text.count("\n") + text.count("\r") + 1
        for fault in error.faults:
            assert 1 <= fault.line <= lines, fault
            assert fault.column >= 1, fault
            assert fault.message, fault
            # The checks find whatever would keep the compiler from compiling.
            assert "cannot be compiled" not in fault.message, fault
    else:
        assert compile_document(json.loads(json.dumps(made.document))).hash == made.hash


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_change_of_the_text(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(TEXTS))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        remove = data.draw(st.integers(0, 12))
        text = text[:at] + data.draw(st.sampled_from(PIECES) | st.just("")) + text[at + remove :]
    _answer(text)


def _spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        for key, item in value.items():
            found += _spots(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += _spots(item, (*path, index))
    return found


def _documents() -> list[Any]:
    if not DOCUMENTS:
        import yaml

        DOCUMENTS.extend(json.loads(json.dumps(yaml.safe_load(text))) for text in TEXTS)
    return DOCUMENTS


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_change_of_a_value(data: st.DataObject) -> None:
    document = copy.deepcopy(data.draw(st.sampled_from(range(len(TEXTS))).map(lambda index: _documents()[index])))
    for _ in range(data.draw(st.integers(1, 4))):
        spots = [path for path in _spots(document) if path]
        if not spots:
            break
        path = data.draw(st.sampled_from(spots))
        container = document
        for segment in path[:-1]:
            container = container[segment]
        change = data.draw(st.sampled_from(["replace", "remove", "rename", "add"]))
        if change == "replace":
            container[path[-1]] = data.draw(VALUES)
        elif change == "remove":
            del container[path[-1]]
        elif isinstance(container, dict):
            name = data.draw(st.sampled_from(["x", "place", "form", "data.x", "weight", "$ref", "", "a b"]))
            container[name] = container.pop(path[-1]) if change == "rename" else data.draw(VALUES)
        else:
            container.append(data.draw(VALUES))
    _answer(json.dumps(document, ensure_ascii=data.draw(st.booleans())))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200) | st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_any_text(text: str) -> None:
    _answer(text)
