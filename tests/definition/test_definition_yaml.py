"""Reading YAML: what is not a workflow file at all, and what YAML's own rules make of values."""

from __future__ import annotations

import json
import time

import pytest
from faulty import expect, faults_of, workflow

from circuit.definition import load, load_workflow
from circuit.definition.document import ALIASES
from circuit.definition.loader import MAX_BYTES, parse


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("", 1, 1, "the file is empty"),
        ("# nothing but a comment\n", 1, 1, "the file is empty"),
        ("---\n", 1, 1, "the file is empty"),
        ("[workflow, x]", 1, 1, "not a list"),
        ("just text", 1, 1, "not a single value"),
        ("workflow: x\n---\nworkflow: y\n", 2, 1, "several documents"),
        ("workflow: x\nplaces:\n\ta: {}\n", 3, 1, "a tab cannot indent YAML"),
        ("workflow: x\nplaces: [a, b\ntransitions: {}\n", 3, 12, "this is not YAML"),
        ("workflow: 'x\n", 2, 1, "this is not YAML"),
        ("workflow: x: y\n", 1, 12, "`: ` cannot stand here"),
        ("workflow: @x\n", 1, 11, "text cannot begin with '@'"),
        ("workflow: *x\n", 1, 11, "no anchor &x"),
        ("workflow: x\nplaces: &p [*p]\n", 2, 13, "stands inside of what it names"),
        ("workflow: x\nname: a\0b\n", 2, 8, "control character NUL"),
        ("workflow: x\nname: \x1b[31m\n", 2, 7, "control character U+001B"),
    ],
)
def test_what_is_no_document_has_one_fault_where_it_lies(text: str, line: int, column: int, message: str) -> None:
    (fault,) = faults_of(text)
    assert (fault.line, fault.column) == (line, column), fault
    assert message in fault.message
    assert fault.hint


def test_a_text_that_is_too_long_is_refused_before_it_is_parsed() -> None:
    (fault,) = faults_of("workflow: x\n#" + "é" * (MAX_BYTES // 2))
    assert "larger than 1,048,576 bytes" in fault.message


@pytest.mark.parametrize("text", ["[" * 200_000, "{a: " * 200_000, "- " * 200_000, "a: " + "[" * 101])
def test_deep_nesting_is_refused_quickly(text: str) -> None:
    before = time.process_time()
    (fault,) = faults_of(text)
    assert "nested more than 100 levels" in fault.message
    assert time.process_time() - before < 5


def test_aliases_cannot_blow_the_file_up() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    (fault,) = faults_of("\n".join(lines))
    assert "more than 100,000 values" in fault.message
    assert fault.line == 5


def test_aliases_cannot_nest_deeper_than_what_is_written() -> None:
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 120)]
    (fault,) = faults_of("\n".join(lines))
    assert "nested more than 100 levels" in fault.message


def test_a_large_file_of_few_values_is_read_quickly() -> None:
    text = workflow(top="description: |\n" + "  a line of text that is of no interest at all\n" * 3000)
    before = time.process_time()
    assert load_workflow(text).id == "small"
    assert time.process_time() - before < 5


def test_anchors_and_aliases_stand_for_their_values() -> None:
    text = workflow(places="more: &more {description: A place.}\nother: *more")
    assert load(text).plain["places"]["other"] == {"description": "A place."}


def test_a_fault_in_an_aliased_value_shows_where_the_value_is_written() -> None:
    text = workflow(places="more: &more {«capacty: 3}\nother: *more")
    faults = faults_of(text.replace("«", ""))
    assert {fault.path for fault in faults} == {"places.more.capacty", "places.other.capacty"}
    assert {fault.line for fault in faults} == {6}


def test_a_key_that_stands_twice_is_a_fault_at_its_second_place() -> None:
    expect(
        workflow(
            transitions="stop: {from_places: [start], to_place: end}\n«stop: {from_places: [start], to_place: end}"
        ),
        "transitions.stop: the key 'stop' stands twice; first in line 17",
    )


def test_only_true_and_false_are_booleans_and_dates_are_text() -> None:
    labels = "labels: {a: on, b: yes, c: No, d: 2024-01-31, e: 12:30:45, f: 'true', g: True, h: 1_000}"
    plain = load(workflow(top=labels)).plain
    assert plain["labels"] == {
        "a": "on",
        "b": "yes",
        "c": "No",
        "d": "2024-01-31",
        "e": "12:30:45",
        "f": "true",
        "g": "True",
        "h": "1_000",
    }


def test_numbers_are_those_of_the_core_schema() -> None:
    values = "{a: 010, b: 0x1F, c: 0o17, d: 1e3, e: -.5, f: +7, g: 1., h: ~, i: null, j: Null, k: '', l: !!str 7}"
    tree, faults = parse(f"v: {values}", "f", ALIASES)
    assert not faults
    assert tree.root.value["v"] == {
        "a": 10,
        "b": 31,
        "c": 15,
        "d": 1000.0,
        "e": -0.5,
        "f": 7,
        "g": 1.0,
        "h": None,
        "i": None,
        "j": None,
        "k": "",
        "l": "7",
    }


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (".nan", "not a number that JSON can hold"),
        ("-.inf", "not a number that JSON can hold"),
        ("1e999", "not a number that JSON can hold"),
        ("123456789012345678901234567890", "too many digits"),
        ("99999999999999999999", "too many digits"),
        ("!!binary aGk=", "the tag !!binary is not allowed"),
        ("!secret x", "the tag !secret is not allowed"),
        ('"a\\0b"', "NUL"),
    ],
)
def test_values_that_json_or_postgres_cannot_hold_are_faults(value: str, message: str) -> None:
    expect(workflow(places=f"more: {{tokens: [{{data: {{x: «{value}}}}}]}}"), message)


def test_keys_must_be_text() -> None:
    expect(
        workflow(places="more: {tokens: [{data: {«1: a, «true: b, «[x]: c, «<<: d}}]}"),
        "a key must be text, not 1",
        "a key must be text, not true",
        "a key must be text, not a list",
        "merge keys (<<)",
    )


def test_json_is_yaml() -> None:
    document = load(workflow()).document.model_dump(exclude_unset=True, by_alias=True)
    document["name"] = "a \U0001f600 \\ud83d / \t tab"
    for text in (
        json.dumps(document),
        json.dumps(document, indent="\t"),
        json.dumps(document, ensure_ascii=False, separators=(",", ":")),
    ):
        assert load(text).plain["name"] == document["name"]


def test_positions_count_characters_not_bytes_and_all_line_ends() -> None:
    text = 'workflow: x\r\nname: "ééé 😀"\r\nplaces: {start: {initial: true, colour: Missing}}\r\ntransitions: {}\r\n'
    (fault,) = faults_of(text)
    assert (fault.line, fault.column) == (3, 41)
    (fault,) = faults_of('{"workflow": "x", "name": "é😀", "bogus": 1, "places": ["a"], "transitions": {}}')
    assert (fault.line, fault.column) == (1, 33)


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert load("\ufeff" + workflow()).plain["workflow"] == "small"
