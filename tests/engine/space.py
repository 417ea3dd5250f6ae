"""All that can happen to one small case, and not only what a seed draws: every interleaving of two workers' claims,
commits, crashes and take-overs, of results, failures and cancels, over the real owner.

A state is a world; a move makes another one of a copy of it. States that look alike are looked at once. How often
each fault may strike is bounded, so that the space is finite; all of it is walked through.
"""

from __future__ import annotations

import io
import pickle
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from uuid import UUID

from circuit.engine.action import ActionOutput
from circuit.engine.owner import Owner, Step
from circuit.errors import ActionFailed
from circuit.ids import CaseKey
from circuit.net.marking import Token
from circuit.storage.records import CommandResult, CommandRow, CommandState
from tests.engine.model import ModelCase, RefusedWrite
from tests.engine.shapes import Shape, build
from tests.engine.witness import Witness
from tests.engine.world import BEGAN_AT, PERSON, WORKERS, Running, Worker

Move = Callable[[], None]

CANCEL = "somebody cancels"
"""The one move that is possible also where nothing more happens by itself."""


@dataclass(frozen=True)
class Budget:
    """How often each fault may strike in one history, and how often somebody cancels."""

    crashes: int = 0
    take_overs: int = 0
    refusals: int = 0
    failures: int = 0
    cancels: int = 0


@dataclass
class State:
    """One case, its workers, and what may still happen to them."""

    shape: Shape
    case: ModelCase
    witness: Witness
    budget: Budget
    workers: list[Worker] = field(default_factory=list)
    incarnations: int = 0

    @classmethod
    def first(cls, shape: Shape, marking: dict[str, int], budget: Budget) -> State:
        """A new case with so many tokens in each place."""
        places = [place for place, count in marking.items() for _ in range(count)]
        tokens = [Token(number, 1, place, {"n": 0}, {}, BEGAN_AT) for number, place in enumerate(places, 1)]
        case = ModelCase.start(CaseKey(1, UUID(int=1)), "simulated", tokens, BEGAN_AT)
        case.due_at = BEGAN_AT
        state = cls(shape, case, Witness(shape, case), budget)
        state.workers = [state.new_worker() for _ in range(WORKERS)]
        return state

    def new_worker(self) -> Worker:
        self.incarnations += 1
        return Worker(self.incarnations)

    def counts(self, worker: Worker) -> bool:
        return worker.incarnation not in self.case.fenced

    # -- moves ------------------------------------------------------------------------------------------------------

    def moves(self, workflow: Any) -> Iterator[tuple[str, Move]]:
        """What may happen next, each with a name."""
        budget, over = self.budget, self.case.row.status.terminal
        waiting = [command for command in self.case.commands if command not in self.case.results]
        if budget.cancels and not over:
            yield CANCEL, self.ask_to_cancel
        if over and waiting:
            yield "the late command is refused", partial(self.refuse_late, waiting[0])
        for place, worker in enumerate(self.workers):
            if not worker.alive:
                yield f"{place} is found dead", partial(self.take_over, worker)
                continue
            if not self.counts(worker) and worker.step is None:
                yield f"{place} learns that it is fenced", partial(self.begin_anew, worker)
            if worker.owner is None:
                if self.case.owner is None and self.case.due_at is not None and self.counts(worker) and not over:
                    yield f"{place} claims", partial(self.claim, worker, workflow)
                continue
            if budget.crashes:
                yield f"{place} crashes", partial(self.crash, worker, committed=False)
                if worker.step is not None and self.counts(worker):
                    yield f"{place} crashes after its commit", partial(self.crash, worker, committed=True)
            if budget.take_overs and self.counts(worker):
                yield f"{place} is declared dead", partial(self.declare_dead, worker)
            if worker.step is not None:
                yield f"{place} commits", partial(self.commit, worker)
                if budget.refusals:
                    yield f"{place} is refused", partial(self.refuse, worker)
                continue
            if waiting and self.counts(worker):
                yield f"{place} is given the command", partial(self.deliver, worker)
            for number, running in enumerate(worker.running):
                yield f"{place} gets result {number}", partial(self.finish, worker, running, fails=False)
                if budget.failures:
                    yield f"{place} gets failure {number}", partial(self.finish, worker, running, fails=True)

    def spend(self, fault: str) -> None:
        self.budget = replace(self.budget, **{fault: getattr(self.budget, fault) - 1})

    def ask_to_cancel(self) -> None:
        self.spend("cancels")
        command = CommandRow(UUID(int=len(self.case.commands) + 1), "cancel", {}, PERSON)
        self.case.commands[command.id] = command
        if self.case.owner is None:
            self.case.due_at = BEGAN_AT

    def refuse_late(self, command: UUID) -> None:
        """A command came while the case ended: whoever is idle answers it."""
        self.case.results[command] = CommandResult(command, CommandState.REFUSED, {})

    def claim(self, worker: Worker, workflow: Any) -> None:
        self.case.owner = worker.incarnation
        self.case.due_at = None
        worker.owner = Owner(workflow, self.case.state())
        self.submit(worker, worker.owner.wake(BEGAN_AT))

    def submit(self, worker: Worker, step: Step) -> None:
        assert step.write is not None or not step.starts
        worker.step = step if step.write is not None else None

    def commit(self, worker: Worker) -> None:
        step, worker.step = worker.step, None
        assert step is not None and step.write is not None
        try:
            self.case.apply(step.write, worker.incarnation)
        except RefusedWrite:
            assert not self.counts(worker), "the owner's write was refused"
            self.begin_anew(worker)
            return
        assert self.counts(worker), "a fenced worker has written"
        self.committed(step)
        worker.running = [running for running in worker.running if running.start.call.firing not in step.cancels]
        worker.running += [Running(start, worker.incarnation, {}) for start in step.starts]
        if step.write.release:
            worker.owner = None
            worker.running = []
        elif step.again and worker.owner is not None:
            self.submit(worker, worker.owner.wake(BEGAN_AT))

    def committed(self, step: Step) -> None:
        """The step is in the tables. A command that came too late for it makes a case that was given up due."""
        self.witness.committed(step.again)
        if self.case.owner is None and any(command not in self.case.results for command in self.case.commands):
            self.case.due_at = BEGAN_AT

    def deliver(self, worker: Worker) -> None:
        assert worker.owner is not None
        command = next(command for command in self.case.commands.values() if command.id not in self.case.results)
        self.submit(worker, worker.owner.command(command, BEGAN_AT))
        assert worker.step is not None, "a command has no result"

    def finish(self, worker: Worker, running: Running, *, fails: bool) -> None:
        assert worker.owner is not None
        worker.running.remove(running)
        call = running.start.call
        if fails:
            self.spend("failures")
            self.submit(worker, worker.owner.failed(call.firing, call.start, ActionFailed("broken"), 0, BEGAN_AT))
        else:
            output = ActionOutput({"n": 1})
            self.submit(worker, worker.owner.completed(call.firing, call.start, output, 0, BEGAN_AT))

    def refuse(self, worker: Worker) -> None:
        self.spend("refusals")
        worker.step = worker.owner = None
        worker.running = []
        if self.case.owner == worker.incarnation:
            self.case.owner, self.case.due_at = None, BEGAN_AT

    def crash(self, worker: Worker, *, committed: bool) -> None:
        self.spend("crashes")
        if committed:
            assert worker.step is not None and worker.step.write is not None
            self.case.apply(worker.step.write, worker.incarnation)
            self.committed(worker.step)
        worker.alive = False
        worker.step = worker.owner = None
        worker.running = []

    def take_over(self, worker: Worker) -> None:
        self.case.take_over(worker.incarnation, BEGAN_AT)
        self.begin_anew(worker)

    def declare_dead(self, worker: Worker) -> None:
        self.spend("take_overs")
        self.case.take_over(worker.incarnation, BEGAN_AT)

    def begin_anew(self, worker: Worker) -> None:
        self.workers[self.workers.index(worker)] = self.new_worker()

    # -- what holds in every state ----------------------------------------------------------------------------------

    def check(self) -> None:
        case = self.case
        live = {number for number, row in case.firings.items() if row.state.live}
        for number, (_, firing) in case.tokens.items():
            assert firing is None or firing in live, f"I3: token {number} is held by {firing}, which does not live"
        owners = [worker for worker in self.workers if worker.owner is not None and self.counts(worker)]
        assert len(owners) <= 1, "two workers that count have the case"
        if case.row.status.terminal:
            assert not live and case.owner is None, "I6: something of a case that has ended lives"
            return
        if case.owner is None:
            assert not live or case.due_at is not None, "I3: a firing lives, and nobody will look at it"
            waiting = any(command not in case.results for command in case.commands)
            assert not waiting or case.due_at is not None, "I3: a command waits, and nobody will look at it"
        else:
            assert case.owner not in case.fenced, "I2: the case belongs to a fenced worker"

    def image(self) -> tuple[Any, ...]:
        """What tells this state from others. Incarnations count only by their place: their numbers never end."""
        case = self.case
        places = {worker.incarnation: place for place, worker in enumerate(self.workers)}
        return (
            self.budget,
            _image_of_row(case.row),
            places.get(case.owner),
            case.due_at is not None,
            tuple(sorted((n, t.version, t.place, held) for n, (t, held) in case.tokens.items())),
            tuple(sorted((n, f.state, f.attempt, f.start, f.crashes) for n, f in case.firings.items())),
            tuple(sorted((n, i.resolved_at is None) for n, i in case.incidents.items())),
            tuple(command in case.results for command in case.commands),
            tuple(sorted(self._image_of(worker) for worker in self.workers)),
        )

    def _image_of(self, worker: Worker) -> tuple[Any, ...]:
        write = worker.step.write if worker.step is not None else None
        memory = worker.owner.memory if worker.owner is not None else None
        return (
            worker.alive,
            self.counts(worker),
            self.case.owner == worker.incarnation,
            () if memory is None else _image_of_row(memory.row),
            () if memory is None else tuple(sorted((n, f.row.state, f.row.start) for n, f in memory.firings.items())),
            () if write is None else (write.expected_seq, tuple(event.kind for _, event in write.events)),
            tuple(sorted((one.start.call.firing, one.start.call.start) for one in worker.running)),
        )


def _image_of_row(row: Any) -> tuple[Any, ...]:
    return (row.status, row.seq, row.next_token, row.next_firing, row.next_incident)


class Space:
    """Every state that a case of `shape` can come to."""

    def __init__(self, shape: Shape, marking: dict[str, int], budget: Budget) -> None:
        self.shape = shape
        self.workflow = build(shape)
        self._fixed = [self.workflow, self.workflow.net, self.shape]
        self._first = State.first(shape, marking, budget)
        self.ends: set[str] = set()
        self.moves = 0

    def walk(self) -> int:
        """Look at all of them; how many there are. Raises `AssertionError` with the way to what is wrong."""
        first = self._first
        seen = {first.image()}
        queue: deque[tuple[bytes, tuple[str, ...]]] = deque([(self._packed(first), ())])
        while queue:
            packed, way = queue.popleft()
            names = [name for name, _ in self._unpacked(packed).moves(self.workflow)]
            if not set(names) - {CANCEL}:
                self._end(self._unpacked(packed), way)
            for place, name in enumerate(names):
                state = self._unpacked(packed)
                _, move = next(found for number, found in enumerate(state.moves(self.workflow)) if number == place)
                try:
                    move()
                    state.check()
                except Exception as error:
                    raise AssertionError(f"after {', '.join((*way, name))}: {error!r}") from error
                self.moves += 1
                image = state.image()
                if image not in seen:
                    seen.add(image)
                    queue.append((self._packed(state), (*way, name)))
        return len(seen)

    def _end(self, state: State, way: tuple[str, ...]) -> None:
        """Nothing more can happen: the case must be somewhere that has a name."""
        try:
            assert state.case.row.status.terminal or state.case.owner is None, "somebody owns a case that is at rest"
            state.witness.at_rest()
        except AssertionError as error:
            raise AssertionError(f"at the end of {', '.join(way)}: {error!r}") from error
        self.ends.add(state.case.row.status.value)

    def _packed(self, state: State) -> bytes:
        stream = io.BytesIO()
        pickler = pickle.Pickler(stream, protocol=5)
        pickler.persistent_id = self._mark  # type: ignore[method-assign]
        pickler.dump(state)
        return stream.getvalue()

    def _unpacked(self, packed: bytes) -> State:
        unpickler = pickle.Unpickler(io.BytesIO(packed))
        unpickler.persistent_load = lambda mark: self._fixed[mark]  # type: ignore[method-assign]
        return unpickler.load()

    def _mark(self, value: object) -> int | None:
        return next((number for number, fixed in enumerate(self._fixed) if fixed is value), None)
