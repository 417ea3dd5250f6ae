"""Other values for the data and metadata of tokens, named one by one or by their place. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from circuit.errors import InvalidRequest
from circuit.net.marking import Token

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class TokenChange:
    """A value for the dotted path `path` (`data.NAME`, `metadata.NAME`) of one token, by its number, or of those of a
    place; where neither is named, of the only token that there is."""

    path: str
    value: Any
    token: int | None = None
    place: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """As commands carry it."""
        return {"path": self.path, "value": self.value, "token": self.token, "place": self.place}


def by_token(tokens: Mapping[int, Token], changes: Sequence[TokenChange]) -> dict[int, dict[str, Any]]:
    """What `changes` set in each of `tokens` (by number), by path. Raises `InvalidRequest` where one means none."""
    found: dict[int, dict[str, Any]] = {}
    for change in changes:
        if change.token is not None:
            meant = [number for number in tokens if number == change.token]
            which = f"no token {change.token} is there"
        elif change.place is not None:
            meant = [token.number for token in tokens.values() if token.place == change.place]
            which = f"no token lies in {change.place!r}"
        else:
            meant = list(tokens) if len(tokens) == 1 else []
            which = f"{len(tokens)} tokens are there: name one, or its place"
        if not meant:
            listed = ", ".join(f"{token.number} in {token.place}" for token in list(tokens.values())[:_SHOWN])
            raise InvalidRequest(f"{change.path!r} cannot be set, for {which}; the tokens are {listed or 'none'}")
        for number in meant:
            found.setdefault(number, {})[change.path] = change.value
    return found
