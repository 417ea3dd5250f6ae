"""A world for one case: workers that come and go, actions that end late, writes that are refused, a clock that jumps.

Everything that may happen next is drawn from one seeded source, so that a seed names a whole history. After each commit
the committed rows are compared with what `tests/reference_net.py` says, which shares no code with the engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from circuit.engine.action import ActionOutput
from circuit.engine.owner import Owner, Start, Step
from circuit.errors import ActionFailed, ProviderUnavailable
from circuit.ids import CaseKey
from circuit.net.marking import Token
from circuit.storage.records import CommandRow
from tests.engine.model import ModelCase
from tests.engine.shapes import Shape, build, random_shape
from tests.engine.witness import Witness

BEGAN_AT = datetime(2026, 1, 1, tzinfo=UTC)
MOST_STEPS = 150
MOST_EVENTS = 150
MOST_TOKENS = 12


@dataclass
class Running:
    """An action in some process. `incarnation` is who started it; it may be long dead when the result comes."""

    start: Start
    incarnation: int
    recorded: dict[str, Any]


class World:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.shape: Shape = random_shape(self.random)
        self.workflow = build(self.shape)
        self.now = BEGAN_AT
        key = CaseKey(1, UUID(int=seed + 1))
        tokens = [
            Token(number, 1, "p0", {"n": self.random.randint(0, 9)}, {}, self.now)
            for number in range(1, self.random.randint(2, 5))
        ]
        self.case = ModelCase.start(key, "simulated", tokens, self.now)
        self.witness = Witness(self.shape, self.case)
        self.incarnation = 0
        self.owner: Owner | None = None
        self.step: Step | None = None
        self.running: list[Running] = []
        self.asked: dict[tuple[int, int, str], int] = {}
        self.commands = 0

    def run(self) -> None:
        for _ in range(MOST_STEPS):
            if self.case.row.status.terminal or self.too_large():
                break
            self.random.choice(self.possible())()
        self.settle()

    def settle(self) -> None:
        """Faults stop: whatever can still happen does, and then the case must be somewhere that has a name."""
        for _ in range(3 * MOST_STEPS):
            if self.case.row.status.terminal:
                break
            if self.too_large():
                self.witness.cut_off = True
                break
            if self.step is not None:
                self.commit()
            elif self.owner is None:
                if self.case.due_at is not None and self.case.due_at > self.now:
                    self.now = self.case.due_at
                if self.incarnation and self.case.due_at is None and not self.pending():
                    break
                self.claim()
            elif self.running:
                self.finish(self.running[0], late=False)
            elif self.pending():
                self.deliver()
            else:
                break
        else:
            raise AssertionError("the case never came to rest")
        self.witness.at_rest()

    def too_large(self) -> bool:
        """Some nets never end; the simulation does."""
        return len(self.case.history) > MOST_EVENTS or len(self.case.tokens) > MOST_TOKENS

    def pending(self) -> bool:
        return any(command not in self.case.results for command in self.case.commands)

    def possible(self) -> list[Any]:
        """What may happen next."""
        options: list[Any] = [self.tick, self.ask]
        if self.owner is None:
            options += [self.claim] * 3
        if self.step is not None:
            options += [self.commit] * 6 + [self.refuse]
        if self.owner is not None or self.step is not None:
            options += [self.crash]
        for running in self.running:
            options += [lambda running=running: self.finish(running, late=self.random.random() < 0.1)] * 2
            options += [lambda running=running: self.journal(running)]
        return options

    # What may happen

    def tick(self) -> None:
        self.now += timedelta(seconds=self.random.choice([0.1, 1, 5]))

    def claim(self) -> None:
        """A worker claims the case and reads it."""
        if self.case.owner is not None:
            return
        self.incarnation += 1
        self.case.owner = self.incarnation
        self.case.due_at = None
        self.owner = Owner(self.workflow, self.case.state())
        self.submit(self.owner.wake(self.now))

    def submit(self, step: Step) -> None:
        if step.write is None:
            assert not step.starts, "actions were started without a commit"
            return
        assert self.step is None
        self.step = step

    def commit(self) -> None:
        step, self.step = self.step, None
        assert step is not None and step.write is not None
        self.case.apply(step.write, self.incarnation)
        self.witness.committed(step.again)
        for number in step.cancels:
            self.running = [running for running in self.running if running.start.call.firing != number]
        for start in step.starts:
            for name in start.call.recorded:
                assert (start.call.firing, start.call.attempt, name) in self.case.journal
            self.running.append(Running(start, self.incarnation, dict(start.call.recorded)))
        if step.write.release:
            self.owner = None
            self.reschedule()
        elif step.again and self.owner is not None:
            self.submit(self.owner.wake(self.now))

    def deliver(self) -> None:
        """The owner is given a command that came while its last write was under way."""
        assert self.owner is not None
        command = next(command for command in self.case.commands.values() if command.id not in self.case.results)
        self.submit(self.owner.command(command, self.now))

    def reschedule(self) -> None:
        """A command that came too late for the write that gave the case up makes the case due."""
        if self.pending():
            self.case.due_at = self.now

    def refuse(self) -> None:
        """A guard was lost: the owner is thrown away, its actions are cancelled, the case is given back."""
        self.step = None
        self.owner = None
        self.case.owner = None
        self.case.due_at = self.now
        if self.random.random() < 0.5:
            self.running = [running for running in self.running if running.incarnation != self.incarnation]

    def crash(self) -> None:
        """The process dies before or after its last write was committed; its actions may still answer somewhere."""
        if self.step is not None and self.random.random() < 0.5:
            assert self.step.write is not None
            self.case.apply(self.step.write, self.incarnation)
            self.witness.committed(self.step.again)
        self.step = None
        self.owner = None
        self.case.lose_owner()
        self.case.due_at = self.now
        if self.random.random() < 0.7:
            self.running = [running for running in self.running if running.incarnation != self.incarnation]

    def journal(self, running: Running) -> None:
        """The action gets its answer and records it, if its process still counts."""
        call = running.start.call
        if running.recorded or running.incarnation != self.case.owner:
            return
        row = self.case.firings[call.firing]
        if (row.attempt, row.start) != (call.attempt, call.start) or not row.state.live:
            return
        name = (call.firing, call.attempt, "answer:0")
        self.asked[name] = self.asked.get(name, 0) + 1
        assert self.asked[name] == 1, "an answer that was recorded was asked for again"
        value = self.case.journal.setdefault(name, {"n": self.random.randint(0, 9)})
        running.recorded["answer:0"] = value

    def finish(self, running: Running, *, late: bool) -> None:
        """The result of an action reaches whoever owns the case now; only the start that lives may count."""
        if self.owner is None or self.step is not None:
            return
        if not late:
            self.running.remove(running)
        call = running.start.call
        row = self.case.firings[call.firing]
        counts = row.state.live and row.state.value == "running" and row.start == call.start
        before = self.case.row.seq
        if self.random.random() < 0.7:
            outputs = running.recorded.get("answer:0") or {"n": self.random.randint(0, 9)}
            step = self.owner.completed(call.firing, call.start, ActionOutput(outputs), 0, self.now)
        else:
            error = self.random.choice([ActionFailed("broken"), ProviderUnavailable("away")])
            step = self.owner.failed(call.firing, call.start, error, 0, self.now)
        assert counts == (step.write is not None), (
            f"start {call.start} of firing {call.firing}: {row.state} {row.start}"
        )
        assert self.case.row.seq == before
        self.submit(step)

    def ask(self) -> None:
        """Somebody asks for something: a manual transition, a retry of incidents, rarely the end."""
        if self.commands > 6:
            return
        self.commands += 1
        kind = self.random.choices(["fire", "retry", "cancel"], [6, 3, 0.3])[0]
        payload: dict[str, Any] = {}
        if kind == "fire":
            payload = {"transition": self.random.choice(sorted(self.shape["transitions"])), "form": {}}
        command = CommandRow(UUID(int=self.commands), kind, payload, {"subject": "test", "roles": ["*"]})
        self.case.commands[command.id] = command
        if self.owner is not None and self.step is None:
            self.submit(self.owner.command(command, self.now))
            assert self.step is not None, "a command has no result"
            assert self.step.write is not None and self.step.write.commands_settled
        elif self.case.owner is None:
            self.case.due_at = self.now
