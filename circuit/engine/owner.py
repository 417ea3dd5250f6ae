"""The owner of one case: the file to read first.

An owner holds a case in memory and decides, without any IO, what each input does to it: a wake-up, a command, the
result of an action. Each answer is a `Step`: one write, and the actions that may start once that write is committed.
Whatever is not committed has not happened; if a write is refused, the owner is thrown away and the case read anew.

    offered --start--> running --complete--> completed
       |                 |  |---suspend--> suspended --signal or timeout--> offered
       |--- retry_at ----|  |---fail, attempts left--> offered (available later)
       |--- owner lost --|  |---fail, none left -----> failed (tokens go to on_failure, or an incident is raised)
    offered, running, suspended --cancel--> cancelled (tokens are released)
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from circuit.definition.workflow import Workflow
from circuit.engine import reception, suspension
from circuit.engine.action import ActionCall, ActionOutput, Suspended
from circuit.engine.command_rule import answer
from circuit.engine.deadline import due_interruptions, next_interruption
from circuit.engine.draft import Draft
from circuit.engine.failure import give_up, resolve, supersede
from circuit.engine.firings import Crowded, Firings, Start, nobody_waits
from circuit.engine.kinship import tell_parent
from circuit.engine.memory import Memory
from circuit.engine.reception import Message
from circuit.engine.rest import is_complete, status_at_rest
from circuit.errors import ActionFailed, CircuitError, Conflict, FiringError, Livelock
from circuit.events import CaseEnded, InputScreened, MessageTaken, StreamDelta, StreamType
from circuit.net.binding import Binding, first_binding
from circuit.security.principal import Principal
from circuit.security.redactor import NOTHING as NO_REDACTION
from circuit.security.redactor import Redaction
from circuit.storage.records import (
    ALL_ATTEMPTS,
    CaseState,
    CaseStatus,
    CaseWrite,
    CommandRow,
    ExecutionStatus,
    JournalRow,
)
from circuit.value import dataclass, replace

MOST_IMMEDIATE = 1_000
"""Immediate firings in one go, after which the owner commits and lets other cases have their turn."""

COUNTED_EVENTS = 100
"""Events of a case after which the counts of its firings are written down: who reads it counts no more than those."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one input led to. `starts`, `cancels` and `abandoned` (firings that ended without their actions) wait for
    the commit of `write`; `again` asks for another `wake` after it, because the owner stopped in the middle to let
    others have their turn. `callers` are the traces of those whose commands the step applied."""

    write: CaseWrite | None
    starts: tuple[Start, ...] = ()
    cancels: tuple[int, ...] = ()
    abandoned: tuple[ActionCall, ...] = ()
    again: bool = False
    callers: tuple[str, ...] = ()


NOTHING = Step(None)


class Owner:
    """One case in memory. Its methods are the inputs; each returns the step that the input led to. `crowded` says of a
    firing that is about to begin where it waits for its turn, `redaction` what is not told of the case."""

    def __init__(
        self,
        workflow: Workflow,
        state: CaseState,
        crowded: Crowded = nobody_waits,
        redaction: Redaction = NO_REDACTION,
    ) -> None:
        self.memory = Memory(workflow, state, redaction)
        self._commands = list(state.commands)
        self.firings = Firings(self.memory, crowded)

    # Inputs

    def wake(self, now: datetime) -> Step:
        """The case was just read, a retry is due, or the last step asked for another: do all that can be done."""
        draft = self._draft(now)
        self.firings.take_up(draft)
        commands, self._commands = self._commands, []
        for command in commands:
            draft.settle(answer(self, command, draft))
            if self.memory.migrated:
                # The others are for whoever reads the case in its new version.
                break
        return self._finish(draft)

    def command(self, command: CommandRow, now: datetime) -> Step:
        """Somebody asks for something: apply it or refuse it, and settle the command in the same write."""
        draft = self._draft(now)
        draft.settle(answer(self, command, draft))
        return self._finish(draft)

    def completed(self, number: int, start: int, output: ActionOutput, sequence: int, now: datetime) -> Step:
        """An action is done. `sequence` is the last frame of its stream. A result of another start is dropped."""
        live = self.firings.running(number, start)
        if live is None:
            return NOTHING
        draft = self._draft(now)
        try:
            self.firings.complete(live, output.outputs, draft)
        except FiringError as error:
            self.firings.attempt_failed(live, error, sequence, draft)
        else:
            self.memory.end_execution(live, ExecutionStatus.COMPLETED, draft, usage=output.usage)
            text, value = output.shown or (output.text, output.output)
            fields = {"final_response": text, "usage": output.usage, "output": value}
            self.memory.frame(live, sequence + 1, StreamDelta(StreamType.COMPLETED, fields), draft)
            if output.exchange is not None:
                draft.say(number, output.exchange)
        return self._finish(draft)

    def failed(
        self,
        number: int,
        start: int,
        error: CircuitError,
        sequence: int,
        now: datetime,
        lasting: Mapping[str, Any] | None = None,
    ) -> Step:
        """An action failed. A failure of another start is dropped. `lasting` is what its journal holds for later
        attempts too."""
        live = self.firings.running(number, start)
        if live is None:
            return NOTHING
        draft = self._draft(now)
        self.memory.journal.setdefault(number, {}).update(lasting or {})
        self.firings.attempt_failed(live, error, sequence, draft)
        return self._finish(draft)

    def suspended(
        self, number: int, start: int, wait: Suspended, recorded: Mapping[str, Any], sequence: int, now: datetime
    ) -> Step:
        """An action waits without a worker; `recorded` is what it has journalled. Of another start, it is dropped."""
        live = self.firings.running(number, start)
        if live is None:
            return NOTHING
        draft = self._draft(now)
        try:
            suspension.suspend(self.memory, live, wait, recorded, draft)
        except Conflict as error:
            self.firings.attempt_failed(live, ActionFailed(error.message), sequence, draft)
        else:
            self.firings.start_again(live, draft)
        return self._finish(draft)

    def screened(
        self, number: int, start: int, step: str, decision: Any, event: Mapping[str, Any], now: datetime
    ) -> Step:
        """Screening found something in what an action is told: the history says so, once. Of another start, or where it
        was said already, it is dropped."""
        live = self.firings.running(number, start)
        if live is None or step in self.memory.journal.get(number, {}):
            return NOTHING
        draft = self._draft(now)
        self.memory.journal.setdefault(number, {})[step] = decision
        draft.journal(JournalRow(number, ALL_ATTEMPTS, step, decision))
        draft.record(InputScreened(live.row.transition, number, self.memory.execution_id(number), **event))
        return self._finish(draft)

    # What commands do; `command_rule` decides whether they may

    def fire_manually(
        self, transition: str, form: Mapping[str, Any], principal: str, draft: Draft
    ) -> dict[str, Any] | None:
        """Fire a manual transition with its first binding; None if it is not enabled."""
        memory, found = self.memory, list[Binding]()
        for one in memory.net.named(transition):
            first = first_binding(memory.net, memory.marking, one.name, memory.case, draft.now, memory.blocked)
            found += [] if first is None else [first]
        if not found:
            return None
        binding = min(found, key=lambda one: (one.numbers, one.transition))
        firing = self.firings.fire(binding, draft, said={"form": form}, principal=principal)
        return {"transition": transition, "firing": firing}

    def receive(self, message: Message, principal: str, draft: Draft) -> dict[str, Any]:
        """Fire the transition that waits for a message. Raises `Conflict` where none does (any more), and `FiringError`
        where one does and cannot take it."""
        binding = reception.receiver(self.memory, message, draft.now)
        if binding is None:
            raise Conflict(f"case {self.memory.key} does not wait for the message {message.name} (any more)")
        firing = self.firings.fire(binding, draft, said={"message": message.data}, principal=principal)
        draft.record(MessageTaken(binding.transition, message.id, message.name, message.key, principal))
        return {"transition": binding.transition, "firing": firing}

    def signal(self, number: int, key: str | None, payload: Any, principal: Principal, draft: Draft) -> dict[str, Any]:
        """Give a signal to a firing: it goes on, or the signal is kept until it waits. Raises as `suspension` does."""
        live, delivered = suspension.signal(self.memory, number, key, payload, principal, draft)
        if delivered:
            self.firings.start_again(live, draft)
        return {"firing": number, "key": key, "delivered": delivered}

    def child_ended(self, number: int, case: str, result: Mapping[str, Any], draft: Draft) -> dict[str, Any]:
        """The case has ended that a firing opened: the firing goes on. Raises `Conflict` where it does not wait."""
        self.firings.start_again(suspension.child_ended(self.memory, number, case, result, draft), draft)
        return {"firing": number, "case": case}

    def retry_incidents(self, number: int | None, principal: str, draft: Draft) -> list[int]:
        """Let what open incidents block (or only incident `number`) be tried again."""
        numbers = [found for found in self.memory.incidents if number in (None, found)]
        for found in numbers:
            resolve(self.memory, found, "retried", draft, principal)
        return numbers

    def granted(self, number: int, draft: Draft) -> bool:
        """Start a firing that waited for shared places. False if it does not wait (any more)."""
        live = self.memory.firings.get(number)
        if live is None or live.row.start != 0:
            return False
        self.firings.start_first(live, draft)
        return True

    def end(self, status: CaseStatus, reason: str, draft: Draft, principal: str | None = None) -> None:
        """The case ends: what still runs is cancelled, and what is open closed, in the same commit."""
        for live in list(self.memory.firings.values()):
            self.firings.cancel(live, draft)
        supersede(self.memory, draft)
        for number in list(self.memory.incidents):
            resolve(self.memory, number, "case_ended", draft)
        tell_parent(self.memory, status, reason, draft)
        draft.record(CaseEnded(status.value, reason, principal))
        self.memory.row = replace(self.memory.row, status=status, finished_at=draft.now)

    # The end of a step

    def due_at(self, now: datetime) -> datetime | None:
        """When something of the case goes on by itself, if nothing happens before."""
        found = self.memory.due_at()
        if not self.memory.net.interrupting:
            return found
        return min(filter(None, (found, next_interruption(self.memory, now))), default=None)

    def _quiesce(self, draft: Draft) -> bool:
        """Fire all that is enabled. Returns whether it stopped early, to go on after the commit."""
        memory = self.memory
        self.firings.livelock.begin()
        for _ in range(MOST_IMMEDIATE):
            binding = memory.agenda.next(memory.marking, memory.case, draft.now, memory.blocked)
            if binding is None:
                return False
            immediate = not memory.net.transitions[binding.transition].acting
            if immediate and self.firings.livelock.repeats(memory.marking, memory.fired):
                message = f"{binding.transition} only repeats a marking that this case had before: bound the loop"
                give_up(memory, binding, Livelock(message), draft)
                continue
            self.firings.fire(binding, draft)
            if self._ended(draft):
                return False
        return True

    def _interrupt(self, draft: Draft) -> None:
        """Timers take tokens that firings hold: these are cancelled, and no late result of theirs counts."""
        for live, binding in due_interruptions(self.memory, draft.now):
            self.firings.cancel(live, draft)
            self.firings.fire(binding, draft)

    def _draft(self, now: datetime) -> Draft:
        return Draft(self.memory.key, self.memory.row, now, self.memory.workflow.outbox)

    def _finish(self, draft: Draft) -> Step:
        """Fire to quiescence, see where that leaves the case, and give it all as one step."""
        memory = self.memory
        if memory.migrated:
            return self._leave(draft)
        again = False
        if memory.net.interrupting and not memory.row.status.terminal:
            self._interrupt(draft)
        if not memory.row.status.terminal and not self._ended(draft):
            again = self._quiesce(draft)
            supersede(memory, draft)
        # What a version before this one waited for is not awaited any more.
        if memory.net.receiving or memory.awaited:
            reception.look(memory, draft)
        busy = again or any(live.running for live in memory.firings.values())
        if not memory.row.status.terminal:
            status = CaseStatus.RUNNING if busy else status_at_rest(memory, draft.now)
            if status is not memory.row.status:
                memory.row = replace(memory.row, status=status)
        due_at = None if busy else self.due_at(draft.now)
        write = draft.write(memory.row, memory.marking, fired=self._counts(draft), release=not busy, due_at=due_at)
        if write is not None:
            memory.row = write.row
        starts, cancels, abandoned = self.firings.outcome()
        return Step(write, starts, cancels, abandoned, again, draft.callers)

    def _leave(self, draft: Draft) -> Step:
        """Give the case up as it is, due at once: it goes on with an owner that reads it in its new version."""
        memory = self.memory
        memory.row = replace(memory.row, status=CaseStatus.RUNNING)
        write = draft.write(memory.row, memory.marking, release=True, due_at=draft.now, migrated=True)
        return Step(write, (), *self.firings.outcome()[1:])

    def _counts(self, draft: Draft) -> Mapping[str, int] | None:
        """The counts of firings, where it is time to write them down: of a case that goes on, now and then."""
        memory = self.memory
        if memory.row.status.terminal or draft.seq - memory.fired_seq < COUNTED_EVENTS:
            return None
        memory.fired_seq = draft.seq
        return {name: times for name, times in memory.fired.items() if times}

    def _ended(self, draft: Draft) -> bool:
        """Whether the completion predicate holds, or a token lies where the case ends; if so, it does."""
        memory = self.memory
        net, marking = memory.net, memory.marking
        for name in net.ending:
            if marking.count(name):
                status = CaseStatus.FAILED if net.places[name].failed else CaseStatus.COMPLETED
                self.end(status, f"a token lies in {name}", draft)
                return True
        if is_complete(memory):
            self.end(CaseStatus.COMPLETED, "", draft)
            return True
        return False
