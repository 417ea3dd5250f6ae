"""The watch for runs that only repeat themselves: it finds them, and costs what a firing moves."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from circuit.engine import livelock
from circuit.engine.livelock import LivelockWatch
from circuit.net.marking import Marking, Token
from circuit.net.structure import Net, Place

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NET = Net.build("n", [Place("p"), Place("q")], [])


def token(number: int, place: str, value: int) -> Token:
    return Token(number, 1, place, {"value": value}, {}, NOW)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(livelock, "PATIENCE", 1)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("seed", range(20))
def test_a_marking_is_found_again_exactly_when_the_run_had_it(seed: int) -> None:
    draw = random.Random(seed)
    marking = Marking([token(number, "p", number % 3) for number in range(6)])
    watch, had = LivelockWatch(NET), set()
    watch.begin()
    for _ in range(60):
        state = tuple(sorted((one.place, one.data["value"]) for one in marking.all()))
        assert watch.repeats(marking, {}) == (state in had)
        had.add(state)
        old = draw.choice(marking.all())
        new = token(old.number, draw.choice("pq"), draw.randrange(3))
        marking.move(new)
        watch.moved([old], [new])


@pytest.mark.usefixtures("impatient")
def test_after_the_marking_changed_in_another_way_it_is_weighed_anew() -> None:
    marking = Marking([token(1, "p", 0)])
    watch = LivelockWatch(NET)
    watch.begin()
    assert not watch.repeats(marking, {})
    marking.move(token(1, "q", 0))
    watch.forget()
    assert not watch.repeats(marking, {})


@pytest.mark.usefixtures("impatient")
def test_a_firing_costs_what_it_moves_however_many_tokens_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    weighed: list[object] = []
    dumps = livelock.orjson.dumps
    monkeypatch.setattr(livelock.orjson, "dumps", lambda value: (weighed.append(value), dumps(value))[1])
    marking = Marking([token(number, "p", number) for number in range(1_000)])
    watch = LivelockWatch(NET)
    watch.begin()
    for number in range(100):
        watch.repeats(marking, {})
        old, new = token(number, "p", number), token(number, "q", number)
        marking.move(new)
        watch.moved([old], [new])
    assert len(weighed) == 1_000 + 2 * 100
