"""The exploration in machine code finds what the one in Python finds, state by state and edge by edge."""

from __future__ import annotations

import pytest
from place_nets import limits

from circuit.net.analysis import compiled, exploration
from circuit.net.analysis.exploration import explore
from circuit.net.analysis.place_net import PlaceNet, Step

pytestmark = pytest.mark.skipif(not compiled.available(), reason="numba is missing; pip install 'circuit-engine[fast]'")


def rings(count: int, length: int, *more: Step, extra: int = 0) -> PlaceNet:
    """Rings with a token each, and `extra` places beside them."""
    places = count * length + extra
    steps = [
        Step(f"t{ring}.{at}", ((ring * length + at, 1),), ((ring * length + (at + 1) % length, 1),))
        for ring in range(count)
        for at in range(length)
    ]
    initial = tuple(int(place < count * length and place % length == 0) for place in range(places))
    return PlaceNet("rings", tuple(f"p{place}" for place in range(places)), (*steps, *more), initial)


@pytest.mark.parametrize(
    "net",
    [
        rings(4, 3),
        rings(3, 3, extra=70),
        rings(3, 4, Step("only if", ((0, 1),), ((1, 1),), inhibitors=((5, 1),))),
        rings(3, 4, Step("empties", ((0, 1),), ((1, 1),), resets=(6, 7, 10))),
        rings(2, 3, Step("grows", ((0, 1),), ((1, 1), (6, 1))), extra=1),
    ],
    ids=["one word", "several words", "inhibitor", "reset", "unbounded"],
)
def test_both_find_the_same(net: PlaceNet, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = explore(net, limits().meter(), fast=False)
    monkeypatch.setattr(exploration, "_COMPILED_FROM", 0)
    fast = explore(net, limits().meter())
    assert fast.complete == plain.complete
    assert fast.pump == plain.pump
    if plain.complete:
        for name in ("packed", "parents", "via", "offsets", "targets", "labels"):
            assert getattr(fast, name) == getattr(plain, name), name


def test_limits_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exploration, "_COMPILED_FROM", 0)
    monkeypatch.setattr(compiled, "_SLICE", 500)
    graph = explore(rings(10, 3), limits(1_000).meter())
    assert not graph.complete
    assert "1,000 states" in graph.stopped
    assert 1_000 <= len(graph) < 59_049
    assert graph.explored <= len(graph)
