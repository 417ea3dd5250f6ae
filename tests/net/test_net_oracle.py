"""The firing rule on random nets, compared step by step with an oracle that shares no code with it."""

from __future__ import annotations

from itertools import count
from random import Random

import pytest
import reference_net as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import CASE, NOW, World, as_plain, worlds

from circuit.errors import NetError
from circuit.net.binding import Binding, bindings, first_binding, first_enabled, has_room
from circuit.net.firing import abort, begin, complete, divert, fire, reinstate
from circuit.net.mapping import Draft, produce

EXAMPLES = settings(max_examples=100, deadline=None, database=None)


def found(world: World, name: str, blocked=frozenset()) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [
        (tuple(token.number for token in binding.consumed), tuple(token.number for token in binding.read))
        for binding in bindings(world.net, world.marking, name, CASE, NOW, blocked=blocked)
    ]


def drafts(world: World, binding: Binding):
    return produce(world.net.transitions[binding.transition], binding, {}, CASE)


def taken_room(world: World) -> dict[str, int]:
    return {name: world.marking.count(name) + world.marking.room_reserved(name) for name in world.net.places}


def assert_capacities(world: World, before: dict[str, int]) -> None:
    """A firing never passes a capacity; a place that was too full from the start gets no fuller."""
    for name, taken in taken_room(world).items():
        capacity = world.net.places[name].capacity
        assert capacity is None or taken <= max(capacity, before[name])


@EXAMPLES
@given(worlds())
def test_enabled_bindings_and_their_order_are_those_of_the_oracle(world: World) -> None:
    for name in world.net.transitions:
        expected = oracle.bindings(world.plain_net, world.plain, name)
        assert found(world, name) == expected
        first = first_binding(world.net, world.marking, name, CASE, NOW)
        assert (first.numbers if first else None) == (expected[0][0] + expected[0][1] if expected else None)
        assert has_room(world.net, world.marking, name) == oracle.has_room(world.plain_net, world.plain, name)


@EXAMPLES
@given(worlds(), st.integers(0, 2**32 - 1).map(Random))
def test_a_run_of_firings_begins_ends_and_failures_is_that_of_the_oracle(world: World, random: Random) -> None:
    numbers = count(world.plain["next"])
    begun: dict[int, Binding] = {}
    blocked: set = set()
    for step in range(12):
        room_before = taken_room(world)
        expected = oracle.choose(world.plain_net, world.plain)
        binding = first_enabled(world.net, world.marking, world.net.transitions, CASE, NOW, blocked)
        if expected is None:
            assert binding is None
        else:
            name, consumed, read = expected
            assert binding is not None and (binding.transition, binding.numbers) == (name, consumed + read)
        if begun and (binding is None or random.random() < 0.5):
            firing = random.choice(sorted(begun))
            held = begun.pop(firing)
            end = random.choice(["complete", "abort", "fail"])
            if end == "complete":
                world.plain = oracle.complete(world.plain_net, world.plain, firing)
                complete(world.net, world.marking, held, drafts(world, held), numbers, NOW)
            elif end == "abort":
                world.plain = oracle.abort(world.plain, firing)
                abort(world.net, world.marking, held)
            elif world.net.transitions[held.transition].acting:
                world.plain = oracle.fail(world.plain_net, world.plain, firing)
                if world.net.transitions[held.transition].on_failure is None:
                    abort(world.net, world.marking, held)
                    blocked.add((held.transition, random.choice([tuple, frozenset])(held.blocks)))
                else:
                    divert(world.net, world.marking, held, {"code": "x", "message": "y"}, NOW)
        elif binding is None:
            return
        elif world.net.transitions[binding.transition].acting:
            world.plain = oracle.begin(world.plain_net, world.plain, *expected, step)
            begin(world.net, world.marking, binding, step)
            begun[step] = binding
        else:
            world.plain = oracle.fire(world.plain_net, world.plain, *expected)
            fire(world.net, world.marking, binding, drafts(world, binding), numbers, NOW)
        assert as_plain(world.marking) == world.plain["tokens"]
        held_now = {token.number: firing for firing, one in begun.items() for token in one.consumed}
        assert {t.number: f for t in world.marking.all() if (f := world.marking.reserved_by(t.number)) is not None} == (
            held_now
        )
        assert_capacities(world, room_before)


@EXAMPLES
@given(worlds())
def test_firings_conserve_tokens_as_the_weights_say(world: World) -> None:
    for name, transition in world.net.transitions.items():
        binding = first_binding(world.net, world.marking, name, CASE, NOW)
        if binding is None:
            continue
        after = world.marking.copy()
        effect = fire(world.net, after, binding, drafts(world, binding), count(100), NOW)
        for place in world.net.places:
            taken = sum(arc.weight for arc in transition.consumes if arc.place == place)
            made = sum(arc.weight for arc in transition.outputs if arc.place == place)
            assert after.count(place) == world.marking.count(place) - taken + made
        assert all(after.get(token.number) == token for token in binding.read), "a read token is untouched"
        assert len(effect.produced) == transition.produced
        assert [ref.number for ref in effect.consumed] == [token.number for token in binding.consumed]
        replayed = world.marking.copy()
        for number, version in effect.takes:
            assert replayed.take(number).version == version
        for token, version in effect.moves:
            assert replayed.get(token.number).version == version
            replayed.move(token)
        for token in effect.puts:
            replayed.put(token)
        assert replayed == after, "puts, moves and takes say all that happened"


@EXAMPLES
@given(worlds())
def test_begin_and_abort_leave_nothing_behind(world: World) -> None:
    for name in world.net.transitions:
        for binding in list(bindings(world.net, world.marking, name, CASE, NOW))[:3]:
            before = world.marking.copy()
            begin(world.net, world.marking, binding, 7)
            assert world.marking != before
            abort(world.net, world.marking, binding)
            assert world.marking == before
            assert found(world, name) == oracle.bindings(world.plain_net, world.plain, name)


@EXAMPLES
@given(worlds())
def test_begin_and_complete_do_what_fire_does(world: World) -> None:
    for name in world.net.transitions:
        binding = first_binding(world.net, world.marking, name, CASE, NOW)
        if binding is None:
            continue
        at_once, in_two, restored = (world.marking.copy() for _ in range(3))
        effect = fire(world.net, at_once, binding, drafts(world, binding), count(100), NOW)
        begin(world.net, in_two, binding, 1)
        reinstate(world.net, restored, binding, 1)
        assert restored == in_two, "a firing that is loaded holds what it held"
        assert complete(world.net, in_two, binding, drafts(world, binding), count(100), NOW) == effect
        assert in_two == at_once


@EXAMPLES
@given(worlds())
def test_misuse_changes_nothing(world: World) -> None:
    for name in world.net.transitions:
        binding = first_binding(world.net, world.marking, name, CASE, NOW)
        if binding is None:
            continue
        before = world.marking.copy()
        made = drafts(world, binding)
        for function, arguments in (
            (complete, (binding, made, count(100), NOW)),
            (abort, (binding,)),
            (divert, (binding, {}, NOW)),
            (fire, (binding, [*made, Draft("a", {}, {})], count(100), NOW)),
        ):
            with pytest.raises(NetError):
                function(world.net, world.marking, *arguments)
            assert world.marking == before
        begin(world.net, world.marking, binding, 1)
        held = world.marking.copy()
        for function, arguments in (
            (begin, (binding, 2)),
            (reinstate, (binding, 2)),
            (fire, (binding, made, count(100), NOW)),
        ):
            with pytest.raises(NetError):
                function(world.net, world.marking, *arguments)
            assert world.marking == held
