"""The firings of one case: how they begin, start, end and fail, and how an immediate transition fires.

As the owner is: without IO. Actions to start and to stop wait for the end of the step, and for its commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from circuit.engine import suspension
from circuit.engine.action import ActionCall
from circuit.engine.calls import action_call, inputs_of, performer, token_image
from circuit.engine.draft import Draft
from circuit.engine.failure import fail_begin, fail_firing, note_budget, try_again_later
from circuit.engine.kinship import cancel_child
from circuit.engine.livelock import LivelockWatch
from circuit.engine.memory import HOLDS, LiveFiring, Memory
from circuit.errors import CircuitError, Crashed, FiringError
from circuit.events import (
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
from circuit.net.mapping import Draft as Output
from circuit.net.mapping import produce
from circuit.net.marking import Token
from circuit.net.selection import doomed
from circuit.net.structure import Transition
from circuit.storage.records import QUARANTINE_CRASHES, ExecutionRow, ExecutionStatus, FiringRow, FiringState
from circuit.value import dataclass, replace

SAID = ("form", "message")
"""Where the request of a firing keeps what the person or the message said that fired it."""
NOTHING_SAID: Mapping[str, Any] = {}


Crowded = Callable[[int, Mapping[str, Any]], str | None]
"""Of a tenant and the configuration of an action that is about to begin: the place at which its firing waits for its
turn, as for a shared place, or None."""


def nobody_waits(tenant: int, config: Mapping[str, Any]) -> str | None:
    """Where nothing is limited."""
    return None


@dataclass(frozen=True, slots=True)
class Start:
    """An action to start. `reason` says why it is not the first start of its firing, and is None if it is. `alone`:
    its process was lost with it before, so that nothing else runs in the process while it does. `callers` are the
    traces (as `traceparent`) of those whose commands led to it."""

    call: ActionCall
    reason: str | None
    alone: bool = False
    callers: tuple[str, ...] = ()


class Firings:
    """The firings of one case in memory. `livelock` watches its immediate ones."""

    def __init__(self, memory: Memory, crowded: Crowded = nobody_waits) -> None:
        self.memory = memory
        self._crowded = crowded
        self.livelock = LivelockWatch(memory.net)
        self._lost = {live.row.number for live in memory.firings.values() if live.running}
        self._starts: list[Start] = []
        self._cancels: list[int] = []
        self._abandoned: list[ActionCall] = []

    def take_up(self, draft: Draft) -> None:
        """The case was just read, or something is due: start again all that can be."""
        for number, live in list(self.memory.firings.items()):
            # One that ends here for good may cancel others.
            if number in self.memory.firings:
                self.start_again(live, draft)
        self._lost.clear()

    def outcome(self) -> tuple[tuple[Start, ...], tuple[int, ...], tuple[ActionCall, ...]]:
        """What the step leads to outside: actions to start, firings whose actions are to stop, and those that ended
        without their actions."""
        starts = tuple([start for start in self._starts if start.call.firing in self.memory.firings])
        found = (starts, tuple(self._cancels), tuple(self._abandoned))
        self._starts.clear()
        self._cancels.clear()
        self._abandoned.clear()
        return found

    def running(self, number: int, start: int) -> LiveFiring | None:
        """The firing, if its action runs in this start."""
        live = self.memory.firings.get(number)
        return live if live is not None and live.running and live.row.start == start else None

    def fire(
        self, binding: Binding, draft: Draft, *, said: Mapping[str, Any] = NOTHING_SAID, principal: str | None = None
    ) -> int | None:
        """Fire an immediate transition, or begin an acting one and return its firing. `said` is the `form` of who fires
        it, or the data of the `message` that does. Raises `FiringError` where that message does not fit; nothing has
        changed then."""
        memory = self.memory
        transition = memory.net.transitions[binding.transition]
        if transition.timing is not None:
            due = transition.timing.due(binding.consumed, binding.read, memory.case, draft.now)
            draft.rely(due or draft.now)
        try:
            if transition.acting:
                return self._begin(binding, draft, said, principal)
            drafts = produce(transition, binding, said, memory.case)
            removed = self._cleared(transition, binding, drafts, draft) if transition.clears else ()
            effect = rule.fire(memory.net, memory.marking, binding, drafts, memory.numbers(), draft.now, removed)
        except FiringError as error:
            if "message" in said:
                raise
            fail_begin(memory, binding, error, draft)
            self.livelock.forget()
            return None
        memory.settle(transition.name, effect, draft)
        self.livelock.moved((*binding.consumed, *removed), effect.made)
        draft.record(
            TransitionFired(
                transition.name,
                effect.consumed,
                effect.produced,
                read=binding.read_refs,
                principal=principal,
                removed=effect.removed,
            )
        )
        memory.count(transition.name)
        return None

    def run_now(self, binding: Binding, draft: Draft, principal: str) -> int | None:
        """Begin an agent of a place on its token, whatever its schedule says, and return its firing."""
        try:
            return self._begin(binding, draft, NOTHING_SAID, principal, asked=True)
        except FiringError as error:
            fail_begin(self.memory, binding, error, draft)
            return None

    def _begin(
        self, binding: Binding, draft: Draft, said: Mapping[str, Any], principal: str | None, *, asked: bool = False
    ) -> int:
        """Reserve tokens and room, and freeze the request. The action starts when this is committed."""
        memory = self.memory
        transition = memory.net.transitions[binding.transition]
        inputs = inputs_of(memory, transition, binding)
        number = memory.row.next_firing
        rule.begin(memory.net, memory.marking, binding, number, draft.now, asked=asked)
        memory.row = replace(memory.row, next_firing=number + 1)
        memory.touch_held(binding, draft)
        request: dict[str, Any] = {
            "consumed": [] if transition.refresh else [[token.number, token.version] for token in binding.consumed],
            "read": [token_image(token) for token in binding.read],
            "inputs": inputs,
            "history_count": memory.firings_ended,
            "occurrence": memory.fired[transition.label],
        }
        if transition.refresh:
            request["refreshed"] = [token_image(token) for token in binding.consumed]
            request["due"] = memory.run_of(binding).due.isoformat()
        request |= said
        who = performer(memory, transition.name)
        row = FiringRow(number, transition.name, FiringState.RUNNING, 1, 1, request, begun_at=draft.now)
        holds = memory.workflow.actions[transition.name].holds
        if not holds and (turn := self._crowded(memory.key.tenant, who.config)) is not None:
            holds = {turn: 1}
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

    def complete(
        self, live: LiveFiring, outputs: Mapping[str, Any], draft: Draft, *, skipped: CircuitError | None = None
    ) -> None:
        """Consume and produce. Raises `FiringError`, and then nothing has changed."""
        memory = self.memory
        transition = memory.net.transitions[live.binding.transition]
        values = {**outputs, **{name: live.row.request[name] for name in SAID if name in live.row.request}}
        drafts = produce(transition, live.binding, values, memory.case, mapped=skipped is None)
        number = live.row.number
        removed = self._cleared(transition, live.binding, drafts, draft, number) if transition.clears else ()
        numbers = memory.numbers()
        effect = rule.complete(memory.net, memory.marking, live.binding, drafts, numbers, draft.now, number, removed)
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
                removed=effect.removed,
            )
        )
        memory.leave(live, FiringState.COMPLETED, draft, error=error)
        memory.count(transition.name)
        if transition.then is not None and not effect.superseded:
            self._fire_next(transition.then, live.binding.consumed[0].number, draft)

    def _cleared(
        self,
        transition: Transition,
        binding: Binding,
        drafts: Sequence[Output],
        draft: Draft,
        number: int | None = None,
    ) -> list[Token]:
        """The tokens that `transition` takes without having bound them. The firings that hold some of them, or are of
        transitions that it cancels, are cancelled in this commit, so that no late result of theirs counts."""
        memory = self.memory
        rule.check_drafts(memory.net, transition, binding, drafts)
        gone = {
            token.number for token in doomed(transition, memory.marking, binding.consumed, binding.read, memory.case)
        }
        for live in list(memory.firings.values()):
            if live.row.number == number:
                continue
            inside = live.row.transition in transition.cancels
            if not inside and not any(token.number in gone for token in live.binding.consumed):
                continue
            self.cancel(live, draft)
            if inside and not memory.net.transitions[live.row.transition].refresh:
                gone.update(token.number for token in live.binding.consumed)
        found = [memory.marking.get(one) for one in sorted(gone)]
        return [token for token in found if token is not None]

    def _fire_next(self, transition: str, number: int, draft: Draft) -> None:
        """Fire what an agent names that is done with token `number`, if it is enabled with that token."""
        memory = self.memory
        found = bindings(memory.net, memory.marking, transition, memory.case, draft.now, blocked=memory.blocked)
        binding = next((one for one in found if number in one.numbers), None)
        if binding is not None:
            self.fire(binding, draft)

    def attempt_failed(self, live: LiveFiring, error: CircuitError, sequence: int, draft: Draft) -> None:
        """An attempt failed: another one later, or the end of the firing."""
        error = self.memory.told(error)
        note_budget(self.memory, live, error, draft)
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
            self.complete(live, {}, draft, skipped=error)
        except FiringError as worse:
            fail_firing(memory, live, worse, draft)

    def start_again(self, live: LiveFiring, draft: Draft) -> None:
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
                self.start_first(live, draft)
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

    def start_first(self, live: LiveFiring, draft: Draft) -> None:
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

    def cancel(self, live: LiveFiring, draft: Draft) -> None:
        memory, row = self.memory, live.row
        self._abandoned.append(self._call(live))
        cancel_child(memory, live, "the firing that opened it was cancelled", draft)
        memory.give_back(live, draft)
        memory.end_execution(live, ExecutionStatus.CANCELLED, draft)
        memory.leave(live, FiringState.CANCELLED, draft)
        self._cancels.append(row.number)
        draft.record(FiringCancelled(row.transition, row.number, memory.execution_id(row.number)))
