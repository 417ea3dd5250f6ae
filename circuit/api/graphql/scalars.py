"""Instants and JSON, which many types have."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

import strawberry
from strawberry.scalars import JSON

from circuit.api.problems import timestamp
from circuit.errors import InvalidRequest

DateTime = strawberry.scalar(
    name="DateTime",
    description="An instant in UTC, as RFC 3339 writes it: `2026-11-21T12:00:00.000Z`.",
    serialize=timestamp,
    parse_value=datetime.fromisoformat,
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
