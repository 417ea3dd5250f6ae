"""Which tokens lie where, which of them are reserved, and how much room is.

Each place keeps the numbers of its free and of its reserved tokens in order, so that the lowest free token of a
place is found at once however many lie there, and taking one out costs a binary search.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from heapq import merge
from typing import Any

from circuit.errors import NetError
from circuit.value import dataclass

_NONE: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """What an agent did on one stay of a token: how often it ran, the time of the last run, and the firing that runs
    now, if one does."""

    count: int
    due: datetime
    firing: int | None = None

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> Run:
        return cls(value["count"], datetime.fromisoformat(value["due"]), value["firing"])

    def as_json(self) -> dict[str, Any]:
        return {"count": self.count, "due": self.due.isoformat(), "firing": self.firing}


@dataclass(frozen=True, slots=True)
class Token:
    """One version of one token. Its `data` and `metadata` are JSON objects that nobody changes in place.

    `number` counts the tokens of a case in the order in which they were made. Before `available_at` the token can be
    neither consumed nor read. `runs` is what the agents of its place did during this stay, by their transitions.
    """

    number: int
    version: int
    place: str
    data: Mapping[str, Any]
    metadata: Mapping[str, Any]
    entered_at: datetime
    available_at: datetime | None = None
    runs: Mapping[str, Run] | None = None


class Marking:
    """The tokens of one case. Changes in place; every method that cannot do what it is asked raises `NetError`
    and has changed nothing."""

    __slots__ = ("_delayed", "_free", "_held", "_reserved", "_room", "_tokens")

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self._tokens: dict[int, Token] = {}
        self._free: dict[str, list[int]] = {}
        self._held: dict[str, list[int]] = {}
        self._reserved: dict[int, int] = {}
        self._room: dict[str, int] = {}
        self._delayed: set[int] = set()
        for token in tokens:
            self.put(token)

    def put(self, token: Token) -> None:
        """Lay a token whose number is not here yet."""
        if token.number in self._tokens:
            raise NetError(f"token {token.number} lies already in {self._tokens[token.number].place}")
        self._tokens[token.number] = token
        if token.available_at is not None:
            self._delayed.add(token.number)
        _add(self._free, token.place, token.number)

    def take(self, number: int) -> Token:
        """Take a token out, reserved or not."""
        token = self._known(number)
        if self._reserved.pop(number, None) is None:
            _drop(self._free, token.place, number)
        else:
            _drop(self._held, token.place, number)
        del self._tokens[number]
        if self._delayed:
            self._delayed.discard(number)
        return token

    def move(self, token: Token) -> None:
        """Put `token` in the stead of the token of its number; a reservation ends."""
        self.take(token.number)
        self.put(token)

    def replace(self, token: Token) -> None:
        """Put `token` in the stead of the token of its number, in the same place; a reservation stays."""
        if self._known(token.number).place != token.place:
            raise NetError(f"token {token.number} does not lie in {token.place}")
        self._tokens[token.number] = token

    def get(self, number: int) -> Token | None:
        """The token of this number."""
        return self._tokens.get(number)

    def tokens(self, place: str) -> list[Token]:
        """All tokens that lie in the place, reserved or not, in order of their numbers."""
        return [self._tokens[number] for number in merge(self._free.get(place, _NONE), self._held.get(place, _NONE))]

    def available(self, place: str, now: datetime) -> list[Token]:
        """The tokens of the place that can be consumed or read now, in order of their numbers."""
        tokens = self._tokens
        return [token for token in map(tokens.__getitem__, self._free.get(place, _NONE)) if _ready(token, now)]

    def first(self, place: str, now: datetime) -> Token | None:
        """The available token of the place that has the lowest number."""
        for number in self._free.get(place, _NONE):
            token = self._tokens[number]
            if token.available_at is None or token.available_at <= now:
                return token
        return None

    def choices(
        self, place: str, now: datetime, weight: int, without: Sequence[Token] = ()
    ) -> Iterator[tuple[Token, ...]]:
        """Every set of `weight` available tokens of the place that holds none of `without`, lowest numbers first.

        Lazy, so that the first costs the same in a place of ten and of 100,000 tokens. The marking must not change
        meanwhile.
        """
        return _choose(self._free.get(place, []), self._tokens, now, weight, 0, frozenset(t.number for t in without))

    def all(self) -> list[Token]:
        """All tokens, in order of their numbers."""
        return [self._tokens[number] for number in sorted(self._tokens)]

    def reserve(self, number: int, firing: int) -> None:
        """Keep a free token for a firing."""
        token = self._known(number)
        if number in self._reserved:
            raise NetError(f"token {number} is reserved by firing {self._reserved[number]}")
        self._reserved[number] = firing
        _drop(self._free, token.place, number)
        _add(self._held, token.place, number)

    def release(self, number: int) -> None:
        """Make a reserved token free again."""
        token = self._known(number)
        if number not in self._reserved:
            raise NetError(f"token {number} is not reserved")
        del self._reserved[number]
        _drop(self._held, token.place, number)
        _add(self._free, token.place, number)

    def reserved_by(self, number: int) -> int | None:
        """The firing that the token is reserved for."""
        return self._reserved.get(number)

    def reserve_room(self, place: str, count: int) -> None:
        """Keep room for `count` tokens. Whether there is any is for the caller, who knows the capacity."""
        if count < 0:
            raise NetError(f"cannot reserve room for {count} tokens in {place}")
        self._room[place] = self._room.get(place, 0) + count

    def release_room(self, place: str, count: int) -> None:
        """Give reserved room back."""
        left = self._room.get(place, 0) - count
        if count < 0 or left < 0:
            raise NetError(f"cannot release room for {count} tokens in {place}: {self._room.get(place, 0)} reserved")
        if left:
            self._room[place] = left
        else:
            self._room.pop(place, None)

    def room_reserved(self, place: str) -> int:
        """For how many tokens room is reserved in the place."""
        return self._room.get(place, 0)

    def count(self, place: str) -> int:
        """How many tokens lie in the place, reserved or not."""
        return len(self._free.get(place, _NONE)) + len(self._held.get(place, _NONE))

    def free(self, place: str) -> int:
        """How many tokens of the place are not reserved."""
        return len(self._free.get(place, _NONE))

    def ready(self, place: str, count: int, now: datetime) -> bool:
        """Whether at least `count` tokens of the place are available."""
        tokens = self._tokens
        for number in self._free.get(place, _NONE):
            if count == 0:
                break
            if _ready(tokens[number], now):
                count -= 1
        return count == 0

    @property
    def delayed(self) -> bool:
        """Whether some token is, or was, not available from the moment at which it came."""
        return bool(self._delayed)

    def available_next(self, place: str, now: datetime) -> datetime | None:
        """When the next token of the place is available that is not so yet."""
        tokens = (self._tokens[number] for number in self._delayed)
        later = (token.available_at for token in tokens if token.place == place and not _ready(token, now))
        return min((at for at in later if at is not None), default=None)

    def places(self) -> list[str]:
        """The places in which tokens lie, in order of their names."""
        return sorted({*self._free, *self._held})

    def copy(self) -> Marking:
        """Another marking with the same tokens and reservations."""
        other = Marking()
        other._tokens = dict(self._tokens)
        other._free = {place: list(numbers) for place, numbers in self._free.items()}
        other._held = {place: list(numbers) for place, numbers in self._held.items()}
        other._reserved = dict(self._reserved)
        other._room = dict(self._room)
        other._delayed = set(self._delayed)
        return other

    def __len__(self) -> int:
        return len(self._tokens)

    def __contains__(self, number: object) -> bool:
        return number in self._tokens

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Marking):
            return NotImplemented
        return (self._tokens, self._reserved, self._room) == (other._tokens, other._reserved, other._room)

    def __repr__(self) -> str:
        return f"Marking({', '.join(f'{place}: {self.count(place)}' for place in self.places())})"

    def _known(self, number: int) -> Token:
        token = self._tokens.get(number)
        if token is None:
            raise NetError(f"there is no token {number}")
        return token


def _ready(token: Token, now: datetime) -> bool:
    return token.available_at is None or token.available_at <= now


def _choose(
    numbers: list[int], tokens: dict[int, Token], now: datetime, weight: int, start: int, without: frozenset[int]
) -> Iterator[tuple[Token, ...]]:
    for position in range(start, len(numbers) - weight + 1):
        token = tokens[numbers[position]]
        if not _ready(token, now) or token.number in without:
            continue
        if weight == 1:
            yield (token,)
        else:
            for rest in _choose(numbers, tokens, now, weight - 1, position + 1, without):
                yield (token, *rest)


def _add(places: dict[str, list[int]], place: str, number: int) -> None:
    numbers = places.get(place)
    if numbers is None:
        places[place] = [number]
    elif number > numbers[-1]:
        numbers.append(number)
    else:
        insort(numbers, number)


def _drop(places: dict[str, list[int]], place: str, number: int) -> None:
    numbers = places[place]
    if len(numbers) == 1:
        del places[place]
    else:
        del numbers[bisect_left(numbers, number)]
