"""Which tokens the arcs of a transition may take together: filters, keys on which arcs agree, whole groups.

The order is that of bindings: the arcs in their order, lower token numbers first, or higher ones where an arc says so.
A token for which a filter has no answer is not taken, and it is noted why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from datetime import datetime
from typing import Any

from circuit.expressions.cel import EvaluationFault
from circuit.expressions.path import MISSING
from circuit.expressions.value import is_object, key_of
from circuit.net.marking import Marking, Token
from circuit.net.scope import ScopePath, token_view
from circuit.net.structure import InputArc, Mode, Transition
from circuit.value import dataclass

FAN_OUT = "fan_out"
"""Where the metadata of a token says which element of which list it was made for: by the transition that made it,
`{"id", "size", "index"}`; what the same firing made beside them has no `index`."""

_NO_KEY = object()
"""No arc with a key has been chosen for yet."""


@dataclass(frozen=True, slots=True)
class Selected:
    """One way to serve the arcs: the tokens of the arcs that consume, of those that read, and the key, if there is
    one."""

    consumed: tuple[Token, ...]
    read: tuple[Token, ...]
    key: Any = _NO_KEY


@dataclass(slots=True)
class Offer:
    """What one arc may choose from: the tokens that pass its filter, and by their keys where it has one. `passed` of
    `seen` tokens are left; `fault` says of one of the others why there was no answer."""

    arc: InputArc
    tokens: list[Token] = field(default_factory=list[Token])
    by_key: dict[Any, list[Token]] = field(default_factory=dict[Any, list[Token]])
    seen: int = 0
    fault: str = ""

    @property
    def passed(self) -> int:
        return len(self.tokens)


def offer(arc: InputArc, tokens: Sequence[Token], case: Mapping[str, Any]) -> Offer:
    """What `arc` may choose from, of these tokens of its place."""
    found = Offer(arc, seen=len(tokens))
    for token in reversed(tokens) if arc.newest else tokens:
        reason = refusal(arc, token, case)
        if reason is not None:
            found.fault = found.fault or reason
            continue
        if arc.correlate is not None:
            key = key_at(arc.correlate, token)
            if key is MISSING:
                found.fault = found.fault or f"token {token.number} of {arc.place} has no {arc.correlate}"
                continue
            found.by_key.setdefault(key, []).append(token)
        found.tokens.append(token)
    return found


def refusal(arc: InputArc, token: Token, case: Mapping[str, Any]) -> str | None:
    """None if the token passes the arc's filter; else why there is no answer, or nothing if the answer is no."""
    if arc.where is None:
        return None
    try:
        value = arc.where.evaluate({"token": token_view(token, case)})
    except EvaluationFault as fault:
        return f"token {token.number}: {fault}"
    if value is True:
        return None
    return "" if value is False else f"token {token.number}: {arc.where.source} gives no true or false"


def key_at(path: ScopePath, token: Token) -> Any:
    """The token's key at this path, or `MISSING`."""
    value = path.get({"data": token.data, "metadata": token.metadata})
    return value if value is MISSING else key_of(value)


def agreed_key(transition: Transition, consumed: Sequence[Token], read: Sequence[Token]) -> Any:
    """The key on which the arcs of a binding with these tokens agree. Which arc took which token says their order
    alone: two arcs may take from one place, and only one of them have a key."""
    for arcs, tokens in ((transition.consumes, consumed), (transition.reads, read)):
        position = 0
        for arc in arcs:
            if arc.correlate is not None and position < len(tokens):
                return key_at(arc.correlate, tokens[position])
            if arc.several:
                # No other arc takes from the place of one that drains, and those that gather come last, without a key.
                position += sum(token.place == arc.place for token in tokens)
            else:
                position += arc.weight
    return _NO_KEY


def selections(transition: Transition, marking: Marking, now: datetime, case: Mapping[str, Any]) -> Iterator[Selected]:
    """Every way to serve the arcs of the transition, in order. Lazy; the marking must not change meanwhile."""
    arcs = (*transition.consumes, *transition.reads)
    offers = [offer(arc, marking.available(arc.place, now), case) for arc in arcs]
    many = len(transition.consumes)
    for chosen, key in _combined(offers, 0, _NO_KEY, ()):
        consumed = tuple([token for tokens in chosen[:many] for token in tokens])
        read = tuple([token for tokens in chosen[many:] for token in tokens])
        yield Selected(consumed, read, key)


def _combined(
    offers: Sequence[Offer], at: int, key: Any, taken: tuple[Token, ...]
) -> Iterator[tuple[tuple[tuple[Token, ...], ...], Any]]:
    if at == len(offers):
        yield (), key
        return
    for chosen, agreed in _choices(offers[at], key, taken):
        for more, found in _combined(offers, at + 1, agreed, taken + chosen):
            yield (chosen, *more), found


def _choices(offered: Offer, key: Any, taken: tuple[Token, ...]) -> Iterator[tuple[tuple[Token, ...], Any]]:
    """What one arc may take when `taken` is taken already and the arcs before it agreed on `key`."""
    arc = offered.arc
    without = {token.number for token in taken}
    if arc.gather is not None:
        pool = offered.tokens if arc.correlate is None or key is _NO_KEY else offered.by_key.get(key, [])
        for group in groups(arc, pool, taken):
            yield group, key
    elif arc.correlate is None:
        for chosen in _taken_from(arc, [token for token in offered.tokens if token.number not in without]):
            yield chosen, key
    elif key is not _NO_KEY:
        pool = [token for token in offered.by_key.get(key, ()) if token.number not in without]
        for chosen in _taken_from(arc, pool):
            yield chosen, key
    elif arc.mode is Mode.DRAIN:
        for own, tokens in offered.by_key.items():
            for chosen in _taken_from(arc, [token for token in tokens if token.number not in without]):
                yield chosen, own
    else:
        # In the order of their numbers over all keys: the first token decides on the key.
        places = dict.fromkeys(offered.by_key, 0)
        key_by_number = {token.number: own for own, tokens in offered.by_key.items() for token in tokens}
        for token in offered.tokens:
            own = key_by_number[token.number]
            places[own] += 1
            if token.number in without:
                continue
            rest = [one for one in offered.by_key[own][places[own] :] if one.number not in without]
            for more in _several(rest, arc.weight - 1):
                yield (token, *more), own


def _taken_from(arc: InputArc, tokens: list[Token]) -> Iterator[tuple[Token, ...]]:
    if arc.mode is Mode.DRAIN:
        if len(tokens) >= arc.weight:
            yield tuple(tokens)
        return
    yield from _several(tokens, arc.weight)


def _several(tokens: list[Token], count: int, start: int = 0) -> Iterator[tuple[Token, ...]]:
    if count == 0:
        yield ()
        return
    for position in range(start, len(tokens) - count + 1):
        for rest in _several(tokens, count - 1, position + 1):
            yield (tokens[position], *rest)


def groups(arc: InputArc, tokens: Sequence[Token], beside: Sequence[Token] = ()) -> Iterator[tuple[Token, ...]]:
    """The whole groups among these tokens, each in the order of its elements: the one that a token of `beside`, taken
    from another place, belongs to; or else each of which tokens are there, that of the lowest number first."""
    assert arc.gather is not None
    members: dict[str, dict[int, Token]] = {}
    sizes: dict[str, int] = {}
    for token in tokens:
        mark = mark_of(arc.gather, token)
        if mark is not None and isinstance(mark.get("index"), int):
            members.setdefault(mark["id"], {}).setdefault(mark["index"], token)
            sizes[mark["id"]] = mark["size"]
    named = [mark for token in beside if (mark := mark_of(arc.gather, token)) is not None]
    wanted = {mark["id"]: mark["size"] for mark in named} if named else sizes
    if len(wanted) > 1 and named:
        return
    for name, size in wanted.items():
        found = members.get(name, {})
        if len(found) >= size and all(index in found for index in range(size)):
            yield tuple([found[index] for index in range(size)])


def mark_of(transition: str, token: Token) -> Mapping[str, Any] | None:
    """What the token's metadata says of the group that a firing of `transition` made it for."""
    marks = token.metadata.get(FAN_OUT)
    found: object = marks.get(transition) if is_object(marks) else None
    if not is_object(found) or not isinstance(found.get("id"), str) or not isinstance(found.get("size"), int):
        return None
    return found


def barred(
    transition: Transition, marking: Marking, case: Mapping[str, Any], key: Any = _NO_KEY
) -> tuple[InputArc, list[Token], str] | None:
    """What keeps the transition from firing with this key: an arc that wants fewer tokens than lie there, those tokens,
    and why it is so where a filter has no answer. None if nothing does. Tokens that are reserved lie there too."""
    for arc in transition.inhibits:
        if arc.correlate is not None and key is _NO_KEY:
            continue
        lying: list[Token] = []
        for token in marking.tokens(arc.place):
            if arc.correlate is not None and key_at(arc.correlate, token) != key:
                continue
            reason = refusal(arc, token, case)
            if reason:
                return arc, [token], reason
            if reason is None:
                lying.append(token)
        if len(lying) >= arc.weight:
            return arc, lying, ""
    return None


def keyless(transition: Transition) -> bool:
    """Whether what bars the transition does not depend on what it binds."""
    return all(arc.correlate is None for arc in transition.inhibits)


def doomed(
    transition: Transition,
    marking: Marking,
    consumed: Sequence[Token],
    read: Sequence[Token],
    case: Mapping[str, Any],
) -> list[Token]:
    """The tokens that a firing that bound these takes by its reset arcs, reserved or not, in order of their numbers.
    A token for which a filter has no answer stays."""
    if not transition.resets:
        return []
    own = {token.number for token in consumed}
    key = agreed_key(transition, consumed, read)
    found: dict[int, Token] = {}
    for arc in transition.resets:
        for token in marking.tokens(arc.place):
            if token.number in own or (arc.correlate is not None and key_at(arc.correlate, token) != key):
                continue
            if refusal(arc, token, case) is None:
                found[token.number] = token
    return [found[number] for number in sorted(found)]
