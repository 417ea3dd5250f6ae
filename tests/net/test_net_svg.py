"""Nets as SVG: what is drawn, that nothing lies on anything else, and that names stay text."""

from __future__ import annotations

from itertools import combinations
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from place_nets import any_nets, process_nets

from circuit.net.analysis.place_net import PlaceNet, Step
from circuit.net.layout import layered
from circuit.net.picture import picture_of_place_net
from circuit.net.svg import svg

SPACE = "{http://www.w3.org/2000/svg}"


def drawn(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def texts(root: ElementTree.Element) -> list[str]:
    return ["".join(element.itertext()) for element in root.iter(f"{SPACE}text")]


def chain(length: int, **more: object) -> PlaceNet:
    places = tuple(f"p{index}" for index in range(length + 1))
    steps = tuple(Step(f"t{index}", ((index, 1),), ((index + 1, 2),)) for index in range(length))
    return PlaceNet("chain", places, steps, (1, *([0] * length)), resting=frozenset({length}))


@settings(max_examples=60, deadline=None, database=None)
@given(st.one_of(any_nets(), process_nets()))
def test_every_net_can_be_drawn(net: PlaceNet) -> None:
    root = drawn(svg(picture_of_place_net(net, trace=[step.name for step in net.steps[:2]])))
    arcs = {
        (kind, place, number)
        for number, step in enumerate(net.steps)
        for kind, found in (("in", step.consumes), ("out", step.produces), ("no", step.inhibitors))
        for place, _ in found
    } | {("reset", place, number) for number, step in enumerate(net.steps) for place in step.resets}
    paths = [path for path in root.iter(f"{SPACE}path") if "arc" in path.get("class", "")]
    assert len(paths) == len(arcs)
    shown = texts(root)
    assert all(name in shown for name in (*net.places, *(step.name for step in net.steps)))


@settings(max_examples=100, deadline=None, database=None)
@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_any_graph_has_a_layout_in_which_no_two_nodes_meet(graph: tuple[int, list[tuple[int, int]]]) -> None:
    count, edges = graph
    layout = layered(count, edges, [0])
    assert layout.points.keys() == set(range(count))
    for one, other in combinations(range(count), 2):
        (x, y), (u, v) = layout.points[one], layout.points[other]
        assert abs(x - u) > 0.9 or abs(y - v) > 0.9
    for source, target in edges:
        if source != target:
            way = layout.ways[source, target]
            assert (way[0], way[-1]) == (layout.points[source], layout.points[target])


def test_the_flow_goes_from_left_to_right_and_only_loops_go_back() -> None:
    layout = layered(4, [(0, 1), (1, 2), (2, 3), (2, 0)], [0])
    assert [layout.points[node][0] for node in range(4)] == [0, 1, 2, 3]


def test_weights_markings_heat_and_traces_are_shown() -> None:
    net = chain(2)
    root = drawn(svg(picture_of_place_net(net, heat={"t0": 40, "t1": 1}, trace=["t0", "t1", "t0"])))
    shown = texts(root)
    assert "2" in shown
    assert "40 firings" in shown and "1 firing" in shown
    assert "1,3" in shown and "2" in shown
    assert len([one for one in root.iter(f"{SPACE}rect") if "on" in one.get("class", "").split()]) == 2
    assert len([one for one in root.iter(f"{SPACE}circle") if "marked" in one.get("class", "").split()]) == 1


@pytest.mark.parametrize("name", ['"><script>alert(1)</script>', "a&b", "x" * 300, "\x01\x02", "", "日本語" * 20])
def test_names_are_text_whatever_they_hold(name: str) -> None:
    net = PlaceNet(name, (name, "q"), (Step(name, ((0, 1),), ((1, 1),)),), (1, 0))
    root = drawn(svg(picture_of_place_net(net)))
    assert not list(root.iter(f"{SPACE}script"))
    assert all(len(text) <= 60 for text in texts(root)[1:])


def test_two_hundred_nodes_are_drawn_whole() -> None:
    net = chain(100)
    root = drawn(svg(picture_of_place_net(net)))
    right = float(root.get("width", "0"))
    for circle in root.iter(f"{SPACE}circle"):
        if circle.get("class"):
            assert 0 < float(circle.get("cx", "0")) < right
