"""Markings, bindings and the firing rule where an example says more than a random net."""

from __future__ import annotations

from datetime import timedelta
from itertools import count, islice
from typing import Any

import pytest
from nets import CASE, NOW, token

from circuit.errors import ColourMismatch, NetError
from circuit.events import TokenImage, TokenRef
from circuit.expressions.cel import compile_expression
from circuit.net.binding import MAX_BINDINGS, Binding, Look, bindings, first_binding, first_enabled
from circuit.net.colour import Colour
from circuit.net.firing import abort, begin, complete, divert, fire
from circuit.net.guard import Guard, Rule
from circuit.net.mapping import Draft, produce
from circuit.net.marking import Marking
from circuit.net.structure import InputArc, Mode, Net, OutputArc, Place, Room, Transition, Trigger

NEVER = Guard((Rule.parse({"field_exists": "metadata.never"}),))


def net(*transitions: Transition, **places: Any) -> Net:
    names = {arc.place for one in transitions for arc in (*one.inputs, *one.outputs)}
    names |= {one.on_failure for one in transitions if one.on_failure}
    return Net.build("n", [Place(name, **places.get(name, {})) for name in sorted(names)], transitions)


def move(name: str, source: str = "a", target: str = "z", **changes: Any) -> Transition:
    return Transition(name, (InputArc(source),), (OutputArc(target),), **changes)


def chosen(net: Net, marking: Marking, *candidates: str) -> str | None:
    binding = first_enabled(net, marking, candidates or net.transitions, CASE, NOW)
    return binding.transition if binding else None


# Markings


def test_tokens_come_in_order_of_their_numbers_however_they_came() -> None:
    marking = Marking(token(number, "a") for number in (5, 1, 9, 3))
    marking.reserve(3, 7)
    marking.move(token(1, "b"))
    marking.put(token(2, "a"))
    assert [one.number for one in marking.tokens("a")] == [2, 3, 5, 9]
    assert [one.number for one in marking.available("a", NOW)] == [2, 5, 9]
    marking.release(3)
    assert [one.number for one in marking.available("a", NOW)] == [2, 3, 5, 9]
    assert [one.number for one in marking.all()] == [1, 2, 3, 5, 9]
    assert (marking.count("a"), marking.count("b"), marking.count("absent")) == (4, 1, 0)
    assert marking.places() == ["a", "b"] and len(marking) == 5 and 9 in marking and 4 not in marking
    assert marking.tokens("absent") == []


def test_a_reserved_token_still_lies_in_its_place() -> None:
    marking = Marking([token(1, "a")])
    marking.reserve(1, 4)
    assert marking.reserved_by(1) == 4 and marking.count("a") == 1 and marking.free("a") == 0
    assert marking.places() == ["a"] and marking.available("a", NOW) == []
    assert marking.take(1) == token(1, "a") and marking.reserved_by(1) is None and marking.places() == []


def test_a_token_is_available_from_its_instant_on() -> None:
    marking = Marking([token(1, "a", available_at=NOW + timedelta(seconds=1)), token(2, "a", available_at=NOW)])
    assert [one.number for one in marking.available("a", NOW)] == [2]
    assert [one.number for one in marking.available("a", NOW + timedelta(seconds=1))] == [1, 2]
    assert marking.first("a", NOW) == marking.get(2) and marking.first("a", NOW - timedelta(1)) is None
    assert marking.ready("a", 1, NOW) and not marking.ready("a", 2, NOW)


@pytest.mark.parametrize(
    "misuse",
    [
        lambda marking: marking.put(token(1, "b")),
        lambda marking: marking.take(3),
        lambda marking: marking.move(token(3, "b")),
        lambda marking: marking.reserve(3, 1),
        lambda marking: marking.reserve(2, 1),
        lambda marking: marking.release(1),
        lambda marking: marking.release(3),
        lambda marking: marking.reserve_room("a", -1),
        lambda marking: marking.release_room("a", 2),
        lambda marking: marking.release_room("b", 1),
    ],
)
def test_a_marking_refuses_what_cannot_be_and_stays_as_it_was(misuse: Any) -> None:
    marking = Marking([token(1, "a"), token(2, "a")])
    marking.reserve(2, 9)
    marking.reserve_room("a", 1)
    before = marking.copy()
    with pytest.raises(NetError):
        misuse(marking)
    assert marking == before


# What is derived from the structure


def test_a_transition_knows_its_demand_and_whether_it_keeps_the_token() -> None:
    arcs = (InputArc("a"), InputArc("a", 2, Mode.READ), InputArc("b", 2))
    part = Transition("t", arcs, (OutputArc("z"),))
    assert part.demand == (("a", 3), ("b", 2)) and not part.keeps_identity and part.single is None
    assert part.consumes == (arcs[0], arcs[2]) and part.reads == (arcs[1],)
    assert move("m").keeps_identity and move("m").single == "a" and move("m", guard=NEVER).single is None
    assert Transition("t", (InputArc("a"), InputArc("b", 1, Mode.READ)), (OutputArc("z"),)).keeps_identity
    assert not Transition("t", (InputArc("a"),), (OutputArc("z", 2),)).keeps_identity


def test_room_is_asked_where_more_comes_than_goes() -> None:
    part = Transition(
        "t", (InputArc("a", 2), InputArc("b")), (OutputArc("a"), OutputArc("z", 2)), acting=True, on_failure="z"
    )
    capped = {name: {"capacity": 5} for name in "abz"}
    assert net(part, **capped).rooms["t"] == (Room("z", 3, 5),), "the larger of success and failure"
    assert net(part).rooms["t"] == ()
    back = Transition("t", (InputArc("a"),), (OutputArc("a"),))
    assert net(back, a={"capacity": 1}).rooms["t"] == ()


def test_ranks_hold_the_automatic_transitions_in_order_of_choice() -> None:
    found = net(
        move("manual", trigger=Trigger.MANUAL, priority=9),
        move("acting", acting=True, priority=9),
        move("low", priority=-1),
        move("high", priority=1),
        move("high_too", priority=1),
    )
    assert found.ranks == {"high": 0, "high_too": 0, "low": 1, "acting": 2}


# Choice


def test_immediate_before_acting_then_priority_then_tokens_then_name() -> None:
    marking = Marking([token(1, "a"), token(2, "b")])
    parts = [move("y", priority=1), move("x", "b"), move("a_acting", acting=True, priority=99), move("w")]
    found = net(*parts)
    assert chosen(found, marking) == "y"
    assert chosen(found, marking, "x", "w", "a_acting") == "w", "token 1 before token 2"
    assert chosen(found, marking, "x", "a_acting") == "x"
    assert chosen(found, marking, "a_acting") == "a_acting"
    names = [f"t{number}" for number in range(9, 0, -1)]
    assert chosen(net(*map(move, names)), marking, *names) == "t1"
    assert chosen(net(move("m", trigger=Trigger.MANUAL)), marking) is None


def test_a_higher_transition_whose_guard_refuses_gives_way() -> None:
    marking = Marking([token(1, "a")])
    assert chosen(net(move("high", priority=9, guard=NEVER), move("low")), marking) == "low"


def test_one_place_consumed_and_read_needs_two_tokens() -> None:
    part = Transition("t", (InputArc("a"), InputArc("a", 1, Mode.READ)), (OutputArc("z"),))
    found = net(part)
    assert chosen(found, Marking([token(1, "a")])) is None
    marking = Marking([token(1, "a"), token(2, "a")])
    assert [binding.numbers for binding in bindings(found, marking, "t", CASE, NOW)] == [(1, 2), (2, 1)]


def test_a_blocked_binding_is_skipped_at_the_versions_that_were_blocked_only() -> None:
    found, marking = net(move("t")), Marking([token(1, "a"), token(2, "a")])
    for tokens in ((1, 1),), frozenset({(1, 1)}):
        binding = first_binding(found, marking, "t", CASE, NOW, {("t", tokens)})
        assert binding is not None and binding.numbers == (2,)
    stale = first_binding(found, marking, "t", CASE, NOW, {("t", ((1, 2),)), ("other", ((1, 1),))})
    assert stale is not None and stale.numbers == (1,)


def test_however_many_bindings_are_blocked_the_next_one_fires() -> None:
    found, count = net(move("t")), MAX_BINDINGS + 1
    marking = Marking([token(number, "a") for number in range(1, count + 1)])
    blocked = {("t", ((number, 1),)) for number in range(1, count)}
    binding = first_binding(found, marking, "t", CASE, NOW, blocked)
    assert binding is not None and binding.numbers == (count,)


class Counting(dict):
    """Counts how many tokens a search looks at."""

    touched = 0

    def __getitem__(self, number: int) -> Any:
        self.touched += 1
        return super().__getitem__(number)


def counted(marking: Marking) -> Counting:
    marking._tokens = counting = Counting(marking._tokens)
    return counting


def test_the_first_binding_of_a_place_of_100_000_tokens_touches_only_the_first_tokens() -> None:
    marking = Marking(token(number, "a") for number in range(1, 100_001))
    counting = counted(marking)
    parts = [
        move("one"),
        Transition("two", (InputArc("a", 2), InputArc("a", 1, Mode.READ)), (OutputArc("z"),)),
        move("guarded", guard=Guard((Rule.parse({"not": {"field_exists": "metadata.never"}}),))),
    ]
    found = net(*parts)
    for name, numbers in (("one", (1,)), ("two", (1, 2, 3)), ("guarded", (1,))):
        binding = first_binding(found, marking, name, CASE, NOW)
        assert binding is not None and binding.numbers == numbers
    assert counting.touched < 20


def test_a_search_ends_at_the_limit() -> None:
    marking = Marking(
        [token(number, place) for place, base in (("a", 0), ("b", 200)) for number in range(base, base + 150)]
    )
    part = Transition(
        "t",
        (InputArc("a"), InputArc("b")),
        (OutputArc("z"),),
        guard=Guard((Rule.parse({"not": {"field_exists": "tokens.a"}}),)),
    )
    look = Look()
    assert next(bindings(net(part), marking, "t", CASE, NOW, look=look), None) is None
    assert (look.examined, look.refused, look.limited) == (MAX_BINDINGS, MAX_BINDINGS, True)
    free = Transition("t", part.inputs, part.outputs)
    assert sum(1 for _ in bindings(net(free), marking, "t", CASE, NOW)) == MAX_BINDINGS


def test_an_empty_place_ends_the_search_at_once() -> None:
    marking = Marking([token(number, "a") for number in range(500)] + [token(900, "c")])
    part = Transition("t", (InputArc("a", 2), InputArc("b"), InputArc("c")), (OutputArc("z"),))
    look = Look()
    assert next(bindings(net(part), marking, "t", CASE, NOW, look=look), None) is None
    assert look.examined == 0


def test_a_place_whose_tokens_come_later_ends_the_search_at_once() -> None:
    later = NOW + timedelta(hours=1)
    marking = Marking([*(token(number, "a") for number in range(500)), token(900, "b", available_at=later)])
    counting = counted(marking)
    part = Transition("t", (InputArc("a", 2), InputArc("b")), (OutputArc("z"),))
    assert first_binding(net(part), marking, "t", CASE, NOW) is None
    assert counting.touched < 10


def test_a_guard_sees_the_whole_binding() -> None:
    condition = "tokens.a.data.k == tokens.b[1].data.k && tokens.r.version == 1 && case.fired.t == 0"
    part = Transition(
        "t",
        (InputArc("a"), InputArc("b", 2), InputArc("r", 1, Mode.READ)),
        (OutputArc("z"),),
        guard=Guard((), (compile_expression(condition, ("tokens", "case")),)),
    )
    marking = Marking([token(1, "a", {"k": 1}), token(2, "a", {"k": 3}), *(token(n, "b", {"k": n}) for n in (3, 4, 5))])
    case = {**CASE, "fired": {"t": 0}}
    assert first_binding(net(part), marking, "t", case, NOW) is None, "nothing to read"
    marking.put(token(6, "r"))
    assert first_binding(net(part), marking, "t", case, NOW) is None
    marking.move(token(4, "b", {"k": 3}, version=2))
    binding = first_binding(net(part), marking, "t", case, NOW)
    assert binding is not None and binding.numbers == (2, 3, 4, 6)
    assert first_binding(net(part), marking, "t", {**CASE, "fired": {"t": 1}}, NOW) is None


# Firing


def test_one_in_one_out_keeps_the_token() -> None:
    found, marking = net(move("t")), Marking([token(1, "a", {"x": 1}, version=3)])
    binding = first_binding(found, marking, "t", CASE, NOW)
    assert binding is not None
    later = NOW + timedelta(seconds=5)
    effect = fire(found, marking, binding, produce(found.transitions["t"], binding, {}, CASE), count(50), later)
    after = token(1, "z", {"x": 1}, version=4, entered_at=later)
    assert marking.all() == [after]
    assert effect.consumed == (TokenRef(1, 3, "a"),) and effect.produced == (TokenImage(1, 4, "z", {"x": 1}, {}),)
    assert (effect.puts, effect.moves, effect.takes) == ((), ((after, 3),), ())


def test_a_fork_and_a_join_make_new_tokens_and_name_the_parents() -> None:
    fork = Transition("fork", (InputArc("a"),), (OutputArc("b", 2), OutputArc("c")))
    join = Transition("join", (InputArc("b", 2), InputArc("c")), (OutputArc("z"),))
    found, marking, numbers = net(fork, join), Marking([token(7, "a", {"q": 1})]), count(8)
    for _ in range(2):
        binding = first_enabled(found, marking, found.transitions, CASE, NOW)
        assert binding is not None
        drafts = produce(found.transitions[binding.transition], binding, {}, CASE)
        effect = fire(found, marking, binding, drafts, numbers, NOW)
        if binding.transition == "fork":
            assert effect.takes == ((7, 1),) and effect.moves == ()
            assert [(image.number, image.place, image.parents) for image in effect.produced] == [
                (8, "b", (7,)),
                (9, "b", (7,)),
                (10, "c", (7,)),
            ]
    assert effect.produced == (TokenImage(11, 1, "z", {"q": 1}, {}, (8, 9, 10)),)
    assert marking.all() == [token(11, "z", {"q": 1})]


def test_a_draft_that_its_place_refuses_changes_nothing() -> None:
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    part = Transition("t", (InputArc("a"),), (OutputArc("z"), OutputArc("y")), acting=True)
    found = net(part, z={"colour": Colour("Number", schema)})
    marking, numbers = Marking([token(1, "a", {"n": 1})]), count(2)
    binding = Binding("t", (token(1, "a", {"n": 1}),))
    begin(found, marking, binding, 1)
    before = marking.copy()
    with pytest.raises(ColourMismatch, match="t would put a token into z that is no Number: n: ") as caught:
        complete(found, marking, binding, [Draft("z", {"n": "x"}, {}), Draft("y", {}, {})], numbers, NOW)
    assert caught.value.details["place"] == "z"
    assert marking == before and next(numbers) == 2, "no number was used up"


def test_data_that_is_passed_on_is_checked_anew_only_by_another_colour() -> None:
    loose, strict = Colour("Loose", {}), Colour("Strict", {"required": ["n"]})
    found = net(move("t"), move("u", target="y"), a={"colour": loose}, z={"colour": loose}, y={"colour": strict})
    marking = Marking([token(1, "a", {"x": 1})])
    for name, passes in (("t", True), ("u", False)):
        binding = Binding(name, (token(1, "a", {"x": 1}),))
        drafts = produce(found.transitions[name], binding, {}, CASE)
        if passes:
            assert fire(found, marking.copy(), binding, drafts, count(2), NOW)
        else:
            with pytest.raises(ColourMismatch):
                fire(found, marking.copy(), binding, drafts, count(2), NOW)


def test_a_firing_that_failed_for_good_moves_its_tokens_and_says_why() -> None:
    part = Transition("t", (InputArc("a", 2),), (OutputArc("z"),), acting=True, on_failure="dead")
    strict = Colour("Strict", {"required": ["never"]})
    found = net(part, dead={"capacity": 2, "colour": strict}, z={"capacity": 1})
    marking = Marking([token(1, "a", {"x": 1}, metadata={"m": 1}), token(2, "a", version=4)])
    binding = first_binding(found, marking, "t", CASE, NOW)
    assert binding is not None
    begin(found, marking, binding, 3)
    assert (marking.room_reserved("dead"), marking.room_reserved("z")) == (2, 1)
    effect = divert(found, marking, binding, {"code": "timeout", "message": "too slow"}, NOW)
    failure = {"code": "timeout", "message": "too slow", "transition": "t", "place": "a"}
    assert marking.all() == [
        token(1, "dead", {"x": 1}, version=2, metadata={"m": 1, "failure": failure}),
        token(2, "dead", version=5, metadata={"failure": failure}),
    ]
    assert effect.consumed == binding.consumed_refs and effect.moves == tuple(zip(marking.all(), (1, 4), strict=True))
    assert (marking.room_reserved("dead"), marking.room_reserved("z")) == (0, 0)


def test_room_is_reserved_until_the_firing_ends() -> None:
    found = net(move("t", acting=True), z={"capacity": 1})
    marking = Marking([token(1, "a"), token(2, "a")])
    first = first_binding(found, marking, "t", CASE, NOW)
    assert first is not None
    begin(found, marking, first, 1)
    assert first_binding(found, marking, "t", CASE, NOW) is None, "the room is kept for the first"
    with pytest.raises(NetError, match="no room"):
        begin(found, marking, Binding("t", (token(2, "a"),)), 2)
    abort(found, marking, first)
    assert first_binding(found, marking, "t", CASE, NOW) == first


def test_a_token_that_is_read_must_be_free() -> None:
    part = Transition("t", (InputArc("a"), InputArc("r", 1, Mode.READ)), (OutputArc("z"),))
    found, marking = net(part), Marking([token(1, "a"), token(2, "r")])
    binding = first_binding(found, marking, "t", CASE, NOW)
    assert binding is not None
    marking.reserve(2, 9)
    with pytest.raises(NetError, match="token 2 is reserved by firing 9"):
        begin(found, marking, binding, 1)
    with pytest.raises(NetError, match="token 2 is reserved by firing 9"):
        fire(found, marking, binding, [Draft("z", {}, {})], count(3), NOW)
    marking.move(token(2, "r", version=2))
    with pytest.raises(NetError, match="does not lie in r at version 1"):
        begin(found, marking, binding, 1)


def test_numbers_that_are_taken_are_refused() -> None:
    part = Transition("t", (InputArc("a"),), (OutputArc("z", 2),))
    found, marking = net(part), Marking([token(1, "a"), token(5, "y")])
    before = marking.copy()
    drafts = [Draft("z", {}, {})] * 2
    for numbers in (count(4), iter([3])):
        with pytest.raises((NetError, StopIteration)):
            fire(found, marking, Binding("t", (token(1, "a"),)), drafts, numbers, NOW)
        assert marking == before


def test_choices_of_a_place_are_lazy_and_in_order() -> None:
    marking = Marking(token(number, "a") for number in range(1, 2001))
    chosen = [tuple(one.number for one in some) for some in islice(marking.choices("a", NOW, 3), 3)]
    assert chosen == [(1, 2, 3), (1, 2, 4), (1, 2, 5)]
