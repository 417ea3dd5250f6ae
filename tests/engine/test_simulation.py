"""The owner's loop under a seeded scheduler, against the oracle: lost processes, late results, refused batches.

`make simulate SEEDS=100000` runs more seeds than `make test` does. A failure names its seed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

import pytest

from circuit.engine import agenda, livelock, owner
from tests.engine import model
from tests.engine.world import World

SEEDS = int(os.environ.get("CIRCUIT_SIMULATION_SEEDS", "1000"))
BLOCKS = 10


@pytest.fixture(autouse=True)
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let owners yield after few firings, so that the simulation gets between them."""
    monkeypatch.setattr(owner, "MOST_IMMEDIATE", 20)
    monkeypatch.setattr(livelock, "PATIENCE", 10)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_what_is_committed_is_what_the_oracle_says(block: int) -> None:
    outcomes: Counter[str] = Counter()
    for seed in range(block * SEEDS // BLOCKS, (block + 1) * SEEDS // BLOCKS):
        world = World(seed)
        try:
            world.run()
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
        outcomes[world.case.row.status.value] += 1
    assert len(outcomes) > 1, f"the worlds are too much alike: {outcomes}"


def test_a_seed_names_a_history() -> None:
    first, second = World(7), World(7)
    first.run()
    second.run()
    assert first.case.history == second.case.history


def _any_start_counts(self: owner.Owner, number: int, start: int) -> object:
    live = self.memory.firings.get(number)
    return live if live is not None and live.running else None


def _the_last_wins(self: agenda.Agenda, *arguments: object) -> object:
    binding = _NEXT(self, *arguments)
    return max(self._found.values(), key=lambda found: found.numbers) if binding is not None else None


def _the_journal_is_lost(self: model.ModelCase) -> object:
    state = _STATE(self)
    state.journal = {}
    return state


def _nothing_is_stale(self: agenda.Agenda, places: object) -> None:
    return None


_NEXT = agenda.Agenda.next
_STATE = model.ModelCase.state


@pytest.mark.parametrize(
    ("where", "name", "fault"),
    [
        (owner.Owner, "_running", _any_start_counts),
        (agenda.Agenda, "next", _the_last_wins),
        (agenda.Agenda, "changed", _nothing_is_stale),
        (model.ModelCase, "state", _the_journal_is_lost),
    ],
    ids=["a late result counts", "another choice", "nothing is looked at again", "the journal is forgotten"],
)
def test_a_planted_fault_is_found(
    monkeypatch: pytest.MonkeyPatch, where: type, name: str, fault: Callable[..., object]
) -> None:
    """A simulation that has never caught anything proves nothing."""
    monkeypatch.setattr(where, name, fault)
    for seed in range(200):
        try:
            World(seed).run()
        except Exception:
            return
    pytest.fail("200 worlds did not notice")
