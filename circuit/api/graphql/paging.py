"""Pages of lists: how many entries at a time, and behind which one.

Every list takes `first` and, as `after`, the id of the last entry that is known; entries come in an order that new
ones do not shift.
"""

from __future__ import annotations

from uuid import UUID

from circuit.errors import InvalidRequest
from circuit.ids import parse_numbered

DEFAULT_PAGE = 50
LARGEST_PAGE = 200
DEFAULT_PART = 100
LARGEST_PART = 1_000
"""Entries of a list inside an object: the tokens of a case, its events."""


def page(first: int) -> int:
    """`first`, for a list. Raises `InvalidRequest`."""
    if not 1 <= first <= LARGEST_PAGE:
        raise InvalidRequest(f"`first` is 1 to {LARGEST_PAGE}, not {first}; go on with `after`")
    return first


def part(first: int) -> int:
    """`first`, for a list inside an object. Raises `InvalidRequest`."""
    if not 1 <= first <= LARGEST_PART:
        raise InvalidRequest(f"`first` is 1 to {LARGEST_PART}, not {first}; go on with `after`")
    return first


def behind(after: int) -> int:
    """`after`, where it is a number. Raises `InvalidRequest`."""
    if after < 0:
        raise InvalidRequest("`after` is a number, 0 or more")
    return after


def behind_numbered(after: str | None) -> tuple[UUID, int] | None:
    """`after`, where it is an id like CASE.NUMBER. Raises `InvalidRequest`."""
    if after is None:
        return None
    found = parse_numbered(after)
    if found is None:
        raise InvalidRequest("`after` is the id of the last entry that is known, CASE.NUMBER")
    return found.case, found.number


def behind_name(after: str | None) -> tuple[str, str]:
    """`after`, where it is a `cursor` like WORKFLOW/NAME. Raises `InvalidRequest`."""
    if after is None:
        return "", ""
    workflow, slash, rest = after.rpartition("/")
    if not slash:
        raise InvalidRequest("`after` is the `cursor` of the last entry that is known")
    return workflow, rest
