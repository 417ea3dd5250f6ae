"""How often Python looks for garbage: less often in a worker's process, never more often than its owner chose."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from circuit import collector


@pytest.fixture(autouse=True)
def _thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [((700, 10, 10), (collector.YOUNG, 10, 10)), ((0, 10, 10), (0, 10, 10)), ((90_000, 5, 5), (90_000, 5, 5))],
)
def test_python_looks_less_often_and_never_more_often_than_before(
    chosen: tuple[int, int, int], expected: tuple[int, int, int]
) -> None:
    gc.set_threshold(*chosen)
    collector.relax()
    assert gc.get_threshold() == expected
