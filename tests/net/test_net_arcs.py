"""Inhibit, reset and drain arcs, filters and keys on random nets, compared with the oracle; groups and their joins."""

from __future__ import annotations

from itertools import count
from random import Random
from typing import Any

import pytest
import reference_net as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import CASE, NOW, PLACES, as_plain, token

from circuit.errors import MappingError, NetError
from circuit.expressions.cel import compile_expression
from circuit.net.binding import Binding, bindings, first_binding, first_enabled
from circuit.net.diagnosis import ReasonKind, why
from circuit.net.firing import abort, begin, complete, fire
from circuit.net.mapping import OutputData, produce
from circuit.net.marking import Marking, Token
from circuit.net.scope import ScopePath
from circuit.net.selection import doomed
from circuit.net.structure import InputArc, Merge, Mode, Net, OutputArc, Place, Transition

EXAMPLES = settings(max_examples=150, deadline=None, database=None)

FILTERS = {
    "token.data.v > 1": lambda data: data["v"] > 1,
    "token.data.w == 0": lambda data: data["w"] == 0,  # which some tokens do not have
}
KEY = ScopePath.parse("data.v")
KINDS = ("consume", "drain", "read", "inhibit", "reset")


def rich_nets() -> st.SearchStrategy[Random]:
    return st.integers(0, 2**32 - 1).map(Random)


def drawn(random: Random) -> tuple[Net, dict[str, Any], dict[str, Any]]:
    """A random net, the same for the oracle, and a marking for both."""
    capacities = {place: random.choice([None, None, None, 4, 7]) for place in PLACES}
    shapes = {f"t{number}": shape(random) for number in range(random.randint(2, 4))}
    plain = oracle.marking([(random.choice(PLACES), data(random)) for _ in range(random.randint(3, 9))])
    net = Net.build(
        "rich",
        [Place(name, capacity=capacity) for name, capacity in capacities.items()],
        [transition(name, one) for name, one in shapes.items()],
    )
    return net, {"places": capacities, "transitions": shapes}, plain


def data(random: Random) -> dict[str, Any]:
    made = {"v": random.randint(0, 2)}
    return made | {"w": random.randint(0, 1)} if random.random() < 0.7 else made


def shape(random: Random) -> dict[str, Any]:
    places = random.sample(PLACES, len(PLACES))
    arcs: dict[str, Any] = {kind: [] for kind in KINDS}
    arcs["consume"] = [(places[0], random.choice([1, 1, 2]))]
    if random.random() < 0.3:
        arcs["consume"].append((random.choice([places[0], places[1]]), 1))
    for kind, chance in (("drain", 0.4), ("read", 0.3)):
        if random.random() < chance:
            arcs[kind] = [(places[2 if kind == "drain" else 1], random.choice([1, 1, 2]))]
    if random.random() < 0.4:
        arcs["inhibit"] = [(random.choice(places[1:]), random.choice([1, 2, 3]))]
    if random.random() < 0.4:
        arcs["reset"] = [random.choice(places)]
    every = [(kind, position) for kind in KINDS for position in range(len(arcs[kind]))]
    filters = {arc: random.choice(list(FILTERS)) for arc in every if random.random() < 0.25}
    keys: dict[Any, str] = {}
    if random.random() < 0.5:
        keys = {arc: random.choice(["v", "v", "w"]) for arc in every if random.random() < 0.7}
    if not any(kind in ("consume", "drain", "read") for kind, _ in keys):
        keys = {}
    return {
        **arcs,
        "filters": {arc: FILTERS[source] for arc, source in filters.items()},
        "sources": filters,
        "keys": keys,
        "produce": [(random.choice(PLACES), 1) for _ in range(random.choice([0, 1, 1, 2]))],
        "acting": random.random() < 0.5,
        "priority": 0,
    }


def transition(name: str, of: dict[str, Any]) -> Transition:
    inputs = [
        InputArc(
            arc[0] if kind != "reset" else arc,
            arc[1] if kind != "reset" else 1,
            Mode(kind),
            where=compile_expression(of["sources"][kind, position], ("token",))
            if (kind, position) in of["sources"]
            else None,
            correlate=ScopePath.parse(f"data.{of['keys'][kind, position]}") if (kind, position) in of["keys"] else None,
        )
        for kind in KINDS
        for position, arc in enumerate(of[kind])
    ]
    outputs = tuple(OutputArc(place, weight) for place, weight in of["produce"])
    return Transition(name, tuple(inputs), outputs, acting=of["acting"], merge=Merge.LAST)


def laid(plain: dict[str, Any]) -> Marking:
    return Marking(Token(number, one["version"], one["place"], one["data"], {}, NOW) for number, one in _lying(plain))


def _lying(plain: dict[str, Any]) -> list[Any]:
    return sorted(plain["tokens"].items())


@EXAMPLES
@given(rich_nets())
def test_bindings_and_their_order_are_those_of_the_oracle(random: Random) -> None:
    net, plain_net, plain = drawn(random)
    marking = laid(plain)
    for name in net.transitions:
        expected = oracle.bindings(plain_net, plain, name)
        found = [
            (tuple(one.number for one in binding.consumed), tuple(one.number for one in binding.read))
            for binding in bindings(net, marking, name, CASE, NOW)
        ]
        assert found == expected
        diagnosis = why(net, marking, name, CASE, NOW)
        assert diagnosis.enabled == bool(expected)
        assert diagnosis.enabled or diagnosis.reasons, "what keeps it from firing is said"


@EXAMPLES
@given(rich_nets())
def test_a_run_is_that_of_the_oracle(random: Random) -> None:
    net, plain_net, plain = drawn(random)
    marking, numbers = laid(plain), count(plain["next"])
    begun: dict[int, Binding] = {}

    def clear(binding: Binding) -> list[Token]:
        what = net.transitions[binding.transition]
        gone = {one.number for one in doomed(what, marking, binding.consumed, binding.read, CASE)}
        for firing, other in list(begun.items()):
            if other is not binding and gone & {one.number for one in other.consumed}:
                abort(net, marking, begun.pop(firing), firing)
        return [one for number in sorted(gone) if (one := marking.get(number)) is not None]

    for step in range(1, 10):
        expected = oracle.choose(plain_net, plain)
        binding = first_enabled(net, marking, net.transitions, CASE, NOW)
        found = None if binding is None else (binding.transition, binding.numbers)
        assert found == (None if expected is None else (expected[0], expected[1] + expected[2]))
        if begun and (binding is None or random.random() < 0.6):
            firing = random.choice(sorted(begun))
            held = begun[firing]
            drafts = produce(net.transitions[held.transition], held, {}, CASE)
            del begun[firing]
            removed = clear(held)
            plain = oracle.complete(plain_net, plain, firing)
            complete(net, marking, held, drafts, numbers, NOW, firing, removed)
        elif binding is None:
            return
        elif net.transitions[binding.transition].acting:
            plain = oracle.begin(plain_net, plain, *expected, step)
            begin(net, marking, binding, step)
            begun[step] = binding
        else:
            drafts = produce(net.transitions[binding.transition], binding, {}, CASE)
            plain = oracle.fire(plain_net, plain, *expected)
            effect = fire(net, marking, binding, drafts, numbers, NOW, clear(binding))
            assert not {ref.number for ref in effect.removed} & set(binding.numbers[: len(binding.consumed)])
        assert as_plain(marking) == plain["tokens"]
        assert sorted(begun) == sorted(plain["firings"])


def _swept(*inputs: InputArc) -> list[int]:
    """What `t` takes of place `c` beside what it binds; of each place a, b and c, two tokens of two keys lie there."""
    reset = InputArc("c", mode=Mode.RESET, correlate=KEY)
    net = Net.build("n", [Place("a"), Place("b"), Place("c")], [Transition("t", (*inputs, reset), ())])
    lying = [token(number, place, {"v": number % 2}) for number, place in enumerate("aabbcc", 1)]
    binding = first_binding(net, (marking := Marking(lying)), "t", CASE, NOW)
    assert binding is not None
    found = doomed(net.transitions["t"], marking, binding.consumed, binding.read, CASE)
    return [one.number for one in found]


def test_a_reset_means_the_key_of_the_arc_that_has_it_not_that_of_another_token_of_the_place() -> None:
    assert _swept(InputArc("a"), InputArc("a", correlate=KEY)) == [6], "it bound token 2, with the key of token 6"
    assert _swept(InputArc("a", correlate=KEY), InputArc("a")) == [5]


def test_a_reset_means_the_key_of_what_is_only_read() -> None:
    assert _swept(InputArc("a"), InputArc("b", mode=Mode.READ, correlate=KEY)) == [5]


def test_a_token_that_a_firing_holds_is_taken_only_after_it_was_aborted() -> None:
    net = Net.build(
        "n",
        [Place("a"), Place("b"), Place("c")],
        [
            Transition("hold", (InputArc("a"),), (OutputArc("c"),), acting=True),
            Transition("sweep", (InputArc("b"), InputArc("a", mode=Mode.RESET)), (OutputArc("c"),)),
        ],
    )
    marking = Marking([token(1, "a"), token(2, "b")])
    begin(net, marking, first(net, marking, "hold"), 1)
    sweep = first(net, marking, "sweep")
    gone = doomed(net.transitions["sweep"], marking, sweep.consumed, sweep.read, CASE)
    assert [one.number for one in gone] == [1], "a held token lies there all the same"
    drafts = produce(net.transitions["sweep"], sweep, {}, CASE)
    before = marking.copy()
    with pytest.raises(NetError):
        fire(net, marking, sweep, drafts, count(3), NOW, gone)
    assert marking == before


def first(net: Net, marking: Marking, name: str) -> Binding:
    found = first_binding(net, marking, name, CASE, NOW)
    assert found is not None
    return found


def test_the_newest_token_comes_first_where_an_arc_says_so() -> None:
    net = Net.build("n", [Place("a")], [Transition("t", (InputArc("a", 2, newest=True),), ())])
    marking = Marking([token(number, "a") for number in (1, 2, 3)])
    assert [binding.numbers for binding in bindings(net, marking, "t", CASE, NOW)] == [(3, 2), (3, 1), (2, 1)]


def splitting(elements: str = "data.parts") -> Net:
    known = ("data", "metadata", "tokens", "case")
    names = OutputData.parse({"n": "item", "at": "index"}, (*known, "item", "index"))
    return Net.build(
        "n",
        [Place(name) for name in ("order", "waiting", "part", "done")],
        [
            Transition(
                "split",
                (InputArc("order"),),
                (OutputArc("waiting"), OutputArc("part", data=names, each=compile_expression(elements, known), most=3)),
            ),
            Transition("join", (InputArc("waiting"), InputArc("part", gather="split")), (OutputArc("done"),)),
        ],
    )


@given(st.lists(st.integers(0, 2), min_size=1, max_size=3), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None, database=None)
def test_a_join_takes_exactly_what_was_made_of_its_list(sizes: list[int], random: Any) -> None:
    net, numbers = splitting(), count(100)
    marking = Marking(token(n, "order", {"parts": list(range(size))}) for n, size in enumerate(sizes, 1))
    made: list[Token] = []
    for _ in sizes:
        split = first(net, marking, "split")
        fire(net, marking, split, produce(net.transitions["split"], split, {}, CASE), numbers, NOW)
    made = marking.tokens("part")
    assert len(made) == sum(sizes)
    # The parts come back in any order, under other numbers, and a part at a time.
    for one in made:
        marking.take(one.number)
    random.shuffle(made)
    joined: list[list[int]] = []
    for part in [*made, None]:
        while (join := first_binding(net, marking, "join", CASE, NOW)) is not None:
            ticket, *parts = join.consumed
            group = ticket.metadata["fan_out"]["split"]
            assert {one.metadata["fan_out"]["split"]["id"] for one in parts} <= {group["id"]}
            assert [one.data["at"] for one in parts] == list(range(group["size"]))
            joined.append([one.data["n"] for one in parts])
            for one in join.consumed:
                marking.take(one.number)
        if part is not None:
            marking.put(token(next(numbers), "part", dict(part.data), metadata=part.metadata))
    assert sorted(map(len, joined)) == sorted(sizes)
    assert not marking.tokens("part") and not marking.tokens("waiting")


def test_what_a_group_waits_for_is_said() -> None:
    net = splitting()
    marking = Marking([token(1, "order", {"parts": [7, 8, 9]})])
    split = first(net, marking, "split")
    fire(net, marking, split, produce(net.transitions["split"], split, {}, CASE), count(2), NOW)
    marking.take(marking.tokens("part")[1].number)
    (reason,) = why(net, marking, "join", CASE, NOW).reasons
    assert (reason.kind, reason.have, reason.need) == (ReasonKind.GROUP, 2, 3)


@pytest.mark.parametrize(
    ("elements", "parts", "message"),
    [
        ("data.parts", [1, 2, 3, 4], "4 elements; at most 3"),
        ("data.parts", 7, "a number, not a list"),
        ("data.x", [], "x"),
    ],
)
def test_a_list_that_is_none_or_too_long_fails_the_firing(elements: str, parts: Any, message: str) -> None:
    net = splitting(elements)
    marking = Marking([token(1, "order", {"parts": parts})])
    with pytest.raises(MappingError, match=message):
        produce(net.transitions["split"], first(net, marking, "split"), {}, CASE)


def test_what_comes_of_a_join_belongs_to_no_group_any_more() -> None:
    net = splitting()
    marking, numbers = Marking([token(1, "order", {"parts": [5]}, metadata={"who": "ann"})]), count(2)
    for name in ("split", "join"):
        binding = first(net, marking, name)
        what = net.transitions[name] if name == "split" else join_last(net)
        fire(net, marking, binding, produce(what, binding, {}, CASE), numbers, NOW)
    (done,) = marking.tokens("done")
    assert dict(done.metadata) == {"who": "ann"}


def join_last(net: Net) -> Transition:
    join = net.transitions["join"]
    return Transition(join.name, join.inputs, join.outputs, merge=Merge.LAST)
