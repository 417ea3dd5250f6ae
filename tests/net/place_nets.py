"""Random place/transition nets for tests: from any, with everything that they can have, to those of processes."""

from __future__ import annotations

from hypothesis import strategies as st

from circuit.net.analysis.limits import Limits
from circuit.net.analysis.place_net import PlaceNet, Step, arcs


class Ticks:
    """Seconds that pass with each look."""

    def __init__(self, tick: float = 1e-6) -> None:
        self.seconds, self.tick = 0.0, tick

    def __call__(self) -> float:
        self.seconds += self.tick
        return self.seconds


def limits(states: int = 4_000) -> Limits:
    return Limits(Ticks(), states=states)


def _some_arcs(draw: st.DrawFn, places: int, most: int, weight: int) -> tuple[tuple[int, int], ...]:
    chosen = draw(st.lists(st.tuples(st.integers(0, places - 1), st.integers(1, weight)), max_size=most))
    return arcs(chosen)


@st.composite
def any_nets(draw: st.DrawFn, *, plain: bool = False) -> PlaceNet:
    """A net of up to six places and seven transitions."""
    places, weight = draw(st.integers(1, 6)), draw(st.sampled_from([1, 1, 2]))
    steps: list[Step] = []
    for index in range(draw(st.integers(0, 7))):
        consumes = _some_arcs(draw, places, 3, weight)
        produces = _some_arcs(draw, places, 3, weight)
        inhibitors = dict(_some_arcs(draw, places, 1, 2)) if not plain and draw(st.booleans()) else {}
        resets = draw(st.sets(st.integers(0, places - 1), max_size=1)) if not plain and draw(st.booleans()) else set()
        steps.append(Step(f"t{index}", consumes, produces, tuple(sorted(inhibitors.items())), tuple(sorted(resets))))
    initial = tuple(draw(st.lists(st.integers(0, 2), min_size=places, max_size=places)))
    capacities: list[int | None] = [None] * places
    if not plain and draw(st.booleans()):
        capacities = [draw(st.sampled_from([None, None, 1, 2, 3])) for _ in range(places)]
        capacities = [None if most is None else max(most, now) for most, now in zip(capacities, initial, strict=True)]
    return _finished(draw, places, steps, initial, tuple(capacities))


@st.composite
def process_nets(draw: st.DrawFn, *, plain: bool = False) -> PlaceNet:
    """A net like that of a process: one token at the beginning, mostly forward arcs, splits, joins and a few loops."""
    places = draw(st.integers(3, 9))
    near = st.integers(0, places - 1)
    steps: list[Step] = []
    for index in range(draw(st.integers(2, 10))):
        sources = draw(st.sets(near, min_size=1, max_size=2))
        targets = draw(st.sets(near, min_size=1, max_size=3))
        if draw(st.integers(0, 4)):
            targets = {max(target, min(sources) + 1) for target in targets if min(sources) + 1 < places} or targets
        inhibitors = draw(st.sets(near, max_size=1)) if not plain and draw(st.integers(0, 5)) == 0 else set()
        resets = draw(st.sets(near, max_size=1)) if not plain and draw(st.integers(0, 5)) == 0 else set()
        step = Step(
            f"t{index}",
            arcs((place, 1) for place in sources),
            arcs((place, 1) for place in targets),
            tuple((place, 1) for place in sorted(inhibitors)),
            tuple(sorted(resets)),
        )
        steps.append(step)
    initial = (1, *([0] * (places - 1)))
    return _finished(draw, places, steps, initial, (None,) * places)


def _finished(
    draw: st.DrawFn, places: int, steps: list[Step], initial: tuple[int, ...], capacities: tuple[int | None, ...]
) -> PlaceNet:
    left = {place for step in steps for place, _ in step.consumes}
    finals: tuple[tuple[int, ...], ...] = ()
    if draw(st.integers(0, 3)) == 0:
        marking = st.lists(st.integers(0, 1), min_size=places, max_size=places).map(tuple)
        finals = tuple(dict.fromkeys(draw(st.lists(marking.filter(any), max_size=2))))
    resting = frozenset(range(places)) - left
    if draw(st.integers(0, 5)) == 0:
        resting |= {draw(st.integers(0, places - 1))}
    names = tuple(f"p{index}" for index in range(places))
    return PlaceNet("random", names, tuple(steps), initial, capacities, finals, resting)
