"""All markings that a net can reach, breadth first, so that the way to each is a shortest one.

A marking knows which transitions it enables. Its successor by one of them differs in a few places only, so only the
transitions that look at those are tried again. A net without bound is found by a pump: a run from a marking to a
larger one that can be repeated for ever. When a field of a packed marking runs over, the exploration looks for a pump
on the way there and, where there is none, begins anew with wider fields.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass

from circuit.net.analysis import compiled
from circuit.net.analysis.limits import Meter
from circuit.net.analysis.packing import WIDTHS, PackedStep, Packing
from circuit.net.analysis.place_net import Marking, PlaceNet

_CHECK_EVERY = 2_048
_CHECK_EVERY_FIRINGS = 200_000
_EAGER_PUMPS = 4_096
"""So many states of a net that is not safe are compared with all that lie on the way to them; after that one in 64."""
_STATE_BYTES = 190
_COMPILED_FROM = 20_000
_MOST_SETS = 50_000
_MOST_TRIES = 4_000_000


@dataclass(frozen=True, slots=True)
class Pump:
    """Why a net has no bound: after `prefix` the run `cycle` can be repeated for ever, and `grows` gets more tokens
    (by so many) each time."""

    prefix: tuple[int, ...]
    cycle: tuple[int, ...]
    grows: dict[int, int]


@dataclass(slots=True)
class Graph:
    """The reachable markings that were found, numbered in the order in which they were; 0 is the initial one.

    The edges of state `s` lie from `offsets[s]` to `offsets[s + 1]` in `targets` and `labels` (the transitions).
    `complete` says that these are all; else `stopped` says why not, and `pump` holds the proof where there are
    infinitely many.
    """

    net: PlaceNet
    packing: Packing
    packed: list[int]
    parents: array[int]
    via: array[int]
    offsets: array[int]
    targets: array[int]
    labels: array[int]
    complete: bool = False
    halted: bool = False
    paused: bool = False
    stopped: str = ""
    pump: Pump | None = None

    def __len__(self) -> int:
        return len(self.packed)

    def marking(self, state: int) -> Marking:
        return self.packing.unpack(self.packed[state])

    def trace(self, state: int) -> tuple[int, ...]:
        """A shortest run to the state."""
        found: list[int] = []
        while state:
            found.append(self.via[state])
            state = self.parents[state]
        return tuple(reversed(found))

    def successors(self, state: int) -> array[int]:
        return self.targets[self.offsets[state] : self.offsets[state + 1]]

    @property
    def explored(self) -> int:
        """How many states have all of their edges; they come first."""
        return len(self.offsets) - 1

    def dead(self) -> list[int]:
        """The states that enable no transition, nearest first."""
        offsets = self.offsets
        return [state for state in range(self.explored) if offsets[state] == offsets[state + 1]]


Choice = Callable[[int, int], int]
"""From a packed marking and the set of its enabled transitions (bits) to those that are to be fired."""


def explore(
    net: PlaceNet,
    meter: Meter,
    choose: Callable[[Packing], Choice] | None = None,
    *,
    pumps: bool = True,
    enough: Callable[[Marking], bool] | None = None,
    fast: bool = True,
) -> Graph:
    """The markings of `net` within what `meter` allows, in machine code where that is `fast`.

    With `choose` only chosen transitions are fired. Without `pumps` a net without bound is explored until a limit is
    reached. The exploration ends at the first marking that enables nothing and is `enough`: the last of `dead()`.
    """
    graph = None
    for bits in WIDTHS:
        packing = Packing(net, bits)
        # Machine code pays only where there are many markings, and is there for all markings of safe nets.
        whole = fast and choose is None and enough is None and packing.safe and compiled.worth_it(meter)
        search = _Search(net, meter, packing, choose, pumps, enough)
        graph = search.run(_COMPILED_FROM if whole and packing.words <= compiled.MOST_WORDS else None)
        if graph.paused:
            graph = search.compiled()
        if graph.complete or graph.pump is not None or graph.halted or meter.stopped:
            return graph
    assert graph is not None
    graph.stopped = "a place holds more tokens than can be counted"
    return graph


@dataclass(frozen=True, slots=True)
class _Tries:
    """The transitions that another one may have enabled or disabled: which bits to forget, and what to try."""

    clear: int
    plain: list[tuple[int, int, int]]
    limited: list[tuple[int, PackedStep]]


class _Search:
    def __init__(
        self,
        net: PlaceNet,
        meter: Meter,
        packing: Packing,
        choose: Callable[[Packing], Choice] | None,
        pumps: bool,
        enough: Callable[[Marking], bool] | None,
    ) -> None:
        self.net, self.meter, self.packing, self.pumps, self.enough = net, meter, packing, pumps, enough
        self.choose = choose(packing) if choose else None
        start = packing.initial
        wide = array("I" if len(net.steps) >= 1 << 16 else "H")
        self.graph = Graph(
            net,
            packing,
            [start],
            array("I", [0]),
            array(wide.typecode, [0]),
            array("Q", [0]),
            array("I"),
            array(wide.typecode),
        )
        self.wary = pumps and not packing.safe
        """Whether a place may hold several tokens: where none can, no marking is larger than another for long."""
        self.every = max(1, min(_CHECK_EVERY, _CHECK_EVERY_FIRINGS // (len(net.steps) + 1)))
        self.looking: list[list[int]] = [[] for _ in net.places]
        for number, step in enumerate(net.steps):
            for place in {place for place, _ in (*step.consumes, *net.limits[number])}:
                self.looking[place].append(number)
        self.tries: dict[int, _Tries] = {}
        self.tried = 0

    def compiled(self) -> Graph:
        """The same exploration from the beginning, in machine code."""
        work = compiled.Compiled(self.packing)
        work.run(self.meter)
        graph = self.graph
        code = graph.via.typecode
        graph.packed = work.packed()
        graph.parents, graph.via = work.column("I", "parents", work.count), work.column(code, "via", work.count)
        graph.offsets = work.column("Q", "offsets", work.explored + 1)
        graph.targets = work.column("I", "targets", work.edges)
        graph.labels = work.column(code, "labels", work.edges)
        graph.complete, graph.stopped, graph.paused = work.complete, self.meter.stopped, False
        if work.overflow >= 0 and self.pumps:
            graph.pump = self._pump(work.overflow)
        return graph

    def run(self, most: int | None = None) -> Graph:
        """Explore until all is found, a limit is reached, a pump is found, a field runs over, or there are `most`."""
        graph, packing, meter, choose = self.graph, self.packing, self.meter, self.choose
        enough = self.enough
        steps, guards, every = packing.steps, packing.guards, self.every
        packed, offsets = graph.packed, graph.offsets
        start = packed[0]
        index = {start: 0}
        known = index.get
        sets = [sum(1 << number for number, step in enumerate(steps) if step.enabled(start))]
        moves: dict[int, list[int]] = {}
        new_state, new_set, new_parent, new_via = packed.append, sets.append, graph.parents.append, graph.via.append
        new_target, new_label, new_offset = graph.targets.append, graph.labels.append, offsets.append
        changes = [step.change if step.keep == -1 else None for step in steps]
        tries = self.tries
        size, bytes_of_state = 1, _STATE_BYTES + packing.guards.bit_length() // 7
        state = 0
        while state < size:
            if state % every == 0 and meter.spent("states", size, size * bytes_of_state + 6 * len(graph.targets)):
                graph.stopped = meter.stopped
                return graph
            if most is not None and size > most:
                graph.paused = True
                return graph
            marking, enabled = packed[state], sets[state]
            if not enabled and enough is not None and enough(packing.unpack(marking)):
                new_offset(len(graph.targets))
                graph.halted = True
                return graph
            fired = enabled if choose is None else choose(marking, enabled)
            move = moves.get(fired)
            if move is None:
                if len(moves) > _MOST_SETS:
                    moves.clear()
                move = moves[fired] = _bits(fired)
            for number in move:
                change = changes[number]
                after = marking + change if change is not None else steps[number].fire(marking)
                found = known(after)
                if found is None:
                    if after & guards:
                        graph.pump = self._pump(state) if self.pumps else None
                        return graph
                    index[after] = found = size
                    size += 1
                    new_state(after)
                    new_parent(state)
                    new_via(number)
                    again = tries.get(number) or self._tries(number)
                    now = enabled & again.clear
                    for bit, need, take in again.plain:
                        if ((after | need) - take) & need == need:
                            now |= bit
                    for bit, step in again.limited:
                        if step.enabled(after):
                            now |= bit
                    new_set(now)
                    if self.wary and (size < _EAGER_PUMPS or size & 63 == 0):
                        pump = self._pump_to(found)
                        if pump is not None:
                            graph.pump = pump
                            return graph
                new_target(found)
                new_label(number)
            new_offset(len(graph.targets))
            state += 1
        graph.complete = True
        return graph

    def _tries(self, number: int) -> _Tries:
        """What to look at after the transition; kept for the next time, as long as all of it is not too much."""
        step = self.net.steps[number]
        changed = {place for place, _ in (*step.consumes, *step.produces)} | set(step.resets)
        touched = sorted({other for place in changed for other in self.looking[place]})
        packed = [(1 << other, self.packing.steps[other]) for other in touched]
        found = _Tries(
            ~sum(bit for bit, _ in packed),
            [(bit, other.need, other.take) for bit, other in packed if not other.bar],
            [(bit, other) for bit, other in packed if other.bar],
        )
        self.tried += len(touched)
        if self.tried > _MOST_TRIES:
            self.tries.clear()
            self.tried = len(touched)
        self.tries[number] = found
        return found

    def _pump_to(self, state: int) -> Pump | None:
        """A pump that ends in the state, which has just been found."""
        graph, covers = self.graph, self.packing.covers
        after, packed, parents = graph.packed[state], graph.packed, graph.parents
        before = state
        while before:
            before = parents[before]
            if covers(after, packed[before]):
                pump = self._proven(before, state)
                if pump is not None:
                    return pump
        return None

    def _pump(self, state: int) -> Pump | None:
        """A pump anywhere on the way to the state, in which a place is about to run over."""
        graph, covers = self.graph, self.packing.covers
        way = [state]
        while way[-1]:
            way.append(graph.parents[way[-1]])
        way.reverse()
        for late in range(1, len(way)):
            larger = graph.packed[way[late]]
            for early in range(late - 1, -1, -1):
                if covers(larger, graph.packed[way[early]]):
                    pump = self._proven(way[early], way[late])
                    if pump is not None:
                        return pump
        return None

    def _proven(self, before: int, after: int) -> Pump | None:
        """The run from `before` to `after`, where it can be repeated for ever with more tokens each time.

        What limits a transition of the run must be as it was; what is reset gains nothing.
        """
        graph, net = self.graph, self.net
        prefix = graph.trace(before)
        cycle = graph.trace(after)[len(prefix) :]
        small, large = graph.marking(before), graph.marking(after)
        if any(small[place] != large[place] for number in cycle for place, _ in net.limits[number]):
            return None
        emptied = {place for number in cycle for place in net.steps[number].resets}
        grows = {
            place: large[place] - small[place]
            for place in range(len(small))
            if large[place] > small[place] and place not in emptied
        }
        return Pump(prefix, cycle, grows) if grows else None


def _bits(numbers: int) -> list[int]:
    """The positions of the bits that are set."""
    found: list[int] = []
    while numbers:
        low = numbers & -numbers
        found.append(low.bit_length() - 1)
        numbers ^= low
    return found
