"""Markings as single integers, so that comparing, storing and firing are one operation of the machine or a few.

Each place has a field of bits with one spare bit on top, which is always 0 in a marking. Setting the spare bits before
subtracting tells in one step where tokens lack: there the spare bit was borrowed. A field that runs over sets its spare
bit, which is how a place is found to hold more than its field can say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from circuit.net.analysis.place_net import Arcs, Marking, PlaceNet

WIDTHS = (1, 2, 4, 8, 16, 34)
"""Bits for the tokens of a place, tried one after the other until all fit."""


@dataclass(frozen=True, slots=True)
class PackedStep:
    """A transition over packed markings: enabled where `(m | need) - take` leaves `need` whole and `(m | bar) - limit`
    leaves nothing of `bar`. It adds `change`, or where it resets, keeps `keep` and adds `put`."""

    need: int
    take: int
    bar: int
    limit: int
    change: int
    keep: int
    put: int

    def enabled(self, marking: int) -> bool:
        return ((marking | self.need) - self.take) & self.need == self.need and not (
            self.bar and ((marking | self.bar) - self.limit) & self.bar
        )

    def fire(self, marking: int) -> int:
        return marking + self.change if self.keep == -1 else ((marking - self.take) & self.keep) + self.put


class Packing:
    """How the markings of one net are packed, with at least `bits` for the tokens of a place."""

    __slots__ = ("_offsets", "_values", "guards", "initial", "steps")

    def __init__(self, net: PlaceNet, bits: int) -> None:
        largest = list(net.initial)
        for step in net.steps:
            for place, weight in (*step.consumes, *step.produces):
                largest[place] = max(largest[place], weight)
        for marking in net.finals:
            largest = [max(pair) for pair in zip(largest, marking, strict=True)]
        self._offsets: list[int] = []
        self._values: list[int] = []
        at = 0
        for tokens in largest:
            width = max(bits, tokens.bit_length())
            self._offsets.append(at)
            self._values.append((1 << width) - 1)
            at += width + 1
        self.guards = sum((value + 1) << offset for offset, value in zip(self._offsets, self._values, strict=True))
        self.initial = self.pack(net.initial)
        self.steps = tuple(self._step(net, number) for number in range(len(net.steps)))

    @property
    def safe(self) -> bool:
        """Whether every field says one token at most."""
        return self.guards.bit_count() * 2 >= self.guards.bit_length()

    @property
    def words(self) -> int:
        """How many words of 64 bits a marking takes."""
        return -(-self.guards.bit_length() // 64)

    def pack(self, marking: Sequence[int]) -> int:
        """The marking as an integer."""
        return sum(tokens << offset for tokens, offset in zip(marking, self._offsets, strict=True) if tokens)

    def unpack(self, packed: int) -> Marking:
        """The marking that an integer stands for."""
        return tuple([(packed >> at) & most for at, most in zip(self._offsets, self._values, strict=True)])

    def covers(self, larger: int, smaller: int) -> bool:
        """Whether each place holds in `larger` at least what it holds in `smaller`."""
        return ((larger | self.guards) - smaller) & self.guards == self.guards

    def mask(self, places: Iterable[int]) -> int:
        """All bits of the tokens of these places."""
        return sum(self._values[place] << self._offsets[place] for place in places)

    def guard(self, place: int) -> int:
        """The spare bit of the place."""
        return (self._values[place] + 1) << self._offsets[place]

    def amount(self, place: int, tokens: int) -> int:
        """So many tokens in the place, which its field must hold."""
        return tokens << self._offsets[place]

    def holds(self, place: int, tokens: int) -> bool:
        """Whether the field of the place can say so many tokens."""
        return tokens <= self._values[place]

    def _guards(self, weights: Arcs) -> int:
        return sum(self.guard(place) for place, _ in weights)

    def _amounts(self, weights: Arcs) -> int:
        return sum(self.amount(place, weight) for place, weight in weights)

    def _step(self, net: PlaceNet, number: int) -> PackedStep:
        step = net.steps[number]
        # A limit that is larger than what the field can say cannot be reached before the field runs over.
        limits = tuple((place, limit) for place, limit in net.limits[number] if self.holds(place, limit))
        take, put = self._amounts(step.consumes), self._amounts(step.produces)
        return PackedStep(
            need=self._guards(step.consumes),
            take=take,
            bar=self._guards(limits),
            limit=self._amounts(limits),
            change=put - take,
            keep=~self.mask(step.resets) if step.resets else -1,
            put=put,
        )
