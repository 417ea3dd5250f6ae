"""Random cases of the simulation, as they were after every commit: the replay, and forks from there."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from circuit.engine import livelock, owner
from circuit.engine.action import ActionOutput
from circuit.engine.audit.replay import Replay
from circuit.engine.fork import fork_tokens, origin_of
from circuit.engine.owner import Owner
from circuit.events import CaseStarted, TokenImage, decode_event, encode_event
from circuit.ids import CaseKey
from circuit.net.marking import Token
from tests.engine import seeds
from tests.engine.model import ModelCase
from tests.engine.world import Worker, World

SEEDS = 150
LATER = timedelta(days=3)
MOST_STEPS = 20
MOST_TOKENS = 30


class Remembering(World):
    """Keeps what the tables held after each event that a commit ended with."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.past = {1: dict(self.case.tokens)}

    def commit(self, worker: Worker) -> None:
        super().commit(worker)
        self.past[self.case.row.seq] = dict(self.case.tokens)

    def crash(self, worker: Worker) -> None:
        super().crash(worker)
        self.past[self.case.row.seq] = dict(self.case.tokens)


def replayed(world: World, history: Any, key: CaseKey) -> Replay:
    replay = Replay(key, world.workflow.net)
    for recorded in history:
        assert [str(fault) for fault in replay.apply(*recorded)] == []
    return replay


def plain(token: Token) -> tuple[Any, ...]:
    return (token.number, token.version, token.place, token.data, token.metadata, token.entered_at)


def fork_at(world: World, case: ModelCase, seq: int) -> ModelCase:
    """A fork of a case after its event `seq`, as the tables would hold it."""
    history = case.history[:seq]
    replay = replayed(world, history, case.key)
    at = history[-1][1]
    tokens = fork_tokens(world.workflow, replay, case.firings.values(), (), at, at + LATER)
    fired = {name: times for name, times in replay.fired.items() if times}
    fork = ModelCase.start(CaseKey(1, UUID(int=case.key.case.int * 1000 + seq)), "simulated", tokens, at + LATER)
    images = tuple(TokenImage(t.number, t.version, t.place, t.data, t.metadata) for t in tokens)
    event = CaseStarted("simulated", "hash", images, "test", origin_of(case.key, seq, tokens, fired))
    fork.history[0] = (1, at + LATER, decode_event(event.kind, through_json_event(event)))
    fork.row = replace(fork.row, next_token=max((t.number for t in tokens), default=0) + 1)
    return fork


def through_json_event(event: CaseStarted) -> dict[str, Any]:
    import orjson

    return orjson.loads(encode_event(event))


def play(world: World, fork: ModelCase) -> list[str]:
    """Run a fork for a while: every action succeeds at once. The transitions whose actions were started."""
    started: list[str] = []
    fork.owner, now = 1, fork.row.started_at
    mine = Owner(world.workflow, fork.state())
    step = mine.wake(now)
    for _ in range(MOST_STEPS):
        if step.write is None or fork.row.status.terminal or len(fork.tokens) > MOST_TOKENS:
            break
        fork.apply(step.write, 1)
        running = [start.call for start in step.starts]
        started += [call.transition for call in running]
        live = [row for row in fork.firings.values() if row.state.value == "running"]
        if fork.owner is None or not (live or step.again):
            break
        if not live:
            step = mine.wake(now)
            continue
        step = mine.completed(live[0].number, live[0].start, ActionOutput({"n": 1}), 0, now)
    return started


@pytest.fixture(autouse=True)
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "MOST_IMMEDIATE", seeds.MOST_IMMEDIATE)
    monkeypatch.setattr(livelock, "PATIENCE", seeds.PATIENCE)


def test_every_past_is_replayed_and_every_fork_goes_on_from_it() -> None:
    looked, placed, went_on = 0, 0, 0
    for seed in range(SEEDS):
        world = Remembering(seed)
        world.run()
        for seq, tokens in world.past.items():
            replay = replayed(world, world.case.history[:seq], world.case.key)
            # What the tables held is what the history tells.
            told = [(plain(token), replay.marking.reserved_by(token.number)) for token in replay.marking.all()]
            held = [(plain(token), holder) for token, holder in tokens.values()]
            assert sorted(told, key=str) == sorted(held, key=str), (seed, seq)
            fork = fork_at(world, world.case, seq)
            # A fork has the same tokens, all of them free, as long in their places as they were, and with as many runs
            # of the agents of their places behind them as had ended.
            for number, (token, holder) in fork.tokens.items():
                was, _ = tokens[number]
                assert holder is None and (token.place, token.data, token.metadata) == (
                    was.place,
                    was.data,
                    was.metadata,
                )
                assert token.entered_at == was.entered_at + LATER
                runs = {name: run.count for name, run in (token.runs or {}).items()}
                ended = {name: run.count - (run.firing is not None) for name, run in (was.runs or {}).items()}
                assert runs == {name: count for name, count in ended.items() if count}, (seed, seq)
                placed += bool(runs)
            assert fork.tokens.keys() == tokens.keys()
            # A fork of a fork that has done nothing yet is the same once more.
            again = fork_at(world, fork, 1)
            for number, (token, _) in again.tokens.items():
                first, _ = fork.tokens[number]
                assert (token.place, token.entered_at) == (first.place, first.entered_at + LATER)
                assert {n: r.count for n, r in (token.runs or {}).items()} == {
                    n: r.count for n, r in (first.runs or {}).items()
                }
            looked += 1
            if seq % 3 == 0:
                before = len(world.case.history)
                went_on += bool(play(world, fork))
                assert len(world.case.history) == before
                again = replayed(world, fork.history, fork.key)
                assert {t.number for t in again.marking.all()} == fork.tokens.keys()
                counted = {name: times for name, times in again.fired.items() if times}
                origin = fork.history[0][2].origin
                assert all(counted.get(name, 0) >= times for name, times in origin.fired.items())
    assert looked > 300 and went_on > 50 and placed > 5, (looked, placed, went_on)
