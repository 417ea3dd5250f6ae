"""How things are named: a case by a UUIDv7, everything inside a case by `case.number`.

The time in a UUIDv7 (RFC 9562, section 5.7) makes the id of a case sort by birth, which is what the
weekly partitions of the big tables rest on.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple, Protocol
from uuid import UUID

DEFAULT_TENANT = 1


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
