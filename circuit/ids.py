"""How things are named: a case by a UUIDv7, everything inside a case by `case.number`.

The time in a UUIDv7 (RFC 9562, section 5.7) makes the id of a case sort by birth, which is what the
weekly partitions of the big tables rest on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import orjson

DEFAULT_TENANT = 1
DEPLOYMENT = 0
"""Stands for no tenant, or for all of them together."""


@lru_cache(maxsize=16_384)
def text_of(case: UUID) -> str:
    """The id of a case as it is written. Python spells a UUID slowly, and a firing names its case many times."""
    return str(case)


class CaseKey(NamedTuple):
    """The key of one case: every key of case data starts with these two."""

    tenant: int
    case: UUID

    def __str__(self) -> str:
        return text_of(self.case)


class Numbered(NamedTuple):
    """A thing inside a case: a token or an execution, written `CASE.NUMBER`."""

    case: UUID
    number: int

    def __str__(self) -> str:
        return f"{text_of(self.case)}.{self.number}"


class IdSource(Protocol):
    """Makes the ids of new things. The system's source is built in `circuit.app`."""

    def uuid(self) -> UUID:
        """A new UUIDv7."""
        ...


def uuid7(milliseconds: int, random_bits: int) -> UUID:
    """A UUIDv7 from Unix `milliseconds` and 74 random bits."""
    value = (milliseconds & (1 << 48) - 1) << 80
    value |= 0x7 << 76
    value |= (random_bits >> 62 & 0xFFF) << 64
    value |= 0b10 << 62
    value |= random_bits & (1 << 62) - 1
    return UUID(int=value)


def first_uuid7_at(instant: datetime) -> UUID:
    """The least UUIDv7 that an instant can give: a bound between two partitions."""
    milliseconds = int(instant.astimezone(UTC).timestamp() * 1000)
    return UUID(int=(milliseconds & (1 << 48) - 1) << 80)


def idempotency_key(execution_id: str, name: str, arguments: Any, occurrence: int = 0) -> str:
    """The key by which others know that they were asked for the same: a hash of the firing, of what it calls, of the
    arguments (JSON, whatever the order of its keys) and of how many equal calls came before within the firing."""
    named = [execution_id, name, _canonical(arguments), occurrence]
    return hashlib.sha256(orjson.dumps(named, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _canonical(value: Any) -> Any:
    """JSON in which numbers that are equal are written alike, for the database reads back 1e2 as 100."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _canonical(item) for name, item in value.items()}
    return [_canonical(item) for item in value] if isinstance(value, list | tuple) else value


def parse_case_id(text: str) -> UUID | None:
    """The case id in `text`, or None if it is none."""
    try:
        return UUID(text)
    except ValueError:
        return None


def parse_numbered(text: str) -> Numbered | None:
    """The `CASE.NUMBER` in `text`, or None if it is none."""
    case, dot, number = text.partition(".")
    parsed = parse_case_id(case)
    if parsed is None or not dot or not number.isascii() or not number.isdigit() or len(number) > 9:
        return None
    return Numbered(parsed, int(number))
