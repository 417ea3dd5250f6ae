"""References to the environment, and text without secrets."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit.security.redaction import excerpt, redact
from circuit.security.secrets import UnresolvedReference, references, resolve


def test_references_are_resolved_once() -> None:
    environment = {"A": "${B}", "B": "x", "LINE": " key\n"}
    assert resolve("Bearer ${A}-${B}${B} $A {B} ${} ${1} ${LINE}", environment) == "Bearer ${B}-xx $A {B} ${} ${1} key"
    assert references("${B} ${A} ${B} $C") == ("B", "A")


def test_all_missing_names_are_said_and_no_values() -> None:
    with pytest.raises(UnresolvedReference) as caught:
        resolve("${A} ${SET} ${B}", {"SET": "secret-value", "B": "  "})
    assert caught.value.names == ("A", "B")
    assert "secret-value" not in str(caught.value)


@given(
    secret=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<>*"), min_size=4, max_size=20),
    around=st.text("<>", max_size=5),
)
def test_no_form_of_a_secret_is_left(secret: str, around: str) -> None:
    for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1]):
        shown = redact(f"{around}<{form}>{around}", [secret])
        assert shown == f"{around}<***>{around}"


def test_the_longer_secret_goes_first() -> None:
    assert redact("abcdefgh abcd", ["abcd", "abcdefgh"]) == "*** ***"


def test_short_values_are_no_secrets() -> None:
    assert redact("a 1 b", ["", "1", "a"]) == "a 1 b"


@pytest.mark.parametrize("text", ["sk-proj-abc***xyz9", "Bearer abcdef.ghijk.9", "bearer  abcdefgh=="])
def test_what_looks_like_a_key_is_masked(text: str) -> None:
    assert redact(f"bad key: {text} (see docs)", []) == "bad key: *** (see docs)"


def test_ordinary_words_stay() -> None:
    text = "The risk-averse task-force is a bearer of news; bearer certificates."
    assert redact(text, []) == text


def test_excerpts_are_one_short_line() -> None:
    assert excerpt(" a\n\tb\0c\x1b[31m ", 50) == "a b c [31m"
    assert excerpt("x" * 100, 10) == "x" * 9 + "…"
