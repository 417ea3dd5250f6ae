"""Small cases, exhaustively: whatever the order of what happens to two workers, nothing is lost and nothing twice."""

from __future__ import annotations

from typing import Any

import pytest

from circuit.engine.firings import Firings
from tests.engine.model import ModelCase
from tests.engine.space import Budget, Space


def place(**options: Any) -> dict[str, Any]:
    return {"capacity": None, "terminal": False, "failed": False, "dead_letter": False, **options}


def acting(consume: list[str], produce: list[str], **options: Any) -> dict[str, Any]:
    return {
        "consume": [(name, 1) for name in consume],
        "read": [],
        "produce": [(name, 1) for name in produce],
        "priority": 0,
        "holds": {},
        "after": None,
        "called": False,
        "acting": True,
        "manual": False,
        "on_failure": None,
        "above": None,
        "required": True,
        "attempts": 1,
        **options,
    }


def immediate(consume: list[str], produce: list[str]) -> dict[str, Any]:
    return acting(consume, produce, acting=False)


CHAIN = {
    "places": {"p0": place(), "p1": place(), "end": place(terminal=True)},
    "transitions": {"one": acting(["p0"], ["p1"]), "two": acting(["p1"], ["end"])},
}
JOIN = {
    "places": {"p0": place(), "p1": place(), "p2": place(), "end": place(terminal=True)},
    "transitions": {"join": acting(["p0", "p1", "p2"], ["end"])},
}
FORK_JOIN = {
    "places": {
        "p0": place(),
        "a": place(),
        "b": place(),
        "c": place(capacity=1),
        "d": place(),
        "end": place(terminal=True),
    },
    "transitions": {
        "fork": immediate(["p0"], ["a", "b"]),
        "left": acting(["a"], ["c"]),
        "right": acting(["b"], ["d"]),
        "join": immediate(["c", "d"], ["end"]),
    },
}
RIVALS = {
    "places": {"p0": place(), "p1": place(), "end": place(terminal=True), "lost": place(terminal=True)},
    "transitions": {
        "pair": acting(["p0", "p1"], ["end"], on_failure="lost", priority=5),
        "single": acting(["p0"], ["p1"], on_failure="lost"),
    },
}


@pytest.mark.parametrize(
    ("shape", "marking", "budget", "ends"),
    [
        pytest.param(CHAIN, {"p0": 1}, Budget(1, 1, 0, 0, 1), {"completed", "cancelled"}, id="a chain"),
        pytest.param(
            JOIN,
            {"p0": 1, "p1": 1, "p2": 1},
            Budget(1, 1, 0, 1, 1),
            {"completed", "cancelled", "attention"},
            id="a join",
        ),
        pytest.param(
            FORK_JOIN, {"p0": 1}, Budget(1, 0, 0, 1, 1), {"completed", "cancelled", "attention"}, id="fork and join"
        ),
        pytest.param(
            RIVALS, {"p0": 2, "p1": 1}, Budget(1, 1, 0, 1, 0), {"stuck", "completed"}, id="rivals for a token"
        ),
    ],
)
def test_no_order_of_events_breaks_a_promise(shape: Any, marking: Any, budget: Budget, ends: set[str]) -> None:
    space = Space(shape, marking, budget)
    states = space.walk()
    print(f"{states} states, {space.moves} moves")
    assert states > 300, "the space is too small to prove anything"
    assert space.ends == ends


def _forgets(self: ModelCase, incarnation: int, now: object) -> None:
    self.fenced.add(incarnation)
    if self.owner == incarnation:
        self.lose_owner()


@pytest.mark.parametrize(
    ("where", "name", "fault"),
    [
        pytest.param(ModelCase, "refuses", lambda self, incarnation: False, id="nobody is fenced"),
        pytest.param(ModelCase, "take_over", _forgets, id="what was taken over is not looked at"),
        pytest.param(Firings, "cancel", lambda self, live, draft: None, id="a cancel leaves what runs"),
    ],
)
def test_a_planted_fault_is_found(monkeypatch: pytest.MonkeyPatch, where: type, name: str, fault: Any) -> None:
    monkeypatch.setattr(where, name, fault)
    with pytest.raises(AssertionError, match="after "):
        Space(CHAIN, {"p0": 1}, Budget(1, 1, 0, 0, 1)).walk()
