"""Bindings: the ways in which a transition may fire, and which of all of them comes next.

The order is fixed, so that the same marking always gives the same choice: consume arcs in the order of the file, those
that gather last, then read arcs; lower token numbers first. Only available tokens bind (not reserved, and past their
`available_at`), and no token is bound twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from circuit.events import TokenRef
from circuit.net.marking import Marking, Token
from circuit.net.scope import ROOTS, scope_of
from circuit.net.selection import barred, keyless, selections
from circuit.net.structure import InputArc, Net, Transition
from circuit.value import dataclass

MAX_BINDINGS = 10_000

Blocked = Collection[tuple[str, Collection[tuple[int, int]]]]
"""Bindings that must not be tried, as (transition, the (number, version) of its consumed tokens), a tuple or a
frozenset of them."""


@dataclass(frozen=True, slots=True)
class Binding:
    """The tokens with which a transition may fire, in the order of its arcs."""

    transition: str
    consumed: tuple[Token, ...]
    read: tuple[Token, ...] = ()

    @property
    def numbers(self) -> tuple[int, ...]:
        """What bindings are compared by: the numbers of the consumed tokens, then those of the read ones."""
        return tuple([token.number for token in self.consumed] + [token.number for token in self.read])

    @property
    def consumed_refs(self) -> tuple[TokenRef, ...]:
        return tuple([TokenRef(token.number, token.version, token.place) for token in self.consumed])

    @property
    def read_refs(self) -> tuple[TokenRef, ...]:
        return tuple([TokenRef(token.number, token.version, token.place) for token in self.read])

    @property
    def blocks(self) -> tuple[tuple[int, int], ...]:
        """The (number, version) of the consumed tokens: what an incident about this binding blocks."""
        return tuple([(token.number, token.version) for token in self.consumed])

    def scope(self, case: Mapping[str, Any], lists: Collection[str] = ()) -> dict[str, Any]:
        """What guards, mappings and expressions see of it; `case` is the mapping that `circuit.net.scope` tells of,
        `lists` the places of which the transition takes a number of tokens that shows only then."""
        return scope_of(self.consumed, self.read, case, ROOTS, lists)


@dataclass(slots=True)
class Look:
    """What a search for bindings came across. `examined` counts against `MAX_BINDINGS`. `early` sets would fire, but
    for the time: the first of them at `due`, if time alone is lacking. `barred` sets have a key that an inhibit arc
    finds tokens of."""

    examined: int = 0
    blocked: int = 0
    refused: int = 0
    reasons: tuple[str, ...] = ()
    faulty: bool = False
    limited: bool = False
    early: int = 0
    due: datetime | None = None
    barred: int = 0


def bindings(
    net: Net,
    marking: Marking,
    transition: str,
    case: Mapping[str, Any],
    now: datetime,
    *,
    blocked: Blocked = frozenset(),
    look: Look | None = None,
) -> Iterator[Binding]:
    """Every binding with which the transition may fire now, in order. Lazy; the marking must not change meanwhile.

    After `MAX_BINDINGS` sets of tokens it ends, whatever their guard said. `look`, where given, is told what the
    search met on its way: it keeps the reasons of the first set that the guard refused.
    """
    what = net.transitions[transition]
    if not has_room(net, marking, transition) or not _supplied(what, marking, now):
        return
    guard, timing, examined = what.guard, what.timing, 0
    keyed = bool(what.inhibits) and not keyless(what)
    if what.inhibits and barred(what, marking, case) is not None:
        return
    for consumed, read, key in _sets(what, marking, now, case):
        if examined == MAX_BINDINGS:
            if look is not None:
                look.limited = True
            return
        examined += 1
        if look is not None:
            look.examined = examined
        if keyed and barred(what, marking, case, key) is not None:
            if look is not None:
                look.barred += 1
            continue
        binding = Binding(transition, consumed, read)
        if blocked and is_blocked(binding, blocked):
            if look is not None:
                look.blocked += 1
            if not read:
                # An incident is about one set: however many are open, the next set is found by going on.
                examined -= 1
            continue
        if guard is not None:
            verdict = guard.judge(scope_of(consumed, read, case, guard.needs, what.lists))
            if not verdict.holds:
                if look is not None:
                    look.refused += 1
                    if look.refused == 1:
                        look.reasons, look.faulty = verdict.reasons, verdict.faulty
                continue
        if timing is not None:
            due = timing.due(consumed, read, case, now)
            if due is None or due > now:
                if look is not None:
                    look.early += 1
                    look.due = min(filter(None, (look.due, due)), default=None)
                if what.keeps_identity and not read:
                    # One token a set: however many are early, the next one is found by going on.
                    examined -= 1
                continue
        yield binding


def first_enabled(
    net: Net,
    marking: Marking,
    candidates: Iterable[str],
    case: Mapping[str, Any],
    now: datetime,
    blocked: Blocked = frozenset(),
) -> Binding | None:
    """What fires next among the automatic transitions of `candidates`: immediate ones before acting ones; the higher
    priority; the lowest token numbers, compared as a tuple; the transition's name. Others are passed over."""
    ranks, transitions = net.ranks, net.transitions
    possible = [name for name in candidates if name in ranks and _supplied(transitions[name], marking, now)]
    if len(possible) > 1:
        possible = sorted(set(possible), key=lambda name: (ranks[name], name))
    best: Binding | None = None
    best_rank = 0
    for name in possible:
        if best is not None and ranks[name] > best_rank:
            break
        found = first_binding(net, marking, name, case, now, blocked)
        # Names come in order, so that of two with the same tokens the one found first stays.
        if found is not None and (best is None or found.numbers < best.numbers):
            best, best_rank = found, ranks[name]
    return best


def first_binding(
    net: Net,
    marking: Marking,
    transition: str,
    case: Mapping[str, Any],
    now: datetime,
    blocked: Blocked = frozenset(),
) -> Binding | None:
    """The first of the transition's `bindings`, or None."""
    single = net.transitions[transition].single
    if single is None or blocked:
        return next(bindings(net, marking, transition, case, now, blocked=blocked), None)
    # The common case by far, spared the generators.
    token = marking.first(single, now)
    return Binding(transition, (token,)) if token is not None and has_room(net, marking, transition) else None


def next_look(
    net: Net,
    marking: Marking,
    transition: str,
    case: Mapping[str, Any],
    now: datetime,
    blocked: Blocked = frozenset(),
) -> datetime | None:
    """When a transition without a binding may have one although nothing else has happened: a token of its places is
    available then, or a time has come. None if never."""
    what = net.transitions[transition]
    places = dict.fromkeys(arc.place for arc in (*what.consumes, *what.reads))
    found = [at for place in places if (at := marking.available_next(place, now)) is not None]
    if what.timing is not None:
        look = Look()
        for _ in bindings(net, marking, transition, case, now, blocked=blocked, look=look):
            break
        if look.due is not None:
            found.append(look.due)
    return min(found, default=None)


def has_room(net: Net, marking: Marking, transition: str) -> bool:
    """Whether every target, and `on_failure` of an acting transition, has room for what a firing could bring."""
    for room in net.rooms[transition]:
        lying = 0 if room.emptied else marking.count(room.place)
        if lying + marking.room_reserved(room.place) + room.extra > room.capacity:
            return False
    return True


def is_blocked(binding: Binding, blocked: Blocked) -> bool:
    """Whether an open incident is about exactly these tokens."""
    pairs = binding.blocks
    return (binding.transition, pairs) in blocked or (binding.transition, frozenset(pairs)) in blocked


def _supplied(transition: Transition, marking: Marking, now: datetime) -> bool:
    """Whether each place has as many available tokens as the arcs ask of it in all.

    Without this look ahead, an empty last place would be noticed anew for every set of the first places.
    """
    demand = transition.demand
    for place, count in demand:
        if marking.free(place) < count:
            return False
    return len(demand) < 2 or all(marking.ready(place, count, now) for place, count in demand)


def _sets(
    transition: Transition, marking: Marking, now: datetime, case: Mapping[str, Any]
) -> Iterator[tuple[tuple[Token, ...], tuple[Token, ...], Any]]:
    """Sets of tokens that the arcs may take, each with the key on which they agree, where they have one."""
    if not transition.simple:
        for selected in selections(transition, marking, now, case):
            yield selected.consumed, selected.read, selected.key
        return
    consumes, reads = transition.consumes, transition.reads
    for consumed in _product(consumes, marking, now, ()):
        if not reads:
            yield consumed, (), None
            continue
        for read in _product(reads, marking, now, consumed):
            yield consumed, read, None


def _product(
    arcs: tuple[InputArc, ...], marking: Marking, now: datetime, without: tuple[Token, ...]
) -> Iterator[tuple[Token, ...]]:
    """Every choice for these arcs together. The arcs of one mode name different places, so only `without` collides."""
    if not arcs:
        yield ()
        return
    arc, rest = arcs[0], arcs[1:]
    chosen = marking.choices(arc.place, now, arc.weight, without)
    if not rest:
        yield from chosen
        return
    for tokens in chosen:
        for more in _product(rest, marking, now, without):
            yield tokens + more
