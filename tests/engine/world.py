"""A world for one case: two workers that come and go, actions that end late, refused writes, a clock that jumps.

A worker may die before or after its last write was committed, and may be declared dead while it lives: then it goes
on with what it remembers, beside the next owner, until the fence refuses what it writes. Everything that may happen
next is drawn from one seeded source, so that a seed names a whole history. After each commit the committed rows are
compared with what `tests/reference_net.py` says, which shares no code with the engine.

What a new capability adds: what may happen (a method, and a line in `possible`), what somebody may ask
(`tests/engine/questions.py`), what the model of the tables holds (`tests/engine/model.py`), and what the witness
follows (`tests/engine/witness.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any
from uuid import UUID

from circuit.engine.action import ActionOutput, Suspended
from circuit.engine.allocation import allocate
from circuit.engine.firings import Start
from circuit.engine.owner import Owner, Step
from circuit.engine.suspension import SIGNAL, WAIT
from circuit.errors import ActionFailed, ProviderUnavailable
from circuit.events import CaseStarted
from circuit.ids import CaseKey
from circuit.net.marking import Token
from circuit.storage.records import CaseRow, CaseStatus, CommandRow, FiringState, NewCase, Parent
from circuit.storage.resources import Wanted
from tests.engine.model import ModelCase, RefusedWrite
from tests.engine.questions import ASKED, WAIT_KEY
from tests.engine.shapes import Shape, build, random_shape
from tests.engine.witness import Witness

BEGAN_AT = datetime(2026, 1, 1, tzinfo=UTC)
MOST_STEPS = 150
MOST_EVENTS = 150
MOST_TOKENS = 12
MOST_COMMANDS = 9
WORKERS = 2
SHARED = {"desk": 2, "press": 1}
"""The shared places of every workflow, and how much there is of each."""
NOBODY = 0
"""No incarnation has this number."""
PERSON = {"subject": "test", "roles": ["*"]}

Happening = Callable[[], None]


@dataclass(eq=False)
class Running:
    """An action in the process of `incarnation`, which may be long dead when the result comes."""

    start: Start
    incarnation: int
    recorded: dict[str, Any]


@dataclass(eq=False)
class Worker:
    """One incarnation: its case in memory if it has it, the step that it sent and has not heard of, its actions."""

    incarnation: int
    alive: bool = True
    owner: Owner | None = None
    step: Step | None = None
    decided_at: datetime = BEGAN_AT
    running: list[Running] = field(default_factory=list)


class World:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.shape: Shape = random_shape(self.random)
        self.transitions = sorted(self.shape["transitions"])
        self.workflow = build(self.shape)
        self.now = BEGAN_AT
        key = CaseKey(1, UUID(int=seed + 1))
        tokens = [
            Token(number, 1, "p0", {"n": self.random.randint(0, 9), "k": self.random.randint(0, 1)}, {}, self.now)
            for number in range(1, self.random.randint(2, 5))
        ]
        self.case = ModelCase.start(key, "simulated", tokens, self.now)
        self.witness = Witness(self.shape, self.case)
        self.incarnations = 0
        self.workers = [self.new_worker() for _ in range(WORKERS)]
        self.asked: dict[tuple[int, int, str], int] = {}
        self.commands = 0
        self.opened = 0
        # What cases other than this one hold of every shared place.
        self.elsewhere = 0

    def new_worker(self) -> Worker:
        self.incarnations += 1
        return Worker(self.incarnations)

    def run(self) -> None:
        for _ in range(MOST_STEPS):
            if self.case.row.status.terminal or self.too_large():
                break
            self.random.choice(self.possible())()
        self.settle()

    def settle(self) -> None:
        """Faults stop: whatever can still happen does, and then the case must be somewhere that has a name."""
        self.elsewhere = 0
        for _ in range(3 * MOST_STEPS):
            if self.case.row.status.terminal:
                break
            if self.too_large():
                self.witness.cut_off = True
                break
            if not self.go_on():
                break
        else:
            raise AssertionError("the case never came to rest")
        self.witness.at_rest()

    def go_on(self) -> bool:
        """Do one thing that still has to be done; False if there is nothing."""
        for worker in list(self.workers):
            if not worker.alive:
                self.take_over(worker)
                return True
            if worker.step is not None:
                self.commit(worker)
                return True
            if not self.counts(worker):
                self.replace(worker)
                return True
        if self.grantable():
            self.grant()
            return True
        worker = next((one for one in self.workers if one.owner is not None and self.counts(one)), None)
        if worker is None:
            assert self.case.owner is None, "the case belongs to nobody who works for it"
            if self.case.due_at is None:
                assert not self.pending(), "a command waits, and nobody will look at it"
                return self.answer()
            self.now = max(self.now, self.case.due_at)
            self.claim(next(one for one in self.workers if self.counts(one)))
        elif worker.running:
            self.finish(worker, worker.running[0], late=False)
        elif self.pending():
            self.deliver(worker)
        else:
            return False
        return True

    def suspended(self) -> list[int]:
        """The firings that wait without a worker."""
        return [row.number for row in self.case.firings.values() if row.state is FiringState.SUSPENDED]

    def answer(self) -> bool:
        """Whoever is waited for answers in the end; False if nobody is."""
        waiting = self.suspended()
        children = self.living_children()
        if children:
            self.end_child(children[0])
        elif waiting:
            self.send("signal", {"firing": waiting[0], "payload": "in the end"})
        return bool(waiting or children)

    def living_children(self) -> list[CaseKey]:
        """The cases that were opened and have told nothing yet."""
        return sorted(self.case.children.keys() - self.case.told)

    def end_child(self, child: CaseKey) -> None:
        """A case that a firing opened ends, by itself or because it was told to; it says so once, as the database has
        it."""
        self.case.told.add(child)
        firing = self.case.children[child]
        result = {"status": self.random.choice(["completed", "cancelled"]), "reason": "", "tokens": []}
        self.send("child_ended", {"firing": firing, "case": str(child), "result": result})

    def too_large(self) -> bool:
        """Some nets never end; the simulation does."""
        return len(self.case.history) > MOST_EVENTS or len(self.case.tokens) > MOST_TOKENS

    def pending(self) -> bool:
        return any(command not in self.case.results for command in self.case.commands)

    def counts(self, worker: Worker) -> bool:
        """Whether what this worker writes counts."""
        return worker.incarnation not in self.case.fenced

    def possible(self) -> list[Happening]:
        """What may happen next; what stands there several times happens as much more often."""
        options: list[Happening] = [self.tick, self.ask, self.others_take]
        if self.grantable():
            options += [self.grant] * 3
        options += [partial(self.end_child, child) for child in self.living_children()]
        for worker in self.workers:
            options += self.possible_to(worker)
        return options

    def possible_to(self, worker: Worker) -> list[Happening]:
        if not worker.alive:
            return [partial(self.take_over, worker)] * 2
        options: list[Happening] = []
        if worker.owner is None:
            if self.case.owner is None and self.counts(worker):
                options += [partial(self.claim, worker)] * 3
        else:
            options += [partial(self.crash, worker)]
            # One that is declared dead while it lives goes on until a write or a renewal of its lease says so.
            options += [partial(self.take_over if self.counts(worker) else self.replace, worker)]
            if worker.step is not None:
                options += [partial(self.commit, worker)] * 6 + [partial(self.refuse, worker)]
            elif self.counts(worker):
                options += [partial(self.retire, worker)]
                if self.pending():
                    options += [partial(self.deliver, worker)] * 2
        for running in worker.running:
            options += [partial(self.finish_somewhere, running)] * 2
            options += [partial(self.journal, worker, running)]
            if WAIT + WAIT_KEY not in running.start.call.recorded:
                options += [partial(self.suspend, worker, running)]
        return options

    def free(self) -> dict[str, int]:
        """What of the shared places neither this case nor others hold."""
        return {place: amount - self.case.held(place) - self.elsewhere for place, amount in SHARED.items()}

    def grantable(self) -> list[Wanted]:
        """The firings that would be granted what they ask for now."""
        if not self.case.holds:
            return []
        waiting = [Wanted(self.case.key, firing, amounts) for firing, amounts in self.case.asking().items()]
        return allocate(self.free(), waiting)

    # What may happen

    def others_take(self) -> None:
        """Other cases take of the shared places, or give back."""
        most = min(amount - self.case.held(place) for place, amount in SHARED.items())
        self.elsewhere = self.random.randint(0, most)

    def grant(self) -> None:
        """Somebody lets in those that wait: a command tells the owner, and nothing else does."""
        for request in self.grantable():
            self.case.granted.add(request.firing)
            self.commands += 1
            payload = {"firing": request.firing}
            command = CommandRow(UUID(int=1000 + self.commands), "granted", payload, {"subject": "circuit"})
            self.case.commands[command.id] = command
        if self.case.owner is None:
            self.case.due_at = self.now
        assert all(amount >= 0 for amount in self.free().values()), "more is held than there is"

    def tick(self) -> None:
        self.now += timedelta(seconds=self.random.choice([0.1, 1, 5]))

    def claim(self, worker: Worker) -> None:
        """A worker claims the case and reads it."""
        assert self.case.owner is None
        self.case.owner = worker.incarnation
        self.case.due_at = None
        worker.owner = Owner(self.workflow, self.case.state())
        self.submit(worker, worker.owner.wake(self.now))

    def submit(self, worker: Worker, step: Step) -> None:
        if step.write is None:
            assert not step.starts, "actions were started without a commit"
            return
        assert worker.step is None
        worker.step = step
        worker.decided_at = self.now

    def commit(self, worker: Worker) -> None:
        """The database has the step, or refuses it because the worker is fenced."""
        step, worker.step = worker.step, None
        assert step is not None and step.write is not None
        try:
            self.case.apply(step.write, worker.incarnation)
        except RefusedWrite:
            assert not self.counts(worker), "the owner's write was refused"
            self.replace(worker)
            return
        self.witness.committed(step.again, worker.decided_at)
        worker.running = [running for running in worker.running if running.start.call.firing not in step.cancels]
        for start in step.starts:
            self.check_recorded(start)
            worker.running.append(Running(start, worker.incarnation, dict(start.call.recorded)))
        if step.write.release:
            worker.owner = None
            self.told_too_late()
        elif step.again and worker.owner is not None:
            self.submit(worker, worker.owner.wake(self.now))

    def told_too_late(self) -> None:
        """A command that came too late for the write that gave the case up makes it due."""
        if self.pending():
            self.case.due_at = self.now

    def check_recorded(self, start: Start) -> None:
        """A start knows what its attempt has journalled. (Signals that are kept are for the owner to give.)"""
        this = (start.call.firing, start.call.attempt)
        journal = {step: value for (*attempt, step), value in self.case.journal.items() if tuple(attempt) == this}
        assert journal.items() >= start.call.recorded.items(), "a start knows what was not recorded"
        unknown = [step for step in journal.keys() - start.call.recorded.keys() if not step.startswith(SIGNAL)]
        assert not unknown, "a start does not know what was recorded"

    def deliver(self, worker: Worker) -> None:
        """The owner is given a command that came while it was busy."""
        assert worker.owner is not None
        command = next(command for command in self.case.commands.values() if command.id not in self.case.results)
        self.submit(worker, worker.owner.command(command, self.now))
        assert worker.step is not None and worker.step.write is not None, "a command has no result"
        assert worker.step.write.commands_settled

    def refuse(self, worker: Worker) -> None:
        """A guard was lost, or the database failed: the owner is thrown away, and the case read anew by somebody."""
        worker.step = None
        worker.owner = None
        if self.case.owner == worker.incarnation:
            self.case.owner = None
            self.case.due_at = self.now
        if self.random.random() < 0.5:
            worker.running.clear()
        for running in worker.running:
            # Cut off: it may end late, and can record nothing any more.
            running.incarnation = NOBODY

    def crash(self, worker: Worker) -> None:
        """The process dies before or after its last write was committed; its actions may still answer somewhere."""
        if worker.step is not None and self.counts(worker) and self.random.random() < 0.5:
            assert worker.step.write is not None
            self.case.apply(worker.step.write, worker.incarnation)
            self.witness.committed(worker.step.again, worker.decided_at)
            if worker.step.write.release:
                self.told_too_late()
        worker.alive = False
        worker.step = None
        worker.owner = None
        if self.random.random() < 0.7:
            worker.running.clear()

    def take_over(self, worker: Worker) -> None:
        """A worker is declared dead, whether it is or not; one that lives does not know it yet."""
        self.case.take_over(worker.incarnation, self.now)
        if not worker.alive or worker.owner is None:
            self.replace(worker)

    def retire(self, worker: Worker) -> None:
        """A worker is stopped and hands back what it has; nothing of it counts as a crash."""
        self.case.retire(worker.incarnation, self.now)
        self.replace(worker)

    def replace(self, worker: Worker) -> None:
        """An incarnation is over, and its process begins a new one. A late result of it may still come."""
        new = self.workers[self.workers.index(worker)] = self.new_worker()
        if self.random.random() < 0.3:
            new.running = worker.running

    def journal(self, worker: Worker, running: Running) -> None:
        """The action gets its answer and records it, if its process still counts."""
        call = running.start.call
        if "answer:0" in running.recorded:
            return
        name = (call.firing, call.attempt, "answer:0")
        value = {"n": self.random.randint(0, 9)}
        try:
            running.recorded["answer:0"] = self.case.record(name, value, running.incarnation)
        except RefusedWrite:
            if running in worker.running:
                worker.running.remove(running)
            return
        row = self.case.firings[call.firing]
        if (row.attempt, row.start) == (call.attempt, call.start) and row.state.live:
            self.asked[name] = self.asked.get(name, 0) + 1
            assert self.asked[name] == 1, "an answer that was recorded was asked for again"

    def suspend(self, worker: Worker, running: Running) -> None:
        """The action waits without a worker, for a signal or for a while, with or without something recorded."""
        if worker.owner is None or worker.step is not None:
            return
        if self.random.random() < 0.5:
            self.journal(worker, running)
        if running in worker.running:
            worker.running.remove(running)
        call = running.start.call
        opens = self.new_child(call.firing) if self.random.random() < 0.3 else None
        seconds = self.random.choice([None, 0.5, 3.0])
        wait = Suspended("person", WAIT_KEY, {"asked": call.firing}, seconds, opens=opens)
        step = worker.owner.suspended(call.firing, call.start, wait, running.recorded, 0, self.now)
        self.check_counted(worker, running, step)
        self.submit(worker, step)

    def new_child(self, firing: int) -> NewCase:
        """A case that a firing opens."""
        self.opened += 1
        key = CaseKey(1, UUID(int=10_000_000 + self.opened))
        row = CaseRow("child", "hash", CaseStatus.RUNNING, 1, 1, 1, 1, self.now)
        row = replace(row, parent=Parent(self.case.key.case, firing))
        return NewCase(key, row, [], CaseStarted("child", "hash", (), "test"), {}, False)

    def check_counted(self, worker: Worker, running: Running, step: Step) -> None:
        """Only what the start that lives says may count."""
        if self.counts(worker):
            call = running.start.call
            row = self.case.firings[call.firing]
            wanted = row.state.value == "running" and row.start == call.start
            assert wanted == (step.write is not None), (
                f"start {call.start} of firing {call.firing}: {row.state} {row.start}"
            )

    def finish_somewhere(self, running: Running) -> None:
        """A result comes, mostly where its action was started; only the start that lives may count."""
        there = [worker for worker in self.workers if worker.owner is not None and worker.step is None]
        own = [worker for worker in there if running in worker.running]
        if there:
            worker = self.random.choice(own * 5 + there)
            # Who has not started it hears of it beside the one who has.
            self.finish(worker, running, late=worker not in own or self.random.random() < 0.1)

    def finish(self, worker: Worker, running: Running, *, late: bool) -> None:
        """The result of an action reaches `worker`; `late` says that it will come once more."""
        assert worker.owner is not None and worker.step is None
        if not late:
            for one in self.workers:
                if running in one.running:
                    one.running.remove(running)
        call = running.start.call
        before = self.case.row.seq
        if self.random.random() < 0.7:
            outputs = running.recorded.get("answer:0") or {"n": self.random.randint(0, 9)}
            step = worker.owner.completed(call.firing, call.start, ActionOutput(outputs), 0, self.now)
        else:
            error = self.random.choice([ActionFailed("broken"), ProviderUnavailable("away")])
            step = worker.owner.failed(call.firing, call.start, error, 0, self.now)
        self.check_counted(worker, running, step)
        assert self.case.row.seq == before
        self.submit(worker, step)

    def ask(self) -> None:
        """Somebody asks for something."""
        if self.commands >= MOST_COMMANDS:
            return
        kind = self.random.choices(list(ASKED), [weight for weight, _ in ASKED.values()])[0]
        self.send(kind, ASKED[kind][1](self))

    def send(self, kind: str, payload: dict[str, Any]) -> None:
        self.commands += 1
        command = CommandRow(UUID(int=self.commands), kind, payload, PERSON)
        self.case.commands[command.id] = command
        if self.case.owner is None:
            self.case.due_at = self.now
