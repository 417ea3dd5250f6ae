"""An independent oracle for the firing rule: brute force over plain dicts, sharing no code with Circuit.

It knows enabledness, the order of choice, and what `fire`, `begin`, `complete`, `abort` and `fail` make of a marking.
Everything is recomputed from nothing on every call, and every function returns a new marking.

A net:
    {"places": {"p": capacity or None, ...},
     "transitions": {"t": {"consume": [(place, weight), ...], "read": [...], "produce": [...],   (in file order)
                           "priority": 0, "acting": False, "auto": True, "on_failure": None or place,
                           "guard": None or a function of (consumed tokens, read tokens)}}}
The keys after `produce` may be left out. A guard says True or False; one that raises says that it has no answer.

A marking:
    {"tokens": {number: {"place": "p", "version": 1, "data": {...}, "later": False}}, "next": next token number,
     "firings": {firing: (transition, consumed numbers, read numbers)},    begun and neither completed nor aborted
     "blocked": {(transition, ((number, version), ...)), ...}}             tokens that open incidents are about
`later` is a token that is not available yet. Where several tokens are consumed their data is merged, the last one
winning (`merge: last`).
"""

from __future__ import annotations

import itertools


def marking(tokens=(), start=1):
    """A marking of (place, data) pairs, numbered from `start` in their order."""
    lying = {
        number: {"place": place, "version": 1, "data": data, "later": False}
        for number, (place, data) in enumerate(tokens, start)
    }
    return {"tokens": lying, "next": start + len(lying), "firings": {}, "blocked": set()}


def bindings(net, now, name):
    """All bindings of a transition, as (consumed numbers, read numbers), in the order in which they are tried."""
    transition = net["transitions"][name]
    if not has_room(net, now, name):
        return []
    consume, read = transition["consume"], transition.get("read", [])
    held = {number for _, consumed, _ in now["firings"].values() for number in consumed}
    pools = []
    for place, weight in [*consume, *read]:
        free = sorted(
            number
            for number, token in now["tokens"].items()
            if token["place"] == place and not token["later"] and number not in held
        )
        pools.append([tuple(chosen) for chosen in itertools.combinations(free, weight)])
    found = []
    for choice in itertools.product(*pools):
        consumed = tuple(itertools.chain.from_iterable(choice[: len(consume)]))
        seen = tuple(itertools.chain.from_iterable(choice[len(consume) :]))
        twice = len(set(consumed + seen)) < len(consumed + seen)
        if twice or (name, _versions(now, consumed)) in now["blocked"]:
            continue
        if _guard_holds(transition, now, consumed, seen):
            found.append((consumed, seen))
    return sorted(found, key=lambda binding: binding[0] + binding[1])


def choose(net, now):
    """What fires next of its own: (transition, consumed, read), or None."""
    offers = []
    for name, transition in net["transitions"].items():
        if not transition.get("auto", True):
            continue
        for consumed, seen in bindings(net, now, name):
            key = (bool(transition.get("acting")), -transition.get("priority", 0), consumed + seen, name)
            offers.append((key, (name, consumed, seen)))
    return min(offers)[1] if offers else None


def fire(net, now, name, consumed, seen=()):
    """Consume and produce at once. A token that goes one in, one out keeps its number; else there are new ones."""
    _assert_binding(net, now, name, consumed, seen)
    return _exchange(net, now, name, consumed)


def begin(net, now, name, consumed, seen, firing):
    """Reserve the consumed tokens, and room for what may come of it."""
    _assert_binding(net, now, name, consumed, seen)
    after = _copy(now)
    after["firings"][firing] = (name, tuple(consumed), tuple(seen))
    return after


def complete(net, now, firing, outputs=None):
    """The action of a firing is done: consume and produce. `outputs` are written into the data of every new token."""
    after = _copy(now)
    name, consumed, _ = after["firings"].pop(firing)
    return _exchange(net, after, name, consumed, outputs)


def abort(now, firing):
    """Undo a begin."""
    after = _copy(now)
    del after["firings"][firing]
    return after


def fail(net, now, firing):
    """A firing failed for good: its tokens move to `on_failure`, or stay and are blocked for this transition."""
    after = abort(now, firing)
    name, consumed, _ = now["firings"][firing]
    place = net["transitions"][name].get("on_failure")
    if place is None:
        after["blocked"].add((name, _versions(now, consumed)))
        return after
    for number in consumed:
        after["tokens"][number]["place"] = place
        after["tokens"][number]["version"] += 1
    return after


def has_room(net, now, name):
    """Whether no capacity is passed, whatever becomes of this firing and of all that have begun."""
    bounded = [place for place, more in _room(net, name).items() if more and net["places"][place] is not None]
    if not bounded:
        return True
    most = dict.fromkeys(net["places"], 0)
    for token in now["tokens"].values():
        most[token["place"]] += 1
    for open_name in [name, *(begun for begun, _, _ in now["firings"].values())]:
        for place, more in _room(net, open_name).items():
            most[place] += more
    return all(most[place] <= net["places"][place] for place in bounded)


def _room(net, name):
    """For how many tokens more than it takes away a firing needs room, by place."""
    transition = net["transitions"][name]
    taken = {}
    for place, weight in transition["consume"]:
        taken[place] = taken.get(place, 0) + weight
    ends = [{}]
    for place, weight in transition["produce"]:
        ends[0][place] = ends[0].get(place, 0) + weight
    if transition.get("acting") and transition.get("on_failure"):
        ends.append({transition["on_failure"]: sum(taken.values())})
    places = {place for end in ends for place in end}
    return {place: max(0, max(end.get(place, 0) for end in ends) - taken.get(place, 0)) for place in places}


def _copy(now):
    """A marking that can be changed without changing `now`; the data of a token is only ever exchanged as a whole."""
    return {
        "tokens": {number: dict(token) for number, token in now["tokens"].items()},
        "next": now["next"],
        "firings": dict(now["firings"]),
        "blocked": set(now["blocked"]),
    }


def _exchange(net, now, name, consumed, outputs=None):
    after = _copy(now)
    targets = [place for place, weight in net["transitions"][name]["produce"] for _ in range(weight)]
    old = [after["tokens"].pop(number) for number in consumed]
    data = {}
    for token in old:
        data.update(token["data"])
    data.update(outputs or {})
    if len(old) == 1 and len(targets) == 1:
        version = old[0]["version"] + 1
        after["tokens"][consumed[0]] = {"place": targets[0], "version": version, "data": data, "later": False}
        return after
    for place in targets:
        after["tokens"][after["next"]] = {"place": place, "version": 1, "data": dict(data), "later": False}
        after["next"] += 1
    return after


def _guard_holds(transition, now, consumed, seen):
    guard = transition.get("guard")
    if guard is None:
        return True
    try:
        return guard([now["tokens"][n] for n in consumed], [now["tokens"][n] for n in seen]) is True
    except Exception:
        return False


def _assert_binding(net, now, name, consumed, seen):
    assert (tuple(consumed), tuple(seen)) in bindings(net, now, name), f"{name} cannot fire with {consumed}, {seen}"


def _versions(now, numbers):
    return tuple((number, now["tokens"][number]["version"]) for number in numbers)
