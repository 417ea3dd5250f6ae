"""No wrong verdict: every property of random nets, beside an oracle that lists all markings."""

from __future__ import annotations

import pytest
import reference_place_net as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from place_nets import Ticks, any_nets, limits, process_nets

from benchmarks.analysis import process_net
from circuit.net.analysis.exploration import explore
from circuit.net.analysis.limits import Limits
from circuit.net.analysis.place_net import PlaceNet, Step
from circuit.net.analysis.proofs import BEHAVIOURAL, analyse
from circuit.net.analysis.rank_theorem import sound_by_rank
from circuit.net.analysis.reduction import reduce_net
from circuit.net.analysis.verdict import Answer, Verdict
from circuit.net.analysis.walk import walk_firing, walk_to_dead

MANY = settings(max_examples=200, deadline=None, database=None)
SOME = settings(max_examples=100, deadline=None, database=None)

NETS = st.one_of(any_nets(), any_nets(plain=True), process_nets(), process_nets(plain=True))


def agrees(verdict: Verdict, holds: bool, net: PlaceNet) -> None:
    expected = Answer.PROVEN if holds else Answer.VIOLATED
    assert verdict.answer in (expected, Answer.UNKNOWN), (verdict, net)


@MANY
@given(NETS)
def test_every_verdict_is_true(net: PlaceNet) -> None:
    found = analyse(net, limits(), BEHAVIOURAL).verdicts
    truth = oracle.truth(net)
    if truth is None:
        # Too many for the oracle: what is said then must be said of a finite graph, or of a run that shows it.
        if found["boundedness"].proven or found["soundness"].proven:
            assert explore(net, limits(200_000).meter()).complete or found["boundedness"].method == "place invariants"
        if found["boundedness"].violated:
            assert_pumps(net, found["boundedness"])
        return
    agrees(found["boundedness"], True, net)
    agrees(found["soundness"], truth.sound, net)
    agrees(found["dead_transitions"], not truth.dead, net)
    agrees(found["deadlock_freedom"], truth.deadlock is None, net)
    agrees(found["liveness"], truth.live, net)
    agrees(found["home_markings"], truth.homes, net)
    assert all(not verdict.unknown for verdict in found.values()), "small finite nets are decided"
    assert found["k_safeness"].witness["k"] == truth.most
    if truth.dead and found["dead_transitions"].violated:
        assert set(found["dead_transitions"].witness["transitions"]) == truth.dead
    assert set(found["soundness"].witness.get("dead_transitions", ())) <= truth.dead, "no transition that can fire"
    if truth.deadlock is not None:
        trace = found["deadlock_freedom"].trace
        assert trace is not None and len(trace) == truth.deadlock, "the trace is a shortest"
        marking = oracle.replay(net, list(trace))
        assert marking is not None and not oracle.final(net, marking)
        assert all(oracle.enabled(net, index, marking) is None for index in range(len(net.steps)))
    lost = found["soundness"]
    if lost.violated and lost.trace is not None:
        marking = oracle.replay(net, list(lost.trace))
        assert marking is not None
        there = oracle.truth(from_marking(net, marking))
        assert there is not None and not there.sound


def test_of_two_ways_into_a_place_only_the_one_that_cannot_be_gone_is_dead() -> None:
    """Reduction makes one transition of each way with what comes after it, which is not dead for that."""
    steps = (
        Step("never", ((1, 1),), ((2, 1),)),
        Step("ever", ((0, 1),), ((2, 1),)),
        Step("after", ((2, 1),), ((3, 1),)),
    )
    for start in ((1, 0, 0, 0), (0, 0, 0, 0)):
        net = PlaceNet("ways", ("start", "void", "met", "end"), steps, start, resting=frozenset({3}))
        verdict = analyse(net, limits(), ["soundness"]).verdicts["soundness"]
        truth = oracle.truth(net)
        assert truth is not None and verdict.violated
        assert len(verdict.witness["dead_transitions"]) > 0 and set(verdict.witness["dead_transitions"]) <= truth.dead


@MANY
@given(st.one_of(any_nets(plain=True), process_nets(plain=True)))
def test_boundedness_of_plain_nets_is_always_decided(net: PlaceNet) -> None:
    found = analyse(net, limits(), ["boundedness"]).verdicts["boundedness"]
    if oracle.truth(net) is not None:
        assert found.proven
    elif found.violated:
        assert_pumps(net, found)


@SOME
@given(NETS)
def test_reduction_keeps_what_soundness_asks_for(net: PlaceNet) -> None:
    truth = oracle.truth(net)
    reduced = reduce_net(net)
    if truth is None:
        return
    if reduced.stranded:
        assert not truth.sound
        return
    smaller = oracle.truth(reduced.net)
    assert smaller is not None, "what is bounded stays so"
    assert smaller.sound == truth.sound
    graph = explore(reduced.net, limits().meter())
    for state in range(min(len(graph), 20)):
        marking = net.run(reduced.lift(graph.trace(state)))
        assert marking is not None, "every trace lifts"


@SOME
@given(process_nets(plain=True))
def test_the_rank_theorem_proves_only_what_is_sound(net: PlaceNet) -> None:
    truth = oracle.truth(net)
    if sound_by_rank(net):
        assert truth is not None and truth.sound


def from_marking(net: PlaceNet, marking: tuple[int, ...]) -> PlaceNet:
    from dataclasses import replace

    return replace(net, initial=marking)


def assert_pumps(net: PlaceNet, verdict: Verdict) -> None:
    assert verdict.trace is not None
    cycle = list(verdict.witness["repeated"])
    once = oracle.replay(net, list(verdict.trace))
    thrice = oracle.replay(net, [*verdict.trace, *cycle, *cycle])
    assert once is not None and thrice is not None
    grows = verdict.witness["grows"]
    assert grows
    for place, count in grows.items():
        index = net.places.index(place)
        assert thrice[index] == once[index] + 2 * count


@pytest.mark.parametrize("states", [1, 2, 5])
def test_a_limit_makes_verdicts_unknown_with_the_reason(states: int) -> None:
    places = tuple(f"p{index}" for index in range(12))
    steps = tuple(Step(f"t{index}", ((index, 1),), (((index + 1) % 12, 1),)) for index in range(12))
    net = PlaceNet("ring", places, steps, (1,) * 6 + (0,) * 6)
    found = analyse(net, limits(states), ["home_markings", "k_safeness"]).verdicts
    for verdict in found.values():
        assert verdict.unknown
        assert "limit" in verdict.reason


def test_no_walk_goes_on_beyond_the_time_that_is_given() -> None:
    steps = (Step("go", ((0, 1),), ((1, 1),)), Step("back", ((1, 1),), ((0, 1),)))
    net = PlaceNet("cycle", ("p", "q"), steps, (1, 0))
    over, left = Limits(Ticks(), seconds=0.0), Limits(Ticks(0.1), seconds=1.0)
    assert walk_firing(net, over.meter()) == set()
    assert walk_firing(net, left.meter()) == {0, 1}
    clock = Ticks(0.1)
    assert walk_to_dead(net, lambda _: True, Limits(clock, seconds=1.0).meter()) is None
    assert clock.seconds < 10.0, "each step looks at the clock; without it there would be 90,000 of them"


def test_the_nets_that_the_benchmark_times_are_decided() -> None:
    for seed in range(20):
        assert analyse(process_net(seed, spoilt=False), limits(), ["soundness"]).verdicts["soundness"].proven
        assert not analyse(process_net(seed, spoilt=True), limits(), ["soundness"]).verdicts["soundness"].unknown
