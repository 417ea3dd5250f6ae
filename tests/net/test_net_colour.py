"""Colours: JSON Schemas that say what does not fit, show no data, and fetch nothing."""

from __future__ import annotations

import pytest

from circuit.net.colour import MAX_FAULTS, Colour

DOCUMENT = Colour(
    "Document",
    {
        "type": "object",
        "required": ["content"],
        "properties": {
            "content": {"type": "string", "maxLength": 10},
            "tags": {"type": "array", "items": {"type": "string"}},
            "at": {"type": "string", "format": "date-time"},
        },
    },
)


def test_what_fits_has_no_faults() -> None:
    data = {"content": "short", "tags": ["a"], "at": "2026-01-02T03:04:05Z", "more": None}
    assert DOCUMENT.accepts(data) and DOCUMENT.faults(data) == ()


def test_every_fault_is_told_with_its_path_and_without_the_data() -> None:
    data = {"content": "a secret text", "tags": ["a", 1], "at": "noon"}
    assert not DOCUMENT.accepts(data)
    faults = DOCUMENT.faults(data)
    assert sorted(fault.split(": ")[0] for fault in faults) == ["at", "content", "tags.1"]
    assert "secret" not in str(faults) and "noon" not in str(faults)
    (missing,) = DOCUMENT.faults({})
    assert '"content" is a required property' in missing


def test_faults_are_bounded_in_number_and_length() -> None:
    faults = DOCUMENT.faults({"content": "", "tags": list(range(1000))})
    assert len(faults) == MAX_FAULTS
    closed = Colour("Closed", {"additionalProperties": False})
    assert all(len(fault) <= 320 for fault in closed.faults({f"k{n}": 1 for n in range(1000)}))


@pytest.mark.parametrize("data", [{"content": "\ud800"}, {1: 2}, {"content": "x", "y": object()}])
def test_what_is_no_json_is_a_fault_and_not_an_exception(data: dict) -> None:
    colour = Colour("Any", {"required": ["content"], "additionalProperties": {"type": "string", "pattern": "^x"}})
    assert not colour.accepts(data) and colour.faults(data)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objct"},
        {"pattern": "("},
        {"minimum": "a"},
        {"$ref": "#/nowhere"},
        {"$ref": "https://example.com/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"$schema": "https://example.com/mine"},
        {"required": "content"},
        {1: 2},
    ],
)
def test_what_is_no_schema_is_refused_and_nothing_is_fetched(schema: dict) -> None:
    with pytest.raises(ValueError) as caught:
        Colour("Bad", schema)
    assert str(caught.value) and "\n" not in str(caught.value)


def test_colours_are_compared_by_name_and_schema() -> None:
    assert Colour("A", {"type": "object"}) == Colour("A", {"type": "object"})
    assert Colour("A", {}) != Colour("B", {}) and hash(Colour("A", {})) == hash(Colour("A", {}))
    assert repr(DOCUMENT) == "Colour('Document')"
