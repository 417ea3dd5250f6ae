from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit.errors import InvalidCursor
from circuit.streams.cursor import BEGINNING, Cursor


@given(st.integers(1, 999_999_999), st.integers(1, 999_999_999))
def test_a_cursor_reads_back(start: int, sequence: int) -> None:
    assert Cursor.parse(str(Cursor(start, sequence))) == Cursor(start, sequence)


@given(st.tuples(st.integers(1, 50), st.integers(1, 50)), st.tuples(st.integers(1, 50), st.integers(1, 50)))
def test_cursors_compare_in_the_order_of_the_stream(one: tuple[int, int], other: tuple[int, int]) -> None:
    assert (Cursor(*one) < Cursor(*other)) == (one < other)
    assert Cursor(*one) > BEGINNING


@pytest.mark.parametrize(
    "text",
    ["", "1", "1-", "-1", "1-0", "0-1", "01-1", "1-01", "1-1 ", " 1-1", "1-1\n", "1_0-1", "a-b", "1-2-3", "+1-1",
     "١-١", "1-1\0", "1000000000-1", "1-99999999999999999999", "1" * 100_000],
)  # fmt: skip
def test_what_is_no_cursor_is_refused_in_few_words(text: str) -> None:
    with pytest.raises(InvalidCursor) as caught:
        Cursor.parse(text)
    assert len(caught.value.message) < 200
