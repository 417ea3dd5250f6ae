"""The owner's loop under a seeded scheduler, against the oracle: lost processes, take-overs, late results, refusals.

`make simulate SEEDS=100000` runs more seeds than `make test` does. A failure names its seed, and
`python -m tests.engine.seeds SEED` runs that one alone.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from circuit.engine import agenda, firings, livelock, memory, owner, suspension
from circuit.net import refresh
from tests.engine import model, seeds
from tests.engine.world import World

SEEDS = int(os.environ.get("CIRCUIT_SIMULATION_SEEDS", "10000"))


@pytest.fixture(autouse=True)
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "MOST_IMMEDIATE", seeds.MOST_IMMEDIATE)
    monkeypatch.setattr(livelock, "PATIENCE", seeds.PATIENCE)


def test_what_is_committed_is_what_the_oracle_says() -> None:
    outcomes = sum(seeds.run_blocks(SEEDS), Counter())
    assert outcomes.total() == SEEDS
    assert len(outcomes) > 1, f"the worlds are too much alike: {outcomes}"


def test_a_seed_names_a_history() -> None:
    first, second = World(7), World(7)
    first.run()
    second.run()
    assert first.case.history == second.case.history


def _any_start_counts(self: firings.Firings, number: int, start: int) -> object:
    live = self.memory.firings.get(number)
    return live if live is not None and live.running else None


def _the_last_wins(self: agenda.Agenda, *arguments: object) -> object:
    binding = _NEXT(self, *arguments)
    return max(self._found.values(), key=lambda found: found.numbers) if binding is not None else None


def _the_journal_is_lost(self: model.ModelCase) -> object:
    state = _STATE(self)
    state.journal = {}
    return state


def _nobody_is_fenced(self: model.ModelCase, incarnation: int) -> bool:
    return False


def _nobody_looks(self: model.ModelCase, incarnation: int, now: object) -> None:
    _TAKE_OVER(self, incarnation, now)
    self.due_at = None


def _what_was_recorded_is_forgotten(memory: Any, live: Any, wait: Any, recorded: object, draft: Any) -> None:
    _SUSPEND(memory, live, wait, {}, draft)


def _nothing_is_due(self: memory.Memory) -> None:
    return None


def _a_run_leaves_no_trace(*arguments: Any, undone: bool = False) -> object:
    return _END(*arguments, undone=True)


def _nothing_is_stale(self: agenda.Agenda, places: object) -> None:
    return None


_NEXT = agenda.Agenda.next
_TAKE_OVER: Callable[..., None] = model.ModelCase.take_over
_END = refresh.end
_STATE = model.ModelCase.state
_SUSPEND = suspension.suspend


@pytest.mark.parametrize(
    ("where", "name", "fault"),
    [
        (firings.Firings, "running", _any_start_counts),
        (agenda.Agenda, "next", _the_last_wins),
        (agenda.Agenda, "changed", _nothing_is_stale),
        (model.ModelCase, "state", _the_journal_is_lost),
        (suspension, "suspend", _what_was_recorded_is_forgotten),
        (memory.Memory, "due_at", _nothing_is_due),
        (refresh, "end", _a_run_leaves_no_trace),
        (model.ModelCase, "refuses", _nobody_is_fenced),
        (model.ModelCase, "take_over", _nobody_looks),
    ],
    ids=[
        "a late result counts",
        "another choice",
        "nothing is looked at again",
        "the journal is forgotten",
        "a wait forgets what was recorded before it",
        "a timer is forgotten",
        "an agent runs on a token again",
        "nobody is fenced",
        "what was taken over is not looked at",
    ],
)
def test_a_planted_fault_is_found(
    monkeypatch: pytest.MonkeyPatch, where: object, name: str, fault: Callable[..., object]
) -> None:
    """A simulation that has never caught anything proves nothing."""
    monkeypatch.setattr(where, name, fault)
    for seed in range(500):
        try:
            World(seed).run()
        except Exception:
            return
    pytest.fail("500 worlds did not notice")
