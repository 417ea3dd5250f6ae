"""The exploration of safe nets in machine code, for those that have many markings (the extra `fast`: numba).

It does what `exploration` does with the same packed markings, cut into words of 64 bits, and finds the same states in
the same order. It looks at all transitions of each state, and keeps the states in one table without Python objects.
Without numba nothing is missing but speed.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

from circuit.net.analysis.limits import Meter
from circuit.net.analysis.packing import PackedStep, Packing

MOST_WORDS = 16
_COMPILER_SECONDS = 12.0
_SLICE = 65_536
_BEGIN = 1 << 16
_MASK = (1 << 64) - 1

Kernel = Callable[..., tuple[int, int, int, int]]


@cache
def available() -> bool:
    """Whether numba is installed."""
    return find_spec("numba") is not None


def worth_it(meter: Meter) -> bool:
    """Whether there is machine code, and time to wait for the compiler the first time."""
    return available() and meter.left() > _COMPILER_SECONDS


class Compiled:
    """One exploration. `run` fills it; `overflow` is the state in which a place came to hold more than one token."""

    def __init__(self, packing: Packing) -> None:
        import numpy

        self.numpy: Any = numpy
        self.words = max(1, -(-packing.guards.bit_length() // 64))
        steps = packing.steps
        self.masks = tuple(
            self._table([self._part(step, name) for step in steps])
            for name in ("need", "take", "bar", "limit", "keep", "put")
        )
        self.guards = self._table([packing.guards])[0]
        self.states = self._table([packing.initial])
        self.parents: Any = numpy.zeros(1, dtype=numpy.uint32)
        self.via: Any = numpy.zeros(1, dtype=numpy.uint32)
        self.offsets: Any = numpy.zeros(2, dtype=numpy.uint64)
        self.targets: Any = numpy.zeros(0, dtype=numpy.uint32)
        self.labels: Any = numpy.zeros(0, dtype=numpy.uint32)
        self.count = self.edges = 0
        self.overflow = -1
        self.complete = False
        self.explored = 0

    def _part(self, step: PackedStep, name: str) -> int:
        whole = (1 << (64 * self.words)) - 1
        value: int = getattr(step, name)
        return value & whole

    def _table(self, values: list[int]) -> Any:
        rows = [[value >> (64 * word) & _MASK for word in range(self.words)] for value in values]
        return self.numpy.array(rows, dtype=self.numpy.uint64).reshape(len(values), self.words)

    def run(self, meter: Meter) -> None:
        """Explore until all is found, a place holds two tokens, or a limit is reached."""
        numpy, advance = self.numpy, _kernel()
        size, room, edge_room = 1, _BEGIN, _BEGIN * 4
        self._grow(room, edge_room)
        table = numpy.full(room * 4, -1, dtype=numpy.int64)
        state = edges = 0
        while True:
            todo = min(state + _SLICE, size)
            size, state, edges, found = advance(
                self.states, table, self.parents, self.via, self.offsets, self.targets, self.labels,
                self.guards, *self.masks, size, state, edges, todo,
            )  # fmt: skip
            self.count, self.edges, self.explored = size, edges, state
            if found >= 0:
                self.overflow = state
                return
            if state == size:
                self.complete = True
                return
            # Twice what the arrays hold, since they double as they grow, and what the graph copies of them.
            used = size * (24 * self.words + 140) + edges * 24
            if meter.spent("states", size, used):
                return
            widest = len(self.masks[0])
            if size + _SLICE * 2 > room or edges + (_SLICE + widest) * 2 > edge_room or found == -2:
                room, edge_room = room * 2, edge_room * 2
                self._grow(room, edge_room)
                table = numpy.full(room * 4, -1, dtype=numpy.int64)
                _rehash()(self.states, table, size)

    def _grow(self, room: int, edge_room: int) -> None:
        numpy = self.numpy

        def grown(old: Any, *shape: int) -> Any:
            new = numpy.zeros(shape, dtype=old.dtype)
            new[: len(old)] = old
            return new

        self.states = grown(self.states, room, self.words)
        self.parents, self.via = grown(self.parents, room), grown(self.via, room)
        self.offsets = grown(self.offsets, room + 1)
        self.targets, self.labels = grown(self.targets, edge_room), grown(self.labels, edge_room)

    def packed(self) -> list[int]:
        """The markings as integers, as `Packing` makes them."""
        if self.words == 1:
            return self.states[: self.count, 0].tolist()
        width = 8 * self.words
        data: bytes = self.states[: self.count].tobytes()
        return [int.from_bytes(data[at : at + width], "little") for at in range(0, len(data), width)]

    def column(self, code: str, name: str, length: int) -> array[int]:
        """One of the tables, as the graph keeps it."""
        kinds = {"H": self.numpy.uint16, "I": self.numpy.uint32, "Q": self.numpy.uint64}
        found = array(code)
        found.frombytes(getattr(self, name)[:length].astype(kinds[code]).tobytes())
        return found


@cache
def _kernel() -> Kernel:
    return _compiled(_advance)


@cache
def _rehash() -> Callable[..., None]:
    return _compiled(_fill)


def _compiled(function: Callable[..., Any]) -> Any:
    """The function in machine code, which is kept on disk for the next process where that can be."""
    import numba

    try:
        return numba.njit(cache=True)(function)
    except RuntimeError:
        return numba.njit(function)


# What follows is compiled: plain loops over arrays, without Python objects. A state is looked up by an open hash table
# whose size is a power of 2.


def _advance(
    states: Any, table: Any, parents: Any, via: Any, offsets: Any, targets: Any, labels: Any, guards: Any,
    need: Any, take: Any, bar: Any, limit: Any, keep: Any, put: Any, size: int, state: int, edges: int, todo: int,
) -> tuple[int, int, int, int]:  # fmt: skip
    """Fire everything in the states from `state` to `todo`. Gives how many states, the next one, how many edges; and
    -1, or -2 where there is no room for more, or a transition whose firing runs over."""
    words = states.shape[1]
    count = need.shape[0]
    slots = table.shape[0] - 1
    if size == 1 and table[0] == -1 and state == 0:
        mixed = states[0, 0]
        for word in range(1, words):
            mixed = (mixed ^ (mixed >> 29)) * 11400714819323198485 + states[0, word]
        mixed = (mixed ^ (mixed >> 32)) * 11400714819323198485
        table[(mixed >> 20) & slots] = 0
    while state < todo:
        if size + count >= states.shape[0] or edges + count >= targets.shape[0] or size * 2 > slots:
            return size, state, edges, -2
        for step in range(count):
            good = True
            for word in range(words):
                wanted = need[step, word]
                if ((states[state, word] | wanted) - take[step, word]) & wanted != wanted:
                    good = False
                    break
                barred = bar[step, word]
                if barred != 0 and ((states[state, word] | barred) - limit[step, word]) & barred != 0:
                    good = False
                    break
            if not good:
                continue
            for word in range(words):
                after = ((states[state, word] - take[step, word]) & keep[step, word]) + put[step, word]
                if after & guards[word] != 0:
                    return size, state, edges, step
                states[size, word] = after
            mixed = states[size, 0]
            for word in range(1, words):
                mixed = (mixed ^ (mixed >> 29)) * 11400714819323198485 + states[size, word]
            mixed = (mixed ^ (mixed >> 32)) * 11400714819323198485
            slot = (mixed >> 20) & slots
            found = -1
            while table[slot] != -1:
                other = table[slot]
                same = True
                for word in range(words):
                    if states[other, word] != states[size, word]:
                        same = False
                        break
                if same:
                    found = other
                    break
                slot = (slot + 1) & slots
            if found == -1:
                table[slot] = size
                parents[size] = state
                via[size] = step
                found = size
                size += 1
            targets[edges] = found
            labels[edges] = step
            edges += 1
        state += 1
        offsets[state] = edges
    return size, state, edges, -1


def _fill(states: Any, table: Any, size: int) -> None:
    """Enter all states into an empty table."""
    words = states.shape[1]
    slots = table.shape[0] - 1
    for state in range(size):
        mixed = states[state, 0]
        for word in range(1, words):
            mixed = (mixed ^ (mixed >> 29)) * 11400714819323198485 + states[state, word]
        mixed = (mixed ^ (mixed >> 32)) * 11400714819323198485
        slot = (mixed >> 20) & slots
        while table[slot] != -1:
            slot = (slot + 1) & slots
        table[slot] = state
