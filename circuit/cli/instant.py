"""Instants as people give them to commands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from circuit.definition.field import seconds
from circuit.errors import InvalidRequest

SinceOption = Annotated[
    str | None, typer.Option("--since", help="Only from then on: how long ago (7d, 12h), or an instant (ISO 8601).")
]
UntilOption = Annotated[str | None, typer.Option("--until", help="Only before then: as --since.")]


def instant_of(text: str | None, option: str) -> datetime | None:
    """The instant that `text` names: how long ago, or when (a date alone is its midnight in UTC). Raises
    `InvalidRequest`."""
    if text is None:
        return None
    try:
        if "T" in text or text.count("-") == 2:
            at = datetime.fromisoformat(text)
            return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        return datetime.now(UTC) - timedelta(seconds=seconds(text.strip()))
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"{option} is how long ago (7d, 12h) or an instant (2026-01-31T12:00:00Z), not {text!r}"
        ) from None
