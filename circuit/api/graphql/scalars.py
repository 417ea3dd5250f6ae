"""Instants and JSON, which many types have."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

import strawberry
from strawberry.scalars import JSON

from circuit.api.problems import timestamp
from circuit.errors import InvalidRequest

FIRST_YEAR, LAST_YEAR = 1900, 9998
"""What is compared with instants lies between these years, in every time zone."""


def instant(value: Any) -> datetime:
    """An instant that somebody sent; without an offset it is one in UTC. Raises `InvalidRequest`."""
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise InvalidRequest("a time is a text like 2026-11-21T12:00:00Z") from None
    if not FIRST_YEAR <= at.year <= LAST_YEAR:
        raise InvalidRequest(f"a time lies between the years {FIRST_YEAR} and {LAST_YEAR}")
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


DateTime = strawberry.scalar(
    name="DateTime",
    description="An instant in UTC, as RFC 3339 writes it: `2026-11-21T12:00:00.000Z`.",
    serialize=timestamp,
    parse_value=instant,
)


def as_json(value: Any) -> JSON:
    """`value`, for a field of any JSON."""
    return cast("JSON", value)


def as_object(value: Any, name: str) -> Mapping[str, Any]:
    """A JSON object that somebody sent; nothing is an empty one. Raises `InvalidRequest`."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name} must be a JSON object, not {type(value).__name__}")
    return cast("dict[str, Any]", value)
