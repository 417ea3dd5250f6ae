"""What may be stored: JSON that Postgres takes and that reads back as the same values.

`jsonb` takes no NUL, UTF-8 has no lone surrogates, and JSON has no infinity. What comes from outside (a caller's
token, an action's output) is looked at here once, so that no write of a case can fail on its content.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

import orjson

MOST_DEEP = 100
"""How many objects and lists may lie in one another. An event wraps what it carries in a few more, and the encoder
takes 254 in all."""
PAYLOAD_LIMIT = 4 * 1024 * 1024
"""How many bytes of JSON a token, an output, a journal entry or a command may have."""

_OPTIONS = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
_MAX_NAMED = 10


class PayloadFault(ValueError):
    """A value that cannot be stored. `faults` says each place and what is wrong there."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class PayloadOversize(ValueError):
    """A value whose JSON has more bytes than it may have."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"it has {size} bytes of JSON; at most {limit} are taken")
        self.size = size
        self.limit = limit


def storable(value: Any, limit: int = PAYLOAD_LIMIT) -> Any:
    """`value` as it will read back from the database (plain dict, list, str, int, float, bool and None).

    Raises `PayloadFault` where it is not JSON that can be stored, `PayloadOversize` where it is too large.
    """
    try:
        encoded = orjson.dumps(value, option=_OPTIONS)
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadFault(tuple(_first(value)) or (_sentence(error),)) from None
    size = len(encoded)
    if size > limit:
        del encoded  # what is raised may be kept for long, with all that this frame holds
        raise PayloadOversize(size, limit)
    # orjson writes a number that is not finite as null, and NUL as an escape: only then is a closer look needed.
    if b"null" in encoded or b"\\u0000" in encoded:
        faults = tuple(_first(value))
        if faults:
            raise PayloadFault(faults)
    decoded = orjson.loads(encoded)
    # What holds so few brackets in all cannot be nested so deep.
    if encoded.count(b"[") + encoded.count(b"{") > MOST_DEEP and _too_deep(decoded):
        raise PayloadFault((f"the value is nested more than {MOST_DEEP} deep",))
    return decoded


def storable_text(text: str) -> bool:
    """Whether `text` can be stored: no NUL and no lone surrogate."""
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _too_deep(value: Any) -> bool:
    """Whether more than `MOST_DEEP` objects and lists lie in one another in plain JSON, looked at level by level."""
    level: list[Any] = [value] if isinstance(value, dict | list) else []
    for _ in range(MOST_DEEP):
        if not level:
            return False
        level = [
            inner
            for item in level
            for inner in (item.values() if isinstance(item, dict) else item)
            if isinstance(inner, dict | list)
        ]
    return bool(level)


def _first(value: Any) -> Iterator[str]:
    """The first faults of `value`, without recursion, so that no nesting is too deep to be looked at."""
    found = 0
    pending: list[tuple[str, Any, int]] = [("", value, 0)]
    while pending and found < _MAX_NAMED:
        path, item, depth = pending.pop()
        fault = _fault(item)
        if fault is None and depth > MOST_DEEP:
            fault = f"is nested more than {MOST_DEEP} deep"
        if fault is not None:
            found += 1
            yield f"{path or 'the value'} {fault}"
            continue
        if isinstance(item, Mapping):
            for key, inner in cast("Mapping[Any, Any]", item).items():
                if not isinstance(key, str) or not storable_text(key):
                    found += 1
                    yield f"{path or 'the value'} has a key that is not text which can be stored: {key!r:.80}"
                    continue
                pending.append((f"{path}.{key}" if path else key, inner, depth + 1))
        elif isinstance(item, list | tuple):
            for index, inner in enumerate(cast("list[Any]", item)):
                pending.append((f"{path}[{index}]", inner, depth + 1))


def _fault(item: Any) -> str | None:
    if item is None or isinstance(item, bool | Mapping | list | tuple):
        return None
    if isinstance(item, str):
        return None if storable_text(item) else "holds a NUL or a lone surrogate, which cannot be stored"
    if isinstance(item, int):
        return None if -(2**63) <= item < 2**64 else "is an integer of more than 64 bits"
    if isinstance(item, float):
        return None if math.isfinite(item) else "is not a finite number"
    return f"is of the type {type(item).__name__}, which is not JSON"


def _sentence(error: BaseException) -> str:
    return f"the value is not JSON: {error}"
