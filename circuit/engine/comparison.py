"""Two cases side by side: where their tokens lie, what these hold, what was spent, and which way each went. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import SequenceMatcher
from typing import Any, cast

from circuit.events import Origin
from circuit.ids import CaseKey
from circuit.net.marking import Token
from circuit.storage.records import CaseRow, ExecutionRow

MOST_COMPARED = 4_000_000
"""Where two paths differ, so many pairs of firings are compared at most; longer ones count as different throughout."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What the executions of a case took. `usd` is None where no price is known of any; `seconds` is from the start of
    the case to its end, or until now."""

    executions: int
    input_tokens: int
    output_tokens: int
    usd: float | None
    seconds: float

    @classmethod
    def of(cls, row: CaseRow, executions: Sequence[ExecutionRow], now: datetime) -> Cost:
        prices = [price for one in executions if (price := one.usage.get("cost_usd")) is not None]
        return cls(
            len(executions),
            sum(int(one.usage.get("input_tokens") or 0) for one in executions),
            sum(int(one.usage.get("output_tokens") or 0) for one in executions),
            round(sum(prices), 9) if prices else None,
            round(((row.finished_at or now) - row.started_at).total_seconds(), 3),
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            "executions": self.executions,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost_usd": self.usd,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two. `path` are the transitions that it fired, those of its `origin` first, where it is a fork."""

    key: CaseKey
    row: CaseRow
    origin: Origin | None
    tokens: Sequence[Token]
    path: Sequence[str]
    cost: Cost

    def as_dict(self) -> dict[str, Any]:
        origin = self.origin
        return {
            "case_id": str(self.key.case),
            "status": self.row.status.value,
            "workflow": self.row.workflow_id,
            "workflow_hash": self.row.workflow_hash,
            "fork_of": None if origin is None else {"case_id": origin.case_id, "seq": origin.seq},
            "marking": dict(Counter(token.place for token in self.tokens)),
            "firings": len(self.path),
            "cost": self.cost.as_dict(),
        }


@dataclass(frozen=True, slots=True)
class Value:
    """A value that differs: of which token (its number in each case, None where it is not there) and at which path.
    `missing` stands where there is none."""

    tokens: tuple[int | None, int | None]
    places: tuple[str | None, str | None]
    path: str
    first: Any
    second: Any

    def as_dict(self) -> dict[str, Any]:
        return {
            "tokens": list(self.tokens),
            "places": list(self.places),
            "path": self.path,
            "first": self.first,
            "second": self.second,
        }


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the two paths: what both fired (then both hold the same), or what each fired instead."""

    first: Sequence[str]
    second: Sequence[str]

    @property
    def same(self) -> bool:
        return self.first == self.second

    def as_dict(self) -> dict[str, Any]:
        return {"same": self.same, "first": list(self.first), "second": list(self.second)}


@dataclass(frozen=True, slots=True)
class Difference:
    """How two cases differ."""

    first: Side
    second: Side
    marking: Mapping[str, tuple[int, int]]
    values: Sequence[Value]
    path: Sequence[Stretch]

    @property
    def same(self) -> bool:
        """Whether they lie, hold and went the same; what they cost is not asked."""
        return not self.marking and not self.values and all(one.same for one in self.path)

    def as_dict(self) -> dict[str, Any]:
        return {
            "same": self.same,
            "first": self.first.as_dict(),
            "second": self.second.as_dict(),
            "marking": {place: list(counts) for place, counts in self.marking.items()},
            "values": [value.as_dict() for value in self.values],
            "path": [stretch.as_dict() for stretch in self.path],
        }


def compare(first: Side, second: Side) -> Difference:
    """What differs between two cases."""
    counts = [Counter(token.place for token in side.tokens) for side in (first, second)]
    places = sorted({*counts[0], *counts[1]})
    return Difference(
        first,
        second,
        {place: (counts[0][place], counts[1][place]) for place in places if counts[0][place] != counts[1][place]},
        _values(first, second),
        _paths(first.path, second.path),
    )


def _values(first: Side, second: Side) -> list[Value]:
    found: list[Value] = []
    for one, other in _pairs(first, second):
        told = (
            (one.number if one is not None else None, other.number if other is not None else None),
            (one.place if one is not None else None, other.place if other is not None else None),
        )
        parts = [_leaves(token) for token in (one, other)]
        for path in dict.fromkeys([*parts[0], *parts[1]]):
            values = [part.get(path) for part in parts]
            present = [path in part for part in parts]
            # 1 and true are equal to Python, and are not the same value.
            if present[0] != present[1] or values[0] != values[1] or type(values[0]) is not type(values[1]):
                found.append(Value(*told, path, *values))
    return found


def _pairs(first: Side, second: Side) -> list[tuple[Token | None, Token | None]]:
    """Tokens that stand for each other: of the same number where one case is a fork of the other or both are forks of
    one, else those that come at the same turn in a place."""
    if _family(first) & _family(second):
        keys = [{token.number: token for token in side.tokens} for side in (first, second)]
        return [(keys[0].get(number), keys[1].get(number)) for number in sorted({*keys[0], *keys[1]})]
    turns: list[dict[tuple[str, int], Token]] = []
    for side in (first, second):
        seen: Counter[str] = Counter()
        turn: dict[tuple[str, int], Token] = {}
        for token in sorted(side.tokens, key=lambda token: token.number):
            turn[token.place, seen[token.place]] = token
            seen[token.place] += 1
        turns.append(turn)
    return [(turns[0].get(key), turns[1].get(key)) for key in sorted({*turns[0], *turns[1]})]


def _family(side: Side) -> set[str]:
    return {str(side.key.case)} | ({side.origin.case_id} if side.origin is not None else set())


def _leaves(token: Token | None) -> dict[str, Any]:
    """The values of a token by their dotted paths; an object that is not empty is its members."""
    if token is None:
        return {}
    found: dict[str, Any] = {}
    pending: list[tuple[str, Any]] = [("metadata", token.metadata), ("data", token.data)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, Mapping) and (value or path in ("data", "metadata")):
            members = cast("Mapping[str, Any]", value)
            pending += [(f"{path}.{name}", member) for name, member in reversed(list(members.items()))]
        else:
            found[path] = value
    return found


def _paths(first: Sequence[str], second: Sequence[str]) -> list[Stretch]:
    start = 0
    while start < min(len(first), len(second)) and first[start] == second[start]:
        start += 1
    found = [Stretch(first[:start], second[:start])] if start else []
    rest = (first[start:], second[start:])
    if not rest[0] and not rest[1]:
        return found
    if len(rest[0]) * len(rest[1]) > MOST_COMPARED:
        return [*found, Stretch(*rest)]
    matched = SequenceMatcher(None, *rest, autojunk=False).get_opcodes()
    return [*found, *(Stretch(rest[0][a:b], rest[1][c:d]) for _, a, b, c, d in matched)]
