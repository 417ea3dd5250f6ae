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
from circuit.engine import suspension
from circuit.engine.action import ActionCall, ActionOutput, Suspended
from circuit.engine.calls import action_call, inputs_of, performer, token_image
from circuit.engine.command_rule import answer
from circuit.engine.deadline import due_interruptions, next_interruption
from circuit.engine.draft import Draft
from circuit.engine.failure import fail_begin, fail_firing, give_up, resolve, supersede, try_again_later
from circuit.engine.livelock import LivelockWatch
from circuit.engine.memory import HOLDS, LiveFiring, Memory
from circuit.engine.rest import is_complete, status_at_rest
from circuit.errors import ActionFailed, CircuitError, Conflict, Crashed, FiringError, Livelock
from circuit.events import (
    CaseEnded,
    FiringBegun,
    FiringCancelled,
    FiringGranted,
    FiringResumed,
    StreamDelta,
    StreamType,
    TransitionFired,
)
from circuit.net import firing as rule
from circuit.net.binding import Binding, bindings
from circuit.net.mapping import produce
from circuit.security.principal import Principal
from circuit.storage.records import (
    QUARANTINE_CRASHES,
    CaseState,
    CaseStatus,
    CaseWrite,
    CommandRow,
    ExecutionRow,
    ExecutionStatus,
    FiringRow,
    FiringState,
)
from circuit.value import dataclass, replace

MOST_IMMEDIATE = 1_000
"""Immediate firings in one go, after which the owner commits and lets other cases have their turn."""

COUNTED_EVENTS = 100
"""Events of a case after which the counts of its firings are written down: who reads it counts no more than those."""


@dataclass(frozen=True, slots=True)
class Start:
    """An action to start. `reason` says why it is not the first start of its firing, and is None if it is. `alone`:
    its process was lost with it before, so that nothing else runs in the process while it does."""

    call: ActionCall
    reason: str | None
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What one input led to. `starts`, `cancels` and `abandoned` (firings that ended without their actions) wait for
    the commit of `write`; `again` asks for another `wake` after it, because the owner stopped in the middle to let
    others have their turn."""

    write: CaseWrite | None
    starts: tuple[Start, ...] = ()
    cancels: tuple[int, ...] = ()
    abandoned: tuple[ActionCall, ...] = ()
    again: bool = False


NOTHING = Step(None)


class Owner:
    """One case in memory. Its methods are the inputs; each returns the step that the input led to."""

    def __init__(self, workflow: Workflow, state: CaseState) -> None:
        self.memory = Memory(workflow, state)
        self._commands = list(state.commands)
        self._livelock = LivelockWatch(workflow.net)
        self._lost = {live.row.number for live in self.memory.firings.values() if live.running}
        self._starts: list[Start] = []
        self._cancels: list[int] = []
        self._abandoned: list[ActionCall] = []

    # Inputs

    def wake(self, now: datetime) -> Step:
        """The case was just read, a retry is due, or the last step asked for another: do all that can be done."""
        draft = self._draft(now)
        for live in list(self.memory.firings.values()):
            self._start_again(live, draft)
        self._lost.clear()
        commands, self._commands = self._commands, []
        for command in commands:
            draft.settle(answer(self, command, draft))
        return self._finish(draft)

    def command(self, command: CommandRow, now: datetime) -> Step:
        """Somebody asks for something: apply it or refuse it, and settle the command in the same write."""
        draft = self._draft(now)
        draft.settle(answer(self, command, draft))
        return self._finish(draft)

    def completed(self, number: int, start: int, output: ActionOutput, sequence: int, now: datetime) -> Step:
        """An action is done. `sequence` is the last frame of its stream. A result of another start is dropped."""
        live = self._running(number, start)
        if live is None:
            return NOTHING
        draft = self._draft(now)
        try:
            self._complete(live, output.outputs, draft)
        except FiringError as error:
            self._attempt_failed(live, error, sequence, draft)
        else:
            self.memory.end_execution(live, ExecutionStatus.COMPLETED, draft, usage=output.usage)
            fields = {"final_response": output.text, "usage": output.usage, "output": output.output}
            self.memory.frame(live, sequence + 1, StreamDelta(StreamType.COMPLETED, fields), draft)
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
        live = self._running(number, start)
        if live is None:
            return NOTHING
        draft = self._draft(now)
        self.memory.journal.setdefault(number, {}).update(lasting or {})
        self._attempt_failed(live, error, sequence, draft)
        return self._finish(draft)

    def suspended(
        self, number: int, start: int, wait: Suspended, recorded: Mapping[str, Any], sequence: int, now: datetime
    ) -> Step:
        """An action waits without a worker; `recorded` is what it has journalled. Of another start, it is dropped."""
        live = self._running(number, start)
        if live is None:
            return NOTHING
        draft = self._draft(now)
        try:
            suspension.suspend(self.memory, live, wait, recorded, draft)
        except Conflict as error:
            self._attempt_failed(live, ActionFailed(error.message), sequence, draft)
        else:
            self._start_again(live, draft)
        return self._finish(draft)

    # What commands do; `command_rule` decides whether they may

    def fire_manually(
        self, transition: str, form: Mapping[str, Any], principal: str, draft: Draft
    ) -> dict[str, Any] | None:
        """Fire a manual transition with its first binding; None if it is not enabled."""
        memory = self.memory
        found = bindings(memory.net, memory.marking, transition, memory.case, draft.now, blocked=memory.blocked)
        binding = next(found, None)
        if binding is None:
            return None
        firing = self._fire(binding, draft, form=form, principal=principal)
        return {"transition": transition, "firing": firing}

    def signal(self, number: int, key: str | None, payload: Any, principal: Principal, draft: Draft) -> dict[str, Any]:
        """Give a signal to a firing: it goes on, or the signal is kept until it waits. Raises as `suspension` does."""
        live, delivered = suspension.signal(self.memory, number, key, payload, principal, draft)
        if delivered:
            self._start_again(live, draft)
        return {"firing": number, "key": key, "delivered": delivered}

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
        self._start_first(live, draft)
        return True

    def end(self, status: CaseStatus, reason: str, draft: Draft, principal: str | None = None) -> None:
        """The case ends: what still runs is cancelled, and what is open closed, in the same commit."""
        for live in list(self.memory.firings.values()):
            self._cancel(live, draft)
        supersede(self.memory, draft)
        for number in list(self.memory.incidents):
            resolve(self.memory, number, "case_ended", draft)
        draft.record(CaseEnded(status.value, reason, principal))
        self.memory.row = replace(self.memory.row, status=status, finished_at=draft.now)

    # Firing

    def _quiesce(self, draft: Draft) -> bool:
        """Fire all that is enabled. Returns whether it stopped early, to go on after the commit."""
        memory = self.memory
        self._livelock.begin()
        for _ in range(MOST_IMMEDIATE):
            binding = memory.agenda.next(memory.marking, memory.case, draft.now, memory.blocked)
            if binding is None:
                return False
            immediate = not memory.net.transitions[binding.transition].acting
            if immediate and self._livelock.repeats(memory.marking, memory.fired):
                message = f"{binding.transition} only repeats a marking that this case had before: bound the loop"
                give_up(memory, binding, Livelock(message), draft)
                continue
            self._fire(binding, draft)
            if self._ended(draft):
                return False
        return True

    def _fire(
        self, binding: Binding, draft: Draft, *, form: Mapping[str, Any] | None = None, principal: str | None = None
    ) -> int | None:
        """Fire an immediate transition, or begin an acting one and return its firing."""
        memory = self.memory
        transition = memory.net.transitions[binding.transition]
        if transition.timing is not None:
            due = transition.timing.due(binding.consumed, binding.read, memory.case, draft.now)
            draft.rely(due or draft.now)
        try:
            if transition.acting:
                return self._begin(binding, draft, form, principal)
            outputs = {"form": form} if form is not None else {}
            drafts = produce(transition, binding, outputs, memory.case)
            effect = rule.fire(memory.net, memory.marking, binding, drafts, memory.numbers(), draft.now)
        except FiringError as error:
            fail_begin(memory, binding, error, draft)
            self._livelock.forget()
            return None
        memory.settle(transition.name, effect, draft)
        self._livelock.moved(binding.consumed, effect.made)
        draft.record(
            TransitionFired(
                transition.name, effect.consumed, effect.produced, read=binding.read_refs, principal=principal
            )
        )
        memory.count(transition.name)
        return None

    def _begin(self, binding: Binding, draft: Draft, form: Mapping[str, Any] | None, principal: str | None) -> int:
        """Reserve tokens and room, and freeze the request. The action starts when this is committed."""
        memory = self.memory
        transition = memory.net.transitions[binding.transition]
        inputs = inputs_of(memory, transition, binding)
        number = memory.row.next_firing
        rule.begin(memory.net, memory.marking, binding, number, draft.now)
        memory.row = replace(memory.row, next_firing=number + 1)
        memory.touch_held(binding, draft)
        request: dict[str, Any] = {
            "consumed": [] if transition.refresh else [[token.number, token.version] for token in binding.consumed],
            "read": [token_image(token) for token in binding.read],
            "inputs": inputs,
            "history_count": memory.firings_ended,
            "occurrence": memory.fired[transition.name],
        }
        if transition.refresh:
            request["refreshed"] = [token_image(token) for token in binding.consumed]
            request["due"] = memory.run_of(binding).due.isoformat()
        if form is not None:
            request["form"] = form
        who = performer(memory, transition.name)
        row = FiringRow(number, transition.name, FiringState.RUNNING, 1, 1, request, begun_at=draft.now)
        holds = memory.workflow.actions[transition.name].holds
        if holds:
            # It starts when somebody has granted it what it asks for; until then it has not had a start.
            request[HOLDS] = dict(holds)
            row = replace(row, state=FiringState.OFFERED, start=0)
            draft.ask_holds(number, holds)
            memory.waiting.add(number)
        execution = ExecutionRow(number, ExecutionStatus.RUNNING, who.descriptor, draft.now)
        live = memory.firings[number] = LiveFiring(row, execution, binding)
        draft.open_firing(row, execution)
        draft.record(
            FiringBegun(
                transition.name,
                number,
                memory.execution_id(number),
                () if transition.refresh else binding.consumed_refs,
                binding.consumed_refs if transition.refresh else binding.read_refs,
                principal,
            )
        )
        memory.agenda.changed(transition.name)
        if live.running:
            self._starts.append(Start(action_call(memory, live, who.config), None))
        return number

    def _complete(
        self, live: LiveFiring, outputs: Mapping[str, Any], draft: Draft, *, skipped: CircuitError | None = None
    ) -> None:
        """Consume and produce. Raises `FiringError`, and then nothing has changed."""
        memory = self.memory
        transition = memory.net.transitions[live.binding.transition]
        values = {**outputs, "form": live.row.request["form"]} if "form" in live.row.request else outputs
        drafts = produce(transition, live.binding, values, memory.case, mapped=skipped is None)
        number = live.row.number
        effect = rule.complete(memory.net, memory.marking, live.binding, drafts, memory.numbers(), draft.now, number)
        memory.settle(transition.name, effect, draft)
        error = skipped.as_dict() if skipped is not None else None
        draft.record(
            TransitionFired(
                transition.name,
                effect.consumed,
                effect.produced,
                read=live.binding.read_refs,
                firing=live.row.number,
                execution_id=memory.execution_id(live.row.number),
                skipped=error,
                superseded=effect.superseded or None,
            )
        )
        memory.leave(live, FiringState.COMPLETED, draft, error=error)
        memory.count(transition.name)
        if transition.then is not None and not effect.superseded:
            self._fire_next(transition.then, live.binding.consumed[0].number, draft)

    def _fire_next(self, transition: str, number: int, draft: Draft) -> None:
        """Fire what an agent names that is done with token `number`, if it is enabled with that token."""
        memory = self.memory
        found = bindings(memory.net, memory.marking, transition, memory.case, draft.now, blocked=memory.blocked)
        binding = next((one for one in found if number in one.numbers), None)
        if binding is not None:
            self._fire(binding, draft)

    def _attempt_failed(self, live: LiveFiring, error: CircuitError, sequence: int, draft: Draft) -> None:
        """An attempt failed: another one later, or the end of the firing."""
        if not try_again_later(self.memory, live, error, draft):
            self._failed_for_good(live, error, sequence, draft)

    def _failed_for_good(self, live: LiveFiring, error: CircuitError, sequence: int, draft: Draft) -> None:
        """No attempt is left: the token goes on without the output, or to `on_failure`, or an incident is raised."""
        memory = self.memory
        memory.end_execution(live, ExecutionStatus.FAILED, draft, error=error.as_dict())
        memory.frame(live, sequence + 1, StreamDelta(StreamType.FAILED, {"error": error.as_dict()}), draft)
        if memory.workflow.actions[live.row.transition].required:
            fail_firing(memory, live, error, draft)
            return
        try:
            self._complete(live, {}, draft, skipped=error)
        except FiringError as worse:
            fail_firing(memory, live, worse, draft)

    def _start_again(self, live: LiveFiring, draft: Draft) -> None:
        """Start what was lost with its process, what waited for a retry that is due now, and what has waited."""
        memory, row = self.memory, live.row
        principal: str | None = None
        if live.running:
            if row.number not in self._lost:
                return
            if row.crashes >= memory.workflow.actions[row.transition].retry.max_crashes:
                self._give_up_on(live, draft)
                return
            reason = "resumed"
        elif row.state is FiringState.SUSPENDED:
            if not suspension.over(memory, live, draft):
                return
            reason = "woken"
            principal = (suspension.how_it_ended(memory, live) or {})["principal"]
        elif row.start == 0:
            if row.number not in memory.waiting:
                self._start_first(live, draft)
            return
        elif row.retry_at is not None and row.retry_at > draft.now:
            return
        else:
            reason = "retry"
        start = row.start + 1
        memory.change(live, draft, state=FiringState.RUNNING, start=start, retry_at=None, wake_at=None, awaits=None)
        execution = memory.execution_id(row.number)
        draft.record(FiringResumed(row.transition, row.number, execution, start, reason, principal))
        self._starts.append(Start(self._call(live), reason, row.crashes >= QUARANTINE_CRASHES))

    def _start_first(self, live: LiveFiring, draft: Draft) -> None:
        """Start what waited for shared places and holds them now."""
        memory, row = self.memory, live.row
        memory.waiting.discard(row.number)
        memory.change(live, draft, state=FiringState.RUNNING, start=1)
        holds: Mapping[str, int] = row.request[HOLDS]
        draft.record(FiringGranted(row.transition, row.number, memory.execution_id(row.number), holds))
        self._starts.append(Start(self._call(live), None))

    def _give_up_on(self, live: LiveFiring, draft: Draft) -> None:
        """A firing whose process was lost too often ends here. Its stream gets a last start, to say so."""
        row = live.row
        error = Crashed(f"firing {row.number} lost its process {row.crashes} times and is not started again")
        self.memory.change(live, draft, start=row.start + 1)
        restarted = StreamDelta(StreamType.RESTARTED, {"reason": error.message})
        self.memory.frame(live, 1, restarted, draft)
        self._abandoned.append(self._call(live))
        self._failed_for_good(live, error, 1, draft)

    def _call(self, live: LiveFiring) -> ActionCall:
        return action_call(self.memory, live, performer(self.memory, live.row.transition).config)

    def _cancel(self, live: LiveFiring, draft: Draft) -> None:
        memory, row = self.memory, live.row
        self._abandoned.append(self._call(live))
        memory.give_back(live, draft)
        memory.end_execution(live, ExecutionStatus.CANCELLED, draft)
        memory.leave(live, FiringState.CANCELLED, draft)
        self._cancels.append(row.number)
        draft.record(FiringCancelled(row.transition, row.number, memory.execution_id(row.number)))

    def _running(self, number: int, start: int) -> LiveFiring | None:
        live = self.memory.firings.get(number)
        return live if live is not None and live.running and live.row.start == start else None

    # The end of a step

    def due_at(self, now: datetime) -> datetime | None:
        """When something of the case goes on by itself, if nothing happens before."""
        found = self.memory.due_at()
        if not self.memory.net.interrupting:
            return found
        return min(filter(None, (found, next_interruption(self.memory, now))), default=None)

    def _interrupt(self, draft: Draft) -> None:
        """Timers take tokens that firings hold: these are cancelled, and no late result of theirs counts."""
        for live, binding in due_interruptions(self.memory, draft.now):
            self._cancel(live, draft)
            self._fire(binding, draft)

    def _draft(self, now: datetime) -> Draft:
        return Draft(self.memory.key, self.memory.row, now, self.memory.workflow.outbox)

    def _finish(self, draft: Draft) -> Step:
        """Fire to quiescence, see where that leaves the case, and give it all as one step."""
        memory = self.memory
        again = False
        if memory.net.interrupting and not memory.row.status.terminal:
            self._interrupt(draft)
        if not memory.row.status.terminal and not self._ended(draft):
            again = self._quiesce(draft)
            supersede(memory, draft)
        busy = again or any(live.running for live in memory.firings.values())
        if not memory.row.status.terminal:
            status = CaseStatus.RUNNING if busy else status_at_rest(memory, draft.now)
            if status is not memory.row.status:
                memory.row = replace(memory.row, status=status)
        due_at = None if busy else self.due_at(draft.now)
        write = draft.write(memory.row, memory.marking, fired=self._counts(draft), release=not busy, due_at=due_at)
        if write is not None:
            memory.row = write.row
        starts = tuple([start for start in self._starts if start.call.firing in memory.firings])
        cancels = tuple(self._cancels)
        abandoned = tuple(self._abandoned)
        self._starts.clear()
        self._cancels.clear()
        self._abandoned.clear()
        return Step(write, starts, cancels, abandoned, again)

    def _counts(self, draft: Draft) -> Mapping[str, int] | None:
        """The counts of firings, where it is time to write them down: of a case that goes on, now and then."""
        memory = self.memory
        if memory.row.status.terminal or draft.seq - memory.fired_seq < COUNTED_EVENTS:
            return None
        memory.fired_seq = draft.seq
        return {name: times for name, times in memory.fired.items() if times}

    def _ended(self, draft: Draft) -> bool:
        """Whether the completion predicate holds, or a token lies where the case fails; if so, the case ends."""
        memory = self.memory
        net, marking = memory.net, memory.marking
        for name in net.failing:
            if marking.count(name):
                self.end(CaseStatus.FAILED, f"a token lies in {name}", draft)
                return True
        if is_complete(memory):
            self.end(CaseStatus.COMPLETED, "", draft)
            return True
        return False
