"""The net that is analysed: places, transitions, weights, inhibitor and reset arcs, capacities; no data, no time.

Workflows and PNML files are brought to it, and every proof is about it. Places and transitions are numbers here; their
names and labels are kept beside them. A transition is enabled when each place that it consumes from holds enough, each
place that it is inhibited by holds fewer than the arc says, and no capacity is exceeded by what it adds. It fires in
one step: it consumes, empties the places that it resets, and produces. A read arc consumes and produces the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from circuit.errors import InvalidRequest

Marking = tuple[int, ...]
"""The number of tokens in each place."""

Arcs = tuple[tuple[int, int], ...]
"""(place, weight), each place once, in order of places."""

MAX_TOKENS = 1_000_000_000
"""The largest weight, capacity or initial number of tokens. Nothing real comes near; a typing error does."""


def arcs(weights: Iterable[tuple[int, int]]) -> Arcs:
    """The arcs of these (place, weight), those to one place added up."""
    summed: dict[int, int] = {}
    for place, weight in weights:
        summed[place] = summed.get(place, 0) + weight
    return tuple(sorted(summed.items()))


@dataclass(frozen=True, slots=True)
class Step:
    """One transition. `inhibitors` give for a place how many tokens keep the transition from firing."""

    name: str
    consumes: Arcs = ()
    produces: Arcs = ()
    inhibitors: Arcs = ()
    resets: tuple[int, ...] = ()


def _derived() -> Any:
    return field(init=False, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class PlaceNet:
    """A place/transition net with its initial and its final markings.

    Final is each marking in `finals`; where that is empty, each one in which only places in `resting` hold tokens.
    Derived: `limits` are, for each transition, the inhibitors and the capacities alike: it may fire only while fewer
    than so many tokens lie there. A limit of 0 keeps it from ever firing.
    """

    name: str
    places: tuple[str, ...]
    steps: tuple[Step, ...]
    initial: Marking
    capacities: tuple[int | None, ...] = ()
    finals: tuple[Marking, ...] = ()
    resting: frozenset[int] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    limits: tuple[Arcs, ...] = _derived()

    def __post_init__(self) -> None:
        if not self.capacities:
            object.__setattr__(self, "capacities", (None,) * len(self.places))
        object.__setattr__(self, "limits", tuple(self._limits_of(step) for step in self.steps))
        for place, (tokens, capacity) in enumerate(zip(self.initial, self.capacities, strict=True)):
            name = self.places[place]
            if not 0 <= tokens <= MAX_TOKENS:
                raise InvalidRequest(f"Place {name!r} begins with {tokens} tokens; give 0 to {MAX_TOKENS:,}.")
            if capacity is not None and tokens > capacity:
                raise InvalidRequest(
                    f"Place {name!r} begins with {tokens} tokens and holds {capacity} at most; raise its capacity."
                )

    @property
    def plain(self) -> bool:
        """Whether there is neither an inhibitor nor a reset arc nor a capacity: the net of the textbooks."""
        return not any(self.limits) and not any(step.resets for step in self.steps)

    def is_final(self, marking: Sequence[int]) -> bool:
        """Whether a case may end so."""
        if self.finals:
            return tuple(marking) in self.finals
        return all(not tokens or place in self.resting for place, tokens in enumerate(marking))

    def enabled(self, number: int, marking: Sequence[int]) -> bool:
        """Whether the transition may fire."""
        return all(marking[place] >= weight for place, weight in self.steps[number].consumes) and all(
            marking[place] < limit for place, limit in self.limits[number]
        )

    def fire(self, number: int, marking: Sequence[int]) -> Marking:
        """The marking after the transition, which must be enabled."""
        step = self.steps[number]
        after = list(marking)
        for place, weight in step.consumes:
            after[place] -= weight
        for place in step.resets:
            after[place] = 0
        for place, weight in step.produces:
            after[place] += weight
        return tuple(after)

    def run(self, trace: Iterable[int]) -> Marking | None:
        """The marking after these transitions from the initial one; None where one of them could not fire."""
        marking = self.initial
        for number in trace:
            if not self.enabled(number, marking):
                return None
            marking = self.fire(number, marking)
        return marking

    def dead(self, marking: Sequence[int]) -> bool:
        """Whether no transition may fire."""
        return not any(self.enabled(number, marking) for number in range(len(self.steps)))

    def named(self, marking: Sequence[int]) -> dict[str, int]:
        """The tokens of a marking by the names of their places."""
        return {self.places[place]: tokens for place, tokens in enumerate(marking) if tokens}

    def names(self, trace: Iterable[int]) -> list[str]:
        """The names of these transitions."""
        return [self.steps[number].name for number in trace]

    def _limits_of(self, step: Step) -> Arcs:
        found = dict(step.inhibitors)
        consumed = dict(step.consumes)
        for place, weight in step.produces:
            capacity = self.capacities[place]
            if capacity is None:
                continue
            extra = weight if place in step.resets else weight - consumed.get(place, 0)
            if extra > capacity:
                limit = 0
            elif extra > 0 and place not in step.resets:
                limit = capacity - extra + 1
            else:
                continue
            found[place] = min(limit, found.get(place, limit))
        return tuple(sorted(found.items()))
