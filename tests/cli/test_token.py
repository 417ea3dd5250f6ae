"""The token of a new case: what the options may hold, and what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from circuit.cli.token import TOKEN_LIMIT, TokenParts, parse_object, token_parts
from circuit.errors import InvalidRequest, PayloadTooLarge


def parts(
    token: str | None = None, file: Path | None = None, assignments: list[str] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    found = token_parts(token, file, assignments or [])
    assert found is not None
    return found.data, found.metadata


def test_no_option_gives_no_token() -> None:
    assert token_parts(None, None, []) is None


def test_an_object_with_data_or_metadata_is_the_token() -> None:
    assert parts('{"data": {"a": 1}, "metadata": {"b": 2}}') == ({"a": 1}, {"b": 2})
    assert parts('{"metadata": {"b": 2}}') == ({}, {"b": 2})


def test_another_object_is_the_data() -> None:
    assert parts('{"a": {"data": 1}}') == ({"a": {"data": 1}}, {})


def test_a_text_file_is_the_content(tmp_path: Path) -> None:
    file = tmp_path / "article.md"
    file.write_text("# Heat\n\nPumps.\n", encoding="utf-8")
    assert parts(file=file) == ({"content": "# Heat\n\nPumps.\n"}, {})


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path) -> None:
    file = tmp_path / "article.txt"
    file.write_bytes(b"\xef\xbb\xbfhello")
    assert parts(file=file) == ({"content": "hello"}, {})


def test_a_json_file_is_read_like_the_option(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text('{"data": {"a": 1}}')
    assert parts(file=file) == ({"a": 1}, {})


def test_values_are_json_else_text() -> None:
    assert parts(assignments=["data.n=3", "data.t=three", "data.l=[1]", "metadata.urgent=true", "data.e="]) == (
        {"n": 3, "t": "three", "l": [1], "e": ""},
        {"urgent": True},
    )


def test_assignments_change_the_token_that_was_given() -> None:
    assert parts('{"a": {"b": 1}}', assignments=["data.a.c=2"]) == ({"a": {"b": 1, "c": 2}}, {})
    assert parts(assignments=["data.t=a=b"]) == ({"t": "a=b"}, {})


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ('{"a": 1', r"--token is not JSON: .* at line 1, column 8"),
        ("nonsense", "--token is not JSON"),
        ("[1]", "must be a JSON object; it is an array"),
        ('"text"', "it is a string"),
        ("null", "it is null"),
        ('{"data": 1}', "'data' must be a JSON object; it is a number"),
        ('{"data": {}, "metadata": []}', "'metadata' must be a JSON object; it is an array"),
        ('{"data": {}, "x": 1}', "has the key 'x' beside 'data' or 'metadata'"),
        ('{"a": ["b", {"c": "x\\u0000y"}]}', r"NUL character at 'data\.a\.1\.c'"),
        ('{"a\\u0000b": 1}', "NUL character in a key"),
        ('{"a": NaN}', "--token is not JSON"),
    ],
)
def test_what_is_no_token_is_refused(token: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        token_parts(token, None, [])


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("x=1", r"write --set data\.x=VALUE"),
        ("data=1", r"write --set data\.NAME=VALUE"),
        ("=1", r"write --set data\.NAME=VALUE"),
        ("data.x", "has no '='"),
        ("data.a..b=1", "data.a..b"),
        ("data.x=\0", "NUL"),
    ],
)
def test_an_assignment_to_nowhere_is_refused(assignment: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        token_parts(None, None, [assignment])


def test_an_assignment_through_something_else_than_an_object_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"data\.a\.b"):
        token_parts('{"a": 1}', None, ["data.a.b=2"])


def test_a_large_file_is_refused_by_its_size_and_not_read(tmp_path: Path) -> None:
    file = tmp_path / "large"
    with file.open("wb") as opened:
        opened.truncate(50 * 1024 * 1024)
    with pytest.raises(PayloadTooLarge, match=r"52,428,800 bytes long; 4,194,304 bytes \(4 MiB\)"):
        token_parts(None, file, [])


def test_a_large_token_is_refused() -> None:
    with pytest.raises(PayloadTooLarge):
        token_parts('{"a": "' + "x" * TOKEN_LIMIT + '"}', None, [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG\r\n\x1a\n", "is not UTF-8 text: byte 0 is 0x89"),
        (b"abc\xff", "byte 3 is 0xff"),
        (b"abc\x00def", "NUL character at offset 3"),
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(InvalidRequest, match=message):
        token_parts(None, file, [])


def test_a_file_that_is_called_json_must_be_json(tmp_path: Path) -> None:
    file = tmp_path / "token.json"
    file.write_text('{"a": 1,\n "b" 2}')
    with pytest.raises(InvalidRequest, match=r"is not JSON: .* at line 2"):
        token_parts(None, file, [])


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"nowhere\.json' does not exist"):
        token_parts(None, tmp_path / "nowhere.json", [])
    with pytest.raises(InvalidRequest, match="is a directory"):
        token_parts(None, tmp_path, [])


def test_two_tokens_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="exclude each other"):
        token_parts("{}", tmp_path / "file", [])


def test_a_form_is_an_object() -> None:
    assert parse_object('{"a": 1}', "--form") == {"a": 1}
    with pytest.raises(InvalidRequest, match="--form must be a JSON object; it is a number"):
        parse_object("1", "--form")
    with pytest.raises(InvalidRequest, match="--form is not JSON"):
        parse_object("{", "--form")


def test_the_parts_start_empty() -> None:
    assert TokenParts() == TokenParts({}, {})
