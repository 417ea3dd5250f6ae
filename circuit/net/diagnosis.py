"""Why a transition does not fire: what is there, what is needed, and what keeps it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from itertools import islice
from typing import Any

from circuit.net.binding import MAX_BINDINGS, Binding, Blocked, Look, bindings
from circuit.net.marking import Marking, Token
from circuit.net.reception import Reception, shown_key
from circuit.net.selection import barred, groups, mark_of, offer
from circuit.net.structure import InputArc, Net, Transition, Trigger

MOST_SHOWN = 5
"""So many keys of messages are named."""


class ReasonKind(StrEnum):
    """`TOKENS` too few lie there; `RESERVED` enough lie there, but firings hold them; `TIME` enough lie there, but
    later; `CAPACITY` a target is full; `GUARD` and `GUARD_FAULT` the guard is false or has no answer; `INCIDENT` an
    open incident is about these tokens; `FILTER` too few are such as an arc takes; `KEY` no tokens with one key are
    there for all arcs; `GROUP` a group is not whole yet; `INHIBITED` tokens lie where they may not; `BINDING_LIMIT` too
    many sets of tokens were tried; `TIMER` it is not due yet; `PERSON` it is enabled and somebody must fire it,
    `MESSAGE` a message must; `AGENT` an agent must be done with a token first."""

    TOKENS = "tokens"
    RESERVED = "reserved"
    TIME = "time"
    CAPACITY = "capacity"
    GUARD = "guard"
    GUARD_FAULT = "guard_fault"
    INCIDENT = "incident"
    FILTER = "filter"
    KEY = "key"
    GROUP = "group"
    INHIBITED = "inhibited"
    BINDING_LIMIT = "binding_limit"
    TIMER = "timer"
    PERSON = "person"
    MESSAGE = "message"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that keeps a transition from firing. `subject` is a place or the transition; `have` and `need` count
    tokens, sets of tokens or room, and are None where nothing is counted."""

    kind: ReasonKind
    subject: str
    have: int | None
    need: int | None
    message: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Whether a transition is enabled and what, if anything, it waits for."""

    transition: str
    enabled: bool
    reasons: tuple[Reason, ...]

    def as_dict(self) -> dict[str, Any]:
        """The diagnosis as plain JSON."""
        return {
            "transition": self.transition,
            "enabled": self.enabled,
            "reasons": [{**asdict(reason), "kind": reason.kind.value} for reason in self.reasons],
        }


def why(
    net: Net,
    marking: Marking,
    transition: str,
    case: Mapping[str, Any],
    now: datetime,
    blocked: Blocked = frozenset(),
) -> Diagnosis:
    """What keeps `transition` from firing. An enabled automatic transition has no reasons; an enabled manual one has
    one, `PERSON`, because it waits for somebody."""
    what = net.transitions[transition]
    reasons = _shortages(what, marking, now) + _lack_of_room(net, marking, transition) + _bars(what, marking, case)
    if not reasons:
        look = Look()
        found = bindings(net, marking, transition, case, now, blocked=blocked, look=look)
        binding = next(found, None)
        if binding is not None and what.reception is not None:
            return _of_message(what.reception, transition, [binding, *islice(found, MOST_SHOWN)], case)
        if binding is not None:
            return Diagnosis(transition, True, _waits_for(net, what))
        reasons = _refusals(what, look) or _selection(what, marking, case, now)
    return Diagnosis(transition, False, tuple(reasons))


def _shortages(transition: Transition, marking: Marking, now: datetime) -> list[Reason]:
    reasons: list[Reason] = []
    for place, need in transition.demand:
        lying, free = marking.count(place), marking.free(place)
        if marking.ready(place, need, now):
            continue
        have = len(marking.available(place, now))
        if lying < need:
            kind, message = ReasonKind.TOKENS, f"{place} holds {_tokens(lying)}; {need} needed"
        elif free < need:
            kind = ReasonKind.RESERVED
            message = (
                f"{place} holds {_tokens(lying)}, {lying - free} of them reserved by running firings; {need} needed"
            )
        else:
            waiting = [at for token in marking.tokens(place) if (at := token.available_at) is not None and at > now]
            kind, message = ReasonKind.TIME, f"a token of {place} is available only at {min(waiting).isoformat()}"
        reasons.append(Reason(kind, place, have, need, message))
    return reasons


def _lack_of_room(net: Net, marking: Marking, transition: str) -> list[Reason]:
    reasons: list[Reason] = []
    for place, extra, capacity, emptied in net.rooms[transition]:
        lying, reserved = 0 if emptied else marking.count(place), marking.room_reserved(place)
        have = max(0, capacity - lying - reserved)
        if have < extra:
            kept = f" and room for {reserved} is reserved" if reserved else ""
            message = f"{place} takes {capacity}, holds {_tokens(lying)}{kept}; room for {extra} needed"
            reasons.append(Reason(ReasonKind.CAPACITY, place, have, extra, message))
    return reasons


def _bars(transition: Transition, marking: Marking, case: Mapping[str, Any]) -> list[Reason]:
    """What lies where an inhibit arc wants it not to, whatever is bound."""
    found = barred(transition, marking, case)
    if found is None:
        return []
    arc, lying, fault = found
    if fault:
        return [Reason(ReasonKind.INHIBITED, arc.place, None, arc.weight, f"whether {arc.place} is clear: {fault}")]
    such = f" of which {arc.where.source}" if arc.where is not None else ""
    wanted = "none may lie" if arc.weight == 1 else f"fewer than {arc.weight} may lie"
    message = f"{arc.place} holds {_tokens(len(lying))}{such}; {wanted} there"
    return [Reason(ReasonKind.INHIBITED, arc.place, len(lying), arc.weight, message)]


def _selection(transition: Transition, marking: Marking, case: Mapping[str, Any], now: datetime) -> list[Reason]:
    """Why the arcs find no tokens that they may take together, although as many lie there as they ask for."""
    reasons: list[Reason] = []
    keys: set[Any] | None = None
    for arc in (*transition.consumes, *transition.reads):
        found = offer(arc, marking.available(arc.place, now), case)
        if found.passed < arc.weight and arc.gather is None:
            what = f"are such that {arc.where.source}" if arc.where is not None else f"have {arc.correlate}"
            fault = f" ({found.fault})" if found.fault else ""
            message = f"{found.passed} of {_tokens(found.seen)} in {arc.place} {what}; {arc.weight} needed{fault}"
            reasons.append(Reason(ReasonKind.FILTER, arc.place, found.passed, arc.weight, message))
        if arc.correlate is not None:
            own = {key for key, tokens in found.by_key.items() if len(tokens) >= arc.weight}
            keys = own if keys is None else keys & own
        if arc.gather is not None and not any(groups(arc, found.tokens)):
            reasons.append(_unfinished(arc, found.tokens))
    if not reasons and keys is not None and not keys:
        binding = (*transition.consumes, *transition.reads)
        places = ", ".join(dict.fromkeys(arc.place for arc in binding if arc.correlate is not None))
        message = f"no key is shared by tokens of {places}, as many as each arc takes"
        reasons.append(Reason(ReasonKind.KEY, transition.name, None, None, message))
    return reasons or [Reason(ReasonKind.TOKENS, transition.name, None, None, "no tokens fit all of its arcs together")]


def _unfinished(arc: InputArc, tokens: Sequence[Token]) -> Reason:
    """The group of which most is there."""
    marks = [mark for token in tokens if (mark := mark_of(arc.gather or "", token)) is not None and "index" in mark]
    there = Counter(mark["id"] for mark in marks)
    if not marks:
        message = f"{arc.place} holds no token of a group that {arc.gather} made"
        return Reason(ReasonKind.GROUP, arc.place, 0, None, message)
    most, have = there.most_common(1)[0]
    need = next(mark["size"] for mark in marks if mark["id"] == most)
    message = f"{have} of {need} tokens of a group that {arc.gather} made are in {arc.place}"
    return Reason(ReasonKind.GROUP, arc.place, have, need, message)


def _refusals(what: Transition, look: Look) -> list[Reason]:
    """Why none of the sets of tokens that were tried is a binding."""
    transition = what.name
    reasons: list[Reason] = []
    if look.refused:
        kind = ReasonKind.GUARD_FAULT if look.faulty else ReasonKind.GUARD
        reasons += [Reason(kind, transition, None, None, reason) for reason in look.reasons]
        if look.refused > 1:
            more = f"{look.refused} sets of tokens were tried; the reasons are those of the first"
            reasons.append(Reason(kind, transition, look.refused, None, more))
    if look.blocked:
        message = "an open incident keeps it from these tokens: retry or resolve it"
        reasons.append(Reason(ReasonKind.INCIDENT, transition, look.blocked, None, message))
    if look.barred:
        places = ", ".join(dict.fromkeys(arc.place for arc in what.inhibits if arc.correlate is not None))
        message = f"tokens with the same key lie in {places}"
        reasons.append(Reason(ReasonKind.INHIBITED, transition, look.barred, None, message))
    if look.early:
        when = f"is due at {look.due.isoformat()}" if look.due is not None else "no time makes it due"
        reasons.append(Reason(ReasonKind.TIMER, transition, look.early, None, when))
    if look.limited:
        message = f"more than {MAX_BINDINGS} sets of tokens would have to be tried; make the guard's places smaller"
        reasons.append(Reason(ReasonKind.BINDING_LIMIT, transition, look.examined, None, message))
    return reasons


def _of_message(reception: Reception, transition: str, found: Sequence[Binding], case: Mapping[str, Any]) -> Diagnosis:
    """An enabled transition whose message has not come, or whose tokens have no key that one could have."""
    keys = list(dict.fromkeys(key for one in found if (key := reception.key(one.scope(case))) is not None))
    if not keys:
        paths = ", ".join(path.text for path in reception.correlate)
        message = f"waits for the message {reception.name}, but no token has a text or a whole number at {paths}"
        return Diagnosis(transition, False, (Reason(ReasonKind.MESSAGE, transition, None, None, message),))
    more = " and more" if len(found) > MOST_SHOWN else ""
    message = f"waits for the message {reception.name} with {' or '.join(map(shown_key, keys[:MOST_SHOWN]))}{more}"
    return Diagnosis(transition, True, (Reason(ReasonKind.MESSAGE, transition, None, None, message),))


def _waits_for(net: Net, transition: Transition) -> tuple[Reason, ...]:
    if transition.trigger is Trigger.AGENT:
        agents = [one.name for one in net.transitions.values() if one.then == transition.name]
        message = f"fires when {' or '.join(agents)} is done with a token"
        return (Reason(ReasonKind.AGENT, transition.name, None, None, message),)
    if transition.trigger is not Trigger.MANUAL:
        return ()
    roles = sorted(transition.manual.roles) if transition.manual else []
    who = f"somebody with the role {' or '.join(roles)}" if roles else "somebody"
    return (Reason(ReasonKind.PERSON, transition.name, None, None, f"waits for {who} to fire it"),)


def _tokens(count: int) -> str:
    return f"{count} token{'' if count == 1 else 's'}"
