"""An independent oracle for the firing rule: brute force over plain dicts, sharing no code with Circuit.

It knows enabledness, the order of choice, and what `fire`, `begin`, `complete`, `abort` and `fail` make of a marking.
Everything is recomputed from nothing on every call, and every function returns a new marking.

A net:
    {"places": {"p": capacity or None, ...},
     "transitions": {"t": {"consume": [(place, weight), ...], "read": [...], "produce": [...],   (in file order)
                           "priority": 0, "acting": False, "auto": True, "on_failure": None or place,
                           "guard": None or a function of (consumed tokens, read tokens)}}}
The keys after `produce` may be left out. So may
    "drain": [(place, least), ...], "inhibit": [(place, weight), ...], "reset": [place, ...],
    "filters": {(kind, position): a function of a token's data}, "keys": {(kind, position): a field of the data},
where `kind` is one of consume, drain, read, inhibit and reset: the arc takes or means only tokens that pass, and all
arcs with a key take tokens with equal ones; an inhibit or reset arc with a key means those with that key. A guard says
True or False; one that raises says that it has no answer. And so may
    "newest": the arcs that look at the highest numbers first,
    "each": {position in produce: a function of the data of the one token that is taken, which gives a list of data},
    "gather": the label of such a transition, of which the last arc of consume takes a token for each element,
    "label": the name that choices of one transition share.
Time is counted in milliseconds. A transition with `after` takes its tokens so long after the last of them came. One
with `refresh` ({"delay", "interval", "most", "missed"}) runs on the token of its one place and patches it there.

A marking:
    {"tokens": {number: {"place": "p", "version": 1, "data": {...}, "later": False}}, "next": next token number,
     "firings": {firing: (transition, consumed numbers, read numbers)},    begun and neither completed nor aborted
     "beheld": {firing: {number: token}},                  what a firing had bound as it began
     "refreshes": {firing: (transition, number, version)},                 the same, of those that hold nothing
     "blocked": {(transition, ((number, version), ...)), ...},             tokens that open incidents are about
     "marks": {number: {label: (group, its size, index or None)}},         tokens that belong to what a list became
     "clock": 0}
Each token has `entered`, when it came, and `runs`: {transition: (how often it ran, when the last was due, its firing)}.
`later` is a token that is not available yet. Where several tokens are consumed their data is merged, the last one
winning (`merge: last`).
"""

from __future__ import annotations

import itertools


def marking(tokens=(), start=1):
    """A marking of (place, data) pairs, numbered from `start` in their order."""
    lying = {
        number: {"place": place, "version": 1, "data": data, "later": False, "entered": 0, "runs": {}}
        for number, (place, data) in enumerate(tokens, start)
    }
    empty = {"firings": {}, "beheld": {}, "refreshes": {}, "blocked": set(), "marks": {}, "clock": 0}
    return {"tokens": lying, "next": start + len(lying), **empty}


def bindings(net, now, name):
    """All bindings of a transition, as (consumed numbers, read numbers), in the order in which they are tried."""
    return [found for found, due in _possible(net, now, name) if due is not None and due <= now["clock"]]


def next_due(net, now):
    """When time alone enables a transition next, or None."""
    times = [
        due
        for name, transition in net["transitions"].items()
        if transition.get("auto", True)
        for _, due in _possible(net, now, name)
        if due is not None and due > now["clock"]
    ]
    return min(times, default=None)


def _possible(net, now, name):
    """All bindings of a transition but for the time, each with the time from which it may fire."""
    transition = net["transitions"][name]
    consume, drain, read = (transition.get(kind, []) for kind in ("consume", "drain", "read"))
    gather = transition.get("gather")
    held = {number for _, consumed, _ in now["firings"].values() for number in consumed}
    pools, arcs = [], []
    for kind, kind_arcs in (("consume", consume), ("drain", drain), ("read", read)):
        for position, (place, weight) in enumerate(kind_arcs):
            arc = (kind, position)
            free = sorted(
                number
                for number, token in now["tokens"].items()
                if token["place"] == place
                and not token["later"]
                and number not in held
                and _passes(transition, arc, token) is True
            )
            if gather is not None and arc == ("consume", len(consume) - 1):
                grouped = free
                continue
            if arc in transition.get("newest", ()):
                free.reverse()
            if len(free) < weight:
                return []
            arcs.append(arc)
            if kind == "drain":
                parts = [free]
                if arc in transition.get("keys", {}):
                    keys = dict.fromkeys(_key(transition, arc, now["tokens"][number]) for number in free)
                    parts = [[n for n in free if _key(transition, arc, now["tokens"][n]) == key] for key in keys]
                pools.append([tuple(part) for part in parts if len(part) >= weight])
            else:
                pools.append([tuple(chosen) for chosen in itertools.combinations(free, weight)])
    if not has_room(net, now, name):
        return []
    found = []
    many = len(pools) - len(read)
    for choice in itertools.product(*pools):
        taken = tuple(itertools.chain.from_iterable(choice[:many]))
        seen = tuple(itertools.chain.from_iterable(choice[many:]))
        for whole in [()] if gather is None else _groups(now, gather, grouped, taken):
            consumed = taken + whole
            twice = len(set(consumed + seen)) < len(consumed + seen)
            if twice or (name, _versions(now, consumed)) in now["blocked"]:
                continue
            keys = _keys_of(transition, now, arcs, choice)
            if len(keys) > 1 or "none" in keys or _barred(transition, now, keys):
                continue
            if _guard_holds(transition, now, consumed, seen):
                found.append(((consumed, seen), _due(transition, name, now, consumed)))
    return found


def _groups(now, label, numbers, beside):
    """The whole groups among these tokens: the one that a token of `beside` belongs to, or else any."""
    marks = {number: now["marks"].get(number, {}).get(label) for number in {*numbers, *beside}}
    wanted = {marks[number][:2] for number in beside if marks[number]}
    if len(wanted) > 1:
        return []
    if not wanted:
        # Those of which a token is there, in the order of the first one.
        wanted = dict.fromkeys(
            marks[number][:2] for number in numbers if marks[number] and marks[number][2] is not None
        )
    found = []
    for group, size in wanted:
        members = {}
        for number in numbers:
            if marks[number] and marks[number][0] == group and marks[number][2] is not None:
                members.setdefault(marks[number][2], number)
        if all(index in members for index in range(size)):
            found.append(tuple(members[index] for index in range(size)))
    return found


def _passes(transition, arc, token):
    """True, False, or None where there is no answer."""
    wanted = transition.get("filters", {}).get(arc)
    try:
        return True if wanted is None else wanted(token["data"])
    except KeyError:
        return None


def _key(transition, arc, token):
    field = transition["keys"][arc]
    return token["data"].get(field, "none")


def _keys_of(transition, now, arcs, choice):
    return {
        _key(transition, arc, now["tokens"][number])
        for arc, numbers in zip(arcs, choice, strict=True)
        if arc in transition.get("keys", {})
        for number in numbers
    }


def _meant(transition, now, arc, place, keys):
    """The tokens of a place that an arc means as a whole, and whether of one there is no answer."""
    lying, doubtful = [], False
    for number, token in sorted(now["tokens"].items()):
        if token["place"] != place:
            continue
        if arc in transition.get("keys", {}) and {_key(transition, arc, token)} != keys:
            continue
        passes = _passes(transition, arc, token)
        doubtful = doubtful or passes is None
        if passes is True:
            lying.append(number)
    return lying, doubtful


def _barred(transition, now, keys):
    for position, (place, weight) in enumerate(transition.get("inhibit", [])):
        lying, doubtful = _meant(transition, now, ("inhibit", position), place, keys)
        if doubtful or len(lying) >= weight:
            return True
    return False


def doomed(net, now, name, consumed, seen, bound):
    """The numbers of the tokens that a firing takes by its reset arcs; `bound` are its tokens as they were bound."""
    transition = net["transitions"][name]
    arcs = [
        (kind, position) for kind in ("consume", "drain", "read") for position in range(len(transition.get(kind, [])))
    ]
    gathering = ("consume", len(transition["consume"]) - 1) if transition.get("gather") is not None else None
    fixed = {arc: transition[arc[0]][arc[1]][1] for arc in arcs if arc[0] != "drain" and arc != gathering}
    rest = list(consumed) + list(seen)
    choice = []
    for arc in arcs:  # one drain or one that gathers at most: it has what the others leave
        many = fixed.get(arc, len(consumed) + len(seen) - sum(fixed.values()))
        choice.append(rest[:many])
        rest = rest[many:]
    keys = _keys_of(transition, {"tokens": bound}, arcs, choice)
    found = set()
    for position, place in enumerate(transition.get("reset", [])):
        found |= set(_meant(transition, now, ("reset", position), place, keys)[0])
    return sorted(found - set(consumed))


def _clear(net, now, name, consumed, seen, bound):
    """Take what is reset, and cancel the firings that hold some of it."""
    gone = doomed(net, now, name, consumed, seen, bound)
    for firing, (_, held, _) in list(now["firings"].items()):
        if set(held) & set(gone):
            now = abort(now, firing)
    for firing, (_, number, _) in list(now["refreshes"].items()):
        if number in gone:
            now = abort(now, firing)
    after = _copy(now)
    for number in gone:
        del after["tokens"][number]
        after["marks"].pop(number, None)
    return after


def _due(transition, name, now, consumed):
    if transition.get("refresh"):
        return _refresh_due(transition["refresh"], name, now, now["tokens"][consumed[0]])
    after = transition.get("after")
    return now["clock"] if after is None else max(now["tokens"][number]["entered"] for number in consumed) + after


def _refresh_due(rhythm, name, now, token):
    """The time of the next run, found by counting up from the first."""
    if any(firing is not None for _, _, firing in token["runs"].values()):
        return None
    count, last, _ = token["runs"].get(name, (0, None, None))
    interval = rhythm["interval"]
    most = 1 if interval is None else rhythm["most"]
    if most is not None and count >= most:
        return None
    due = token["entered"] + rhythm["delay"]
    if interval is None:
        return due
    while last is not None and due <= last:
        due += interval
    if due > now["clock"] or rhythm["missed"] == "all":
        return due
    while due + interval <= now["clock"]:
        due += interval
    if rhythm["missed"] == "skip" and now["clock"] - due > 60_000:
        due += interval
    return due


def choose(net, now):
    """What fires next of its own: (transition, consumed, read), or None."""
    offers = []
    for name, transition in net["transitions"].items():
        if not transition.get("auto", True):
            continue
        for consumed, seen in bindings(net, now, name)[:1]:
            key = (bool(transition.get("acting")), -transition.get("priority", 0), consumed + seen, name)
            offers.append((key, (name, consumed, seen)))
    return min(offers)[1] if offers else None


def fire(net, now, name, consumed, seen=()):
    """Consume and produce at once. A token that goes one in, one out keeps its number; else there are new ones."""
    _assert_binding(net, now, name, consumed, seen)
    return _exchange(net, _clear(net, now, name, consumed, seen, now["tokens"]), name, consumed)


def begin(net, now, name, consumed, seen, firing):
    """Reserve the consumed tokens, and room for what may come of it."""
    _assert_binding(net, now, name, consumed, seen)
    if net["transitions"][name].get("refresh"):
        return _refresh(now, name, consumed[0], _due(net["transitions"][name], name, now, consumed), firing)
    after = _copy(now)
    after["firings"][firing] = (name, tuple(consumed), tuple(seen))
    after["beheld"][firing] = {number: now["tokens"][number] for number in (*consumed, *seen)}
    return after


def summon(net, now, name, number, firing):
    """Somebody asks an agent of a place to run on a token now: nobody holds it, and no agent runs on it."""
    transition = net["transitions"][name]
    token = now["tokens"][number]
    assert token["place"] == transition["consume"][0][0]
    assert not any(number in consumed for _, consumed, _ in now["firings"].values())
    assert all(run is None for _, _, run in token["runs"].values())
    assert (name, _versions(now, (number,))) not in now["blocked"]
    assert _guard_holds(transition, now, (number,), ())
    return _refresh(now, name, number, now["clock"], firing)


def _refresh(now, name, number, due, firing):
    after = _copy(now)
    token = after["tokens"][number]
    count = token["runs"].get(name, (0, None, None))[0]
    token["runs"] = {**token["runs"], name: (count + 1, due, firing)}
    after["refreshes"][firing] = (name, number, token["version"])
    return after


def complete(net, now, firing, outputs=None):
    """The action of a firing is done: consume and produce. `outputs` are written into the data of every new token."""
    after = _copy(now)
    if firing in after["refreshes"]:
        return _patch(after, firing, outputs)
    name, consumed, seen = after["firings"].pop(firing)
    bound = after["beheld"].pop(firing)
    return _exchange(net, _clear(net, after, name, consumed, seen, bound), name, consumed, outputs)


def superseded(now, firing):
    """Whether the token of a refresh does not lie there any more as it was read, or is held by somebody."""
    _, number, version = now["refreshes"][firing]
    held = {one for _, consumed, _ in now["firings"].values() for one in consumed}
    token = now["tokens"].get(number)
    return token is None or token["version"] != version or number in held


def _patch(after, firing, outputs):
    over = superseded(after, firing)
    name, number, _ = after["refreshes"].pop(firing)
    token = after["tokens"].get(number)
    _run_over(token, name, firing)
    if not over:
        token["version"] += 1
        token["data"] = {**token["data"], **(outputs or {})}
    return after


def _run_over(token, name, firing, undone=False):
    """A run ends on the token that has it, if one has."""
    if token is None or token["runs"].get(name, (0, None, None))[2] != firing:
        return
    count, due, _ = token["runs"][name]
    rest = {one: run for one, run in token["runs"].items() if one != name}
    token["runs"] = rest if undone else {**rest, name: (count, due, None)}


def abort(now, firing):
    """Undo a begin."""
    after = _copy(now)
    if firing in after["refreshes"]:
        name, number, _ = after["refreshes"].pop(firing)
        _run_over(after["tokens"].get(number), name, firing)
        return after
    del after["firings"][firing], after["beheld"][firing]
    return after


def fail(net, now, firing):
    """A firing failed for good: its tokens move to `on_failure`, or stay and are blocked for this transition."""
    if firing in now["refreshes"]:
        return _fail_refresh(net, now, firing)
    after = abort(now, firing)
    name, consumed, _ = now["firings"][firing]
    place = net["transitions"][name].get("on_failure")
    if place is None:
        after["blocked"].add((name, _versions(now, consumed)))
        return after
    for number in consumed:
        token = after["tokens"][number]
        after["tokens"][number] = _token(after, place, token["version"] + 1, token["data"])
    return after


def _fail_refresh(net, now, firing):
    """One that runs once is blocked until somebody says that it may try again; any other has its next time."""
    after = _copy(now)
    name, number, version = after["refreshes"].pop(firing)
    once = net["transitions"][name]["refresh"]["interval"] is None
    _run_over(after["tokens"].get(number), name, firing, undone=once)
    if once:
        after["blocked"].add((name, ((number, version),)))
    return after


def has_room(net, now, name):
    """Whether no capacity is passed, whatever becomes of this firing and of all that have begun."""
    bounded = [place for place, more in _room(net, name).items() if more and net["places"][place] is not None]
    if not bounded:
        return True
    most = dict.fromkeys(net["places"], 0)
    for token in now["tokens"].values():
        most[token["place"]] += token["place"] not in _emptied(net["transitions"][name])
    for open_name in [name, *(begun for begun, _, _ in now["firings"].values())]:
        for place, more in _room(net, open_name).items():
            most[place] += more
    return all(most[place] <= net["places"][place] for place in bounded)


def _emptied(transition):
    """The places of which a firing takes all that lies there before it puts anything in."""
    choosy = {*transition.get("filters", {}), *transition.get("keys", {})}
    return {place for number, place in enumerate(transition.get("reset", [])) if ("reset", number) not in choosy}


def _room(net, name):
    """For how many tokens more than it takes away a firing needs room, by place."""
    transition = net["transitions"][name]
    taken = {}
    for place, weight in [*transition["consume"], *transition.get("drain", [])]:
        taken[place] = taken.get(place, 0) + weight
    ends = [{}]
    for place, weight in transition["produce"]:
        ends[0][place] = ends[0].get(place, 0) + weight
    if transition.get("acting") and transition.get("on_failure"):
        ends.append({transition["on_failure"]: sum(taken.values())})
    places = {place for end in ends for place in end}
    for place in _emptied(transition):
        taken[place] = 0
    return {place: max(0, max(end.get(place, 0) for end in ends) - taken.get(place, 0)) for place in places}


def _copy(now):
    """A marking that can be changed without changing `now`; the data of a token is only ever exchanged as a whole."""
    return {
        "tokens": {number: dict(token) for number, token in now["tokens"].items()},
        "next": now["next"],
        "firings": dict(now["firings"]),
        "beheld": dict(now["beheld"]),
        "refreshes": dict(now["refreshes"]),
        "clock": now["clock"],
        "blocked": set(now["blocked"]),
        "marks": dict(now["marks"]),
    }


def _exchange(net, now, name, consumed, outputs=None):
    after = _copy(now)
    transition = net["transitions"][name]
    each = transition.get("each", {})
    old = [after["tokens"].pop(number) for number in consumed]
    data = {}
    for token in old:
        data.update(token["data"])
    marks = _marks_left(transition, [after["marks"].pop(number, {}) for number in consumed])
    made = []
    lists = {position: of(dict(data)) for position, of in each.items()}
    group = (f"{consumed[0]}.{old[0]['version']}", len(next(iter(lists.values())))) if lists else None
    label = transition.get("label", name)
    plain = {**data, **(outputs or {})}
    for position, (place, weight) in enumerate(transition["produce"]):
        if position in lists:
            made += [(place, one, {**marks, label: (*group, index)}) for index, one in enumerate(lists[position])]
        else:
            made += [(place, dict(plain), {**marks, label: (*group, None)} if group else marks)] * weight
    if len(old) == 1 and len(made) == 1 and not {"drain", "gather"} & _kinds(transition) and not each:
        version = old[0]["version"] + 1
        after["tokens"][consumed[0]] = _token(after, made[0][0], version, made[0][1])
        after["marks"] |= {consumed[0]: marks} if marks else {}
        return after
    for place, own, marked in made:
        after["tokens"][after["next"]] = _token(after, place, 1, own)
        after["marks"] |= {after["next"]: marked} if marked else {}
        after["next"] += 1
    return after


def _kinds(transition):
    return {kind for kind in ("drain", "gather") if transition.get(kind)}


def _marks_left(transition, marks):
    """The marks of what comes of these tokens: of several that have some, the last one's. Who gathers takes off those
    of the groups that it gathers."""
    if len(marks) == 1 and not _kinds(transition):
        return marks[0]
    rest = [{label: mark for label, mark in one.items() if label != transition.get("gather")} for one in marks]
    return next((one for one in reversed(rest) if one), {})


def _token(now, place, version, data):
    return {"place": place, "version": version, "data": data, "later": False, "entered": now["clock"], "runs": {}}


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
