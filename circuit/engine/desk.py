"""The cases that a worker holds in memory, and the hot path: input, step, write, commit, next input.

No case has a task of its own. An input goes into its case's inbox; if no write of the case is in flight, its owner
works it out at once and the step goes to the writer. The writer's commit calls back: the actions of the step start,
its readers are told, and the next input has its turn. So a case is always at one place, and costs nothing while it
waits.

Whatever goes wrong with one case (a lost guard, a fault of ours) drops that case from memory and nothing else; the
worker reads it anew.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from uuid import UUID

from circuit.definition.workflow import Workflow
from circuit.engine.chronicle import chronicle
from circuit.engine.execution import Ended, FaultHook, Screened, no_fault
from circuit.engine.owner import NOTHING, Owner, Step
from circuit.engine.slots import Slots
from circuit.events import CaseEvent, Frame, TransitionFired
from circuit.ids import CaseKey
from circuit.security.redactor import Redactor
from circuit.storage.records import CaseState, CaseWrite, CommandRow, LogWrite
from circuit.value import replace

Input = Callable[[Owner, datetime], Step]


@dataclass(slots=True, eq=False)
class Held:
    """One case in memory. `writing` says that a step of it is in flight, `logging` counts what it appends to its log,
    `opening` that nothing of it was committed here yet, so that what it wants to run is not known. `delivered` are the
    commands that its owner was given, `unapplied` those of them that wait in the inbox."""

    key: CaseKey
    owner: Owner
    inbox: deque[tuple[Input, bool]] = field(default_factory=deque[tuple[Input, bool]])
    writing: bool = False
    logging: int = 0
    opening: bool = True
    dropped: bool = False
    delivered: set[UUID] = field(default_factory=set[UUID])
    unapplied: set[UUID] = field(default_factory=set[UUID])
    timer: asyncio.TimerHandle | None = None


@dataclass(frozen=True, slots=True)
class Reports:
    """Whom the desk tells: `lost` of a case that had to be dropped, `released` of one that was given up (and whether
    a command came too late to be applied), `landed` when nothing of a case that is not held is in flight any more,
    `announce` of terminal frames, `changed` of a case with new events (the number of the first, and the events),
    `resources` of a tenant's workflow whose shared places are asked for or given back, `mail` when a case waits for
    other messages or has answered one, `opened` when it is known of one more case what it wants to run, `kin` of the
    cases that a step opened and of those that it asked something, `written` (where there is somebody) of each step that
    is committed, with the traces of those whose commands it applied."""

    lost: Callable[[CaseKey, BaseException], None]
    released: Callable[[CaseKey, bool], None]
    landed: Callable[[CaseKey], None]
    announce: Callable[[CaseKey, int, Frame], None]
    changed: Callable[[CaseKey, int, Sequence[tuple[datetime, CaseEvent]]], None]
    resources: Callable[[int, str], None] = lambda tenant, workflow_id: None
    mail: Callable[[], None] = lambda: None
    opened: Callable[[], None] = lambda: None
    kin: Callable[[Collection[CaseKey], Collection[CaseKey]], None] = lambda opened, asked: None
    written: Callable[[CaseWrite, Sequence[str]], None] | None = None


class Desk:
    """Holds owners and hands them their inputs. Lives on one event loop; nothing here waits."""

    def __init__(
        self,
        write: Callable[[CaseWrite | LogWrite], asyncio.Future[None]],
        now: Callable[[], datetime],
        *,
        redactor: Redactor | None = None,
        fault: FaultHook = no_fault,
    ) -> None:
        self._write = write
        self._redactor = redactor or Redactor()
        self._now = now
        self._fault = fault
        self._held: dict[CaseKey, Held] = {}
        # How many writes are in flight in all, and of each case that is not held (any more).
        self._flying = 0
        self._opening = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._strays: Counter[CaseKey] = Counter()
        self.fired_immediate = 0
        self.fired_acting = 0
        """How many firings were committed: of transitions without an action, and with one."""
        # Both are given before the first case is held; they know the desk, and the desk knows them.
        self.reports: Reports
        self.slots: Slots

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: CaseKey) -> bool:
        return key in self._held

    @property
    def flying(self) -> int:
        """How many writes are in flight."""
        return self._flying

    @property
    def opening(self) -> int:
        """Of how many cases that are held it is not known yet what they want to run."""
        return self._opening

    def keys(self) -> Collection[CaseKey]:
        """The cases that are held."""
        return self._held.keys()

    # -- inputs -----------------------------------------------------------------------------------------------------

    def hold(self, workflow: Workflow, state: CaseState) -> None:
        """Take a case that was just read, and do all that can be done."""
        try:
            redaction = self._redactor.at("events", workflow.redaction)
            held = Held(state.key, Owner(workflow, state, self.slots.crowded, redaction))
        except Exception as error:
            self.reports.lost(state.key, error)
            return
        held.delivered.update(command.id for command in state.commands)
        self._held[state.key] = held
        self._opening += 1
        self._post(held, Owner.wake)

    def deliver(self, key: CaseKey, command: CommandRow) -> bool:
        """Hand a command to its case's owner. False if the case is not held (any more)."""
        held = self._held.get(key)
        if held is None:
            return False
        if command.id not in held.delivered:
            held.delivered.add(command.id)
            held.unapplied.add(command.id)
            self._post(held, partial(_command, held, command))
        return True

    def ended(self, ended: Ended) -> None:
        """An execution ended."""
        held = self._held.get(ended.key)
        if held is None:
            return
        if ended.interrupted is not None:
            self._fail(held, ended.interrupted)
        else:
            self._post(held, partial(_ended, ended), completing=ended.output is not None)

    def screened(self, found: Screened) -> asyncio.Future[None] | None:
        """Screening found something in what an execution is told. What comes back is done when that is committed; None
        where the case is not held (any more)."""
        held = self._held.get(found.key)
        if held is None:
            return None
        kept = asyncio.get_running_loop().create_future()
        self._post(held, partial(_screened, found))
        self._post(held, partial(_kept, kept))
        return kept

    def broken(self, key: CaseKey, error: BaseException) -> None:
        """Something of ours failed while it worked for this case."""
        held = self._held.get(key)
        if held is not None:
            self._fail(held, error)

    # -- leaving ----------------------------------------------------------------------------------------------------

    def drop(self, key: CaseKey) -> None:
        """Forget a case: its executions are cancelled, and what its writes in flight come to is not looked at."""
        held = self._held.pop(key, None)
        if held is None:
            return
        self._leave(held)
        self.slots.cancel(key)

    def clear(self) -> None:
        """Forget every case. What runs of them is for the slots to end."""
        while self._held:
            self._leave(self._held.popitem()[1])

    async def settled(self) -> None:
        """Wait until no write is in flight."""
        await self._quiet.wait()

    def busy(self, key: CaseKey) -> bool:
        """Whether a write of this case, which is not held, is in flight; until it has landed, reading the case anew
        is of no use."""
        return key in self._strays

    async def write(self, write: CaseWrite) -> None:
        """Commit a step of a case that is not held here."""
        await asyncio.shield(self._stray(write))
        self._tell(write.key, write)

    async def log(self, write: LogWrite) -> None:
        """Append to the journal or to a stream; returns when it is committed.

        The write goes on when the caller is cancelled, so that a case that is read anew after it finds all of it.
        """
        held = self._held.get(write.key)
        if held is None:
            await asyncio.shield(self._stray(write))
            return
        future = self._send(write)
        held.logging += 1
        future.add_done_callback(partial(self._logged, held))
        await asyncio.shield(future)

    # -- the hot path -----------------------------------------------------------------------------------------------

    def _post(self, held: Held, act: Input, *, completing: bool = False) -> None:
        held.inbox.append((act, completing))
        if not held.writing:
            self._advance(held)

    def _advance(self, held: Held) -> None:
        """Give the owner its inputs until one of them leads to a write."""
        while held.inbox and not held.writing and not held.dropped:
            act, completing = held.inbox.popleft()
            try:
                step = act(held.owner, self._now())
                if step.write is None:
                    self._go_on(held, step)
                else:
                    self._submit(held, step, step.write, completing)
            except Exception as error:
                self._fail(held, error)
                return

    def _submit(self, held: Held, step: Step, write: CaseWrite, completing: bool) -> None:
        if completing:
            self._fault("before_commit")
        future = self._send(write)
        held.writing = True
        future.add_done_callback(partial(self._written, held, step, write, completing))

    def _written(
        self, held: Held, step: Step, write: CaseWrite, completing: bool, future: asyncio.Future[None]
    ) -> None:
        held.writing = False
        self._landed(future)
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if held.dropped:
            self._stray_landed(held.key)
            return
        if error is not None:
            self._fail(held, error)
            return
        if completing:
            self._fault("after_commit")
        try:
            self._tell(held.key, write)
            if self.reports.written is not None:
                self.reports.written(write, step.callers)
            for firing in step.cancels:
                self.slots.cancel(held.key, firing)
            for call in step.abandoned:
                self.slots.end_elsewhere(call)
            if write.release:
                self._release(held)
                return
            self._go_on(held, step)
        except Exception as fault:
            self._fail(held, fault)
            return
        self._advance(held)

    def _go_on(self, held: Held, step: Step) -> None:
        """Start what a step waited for its commit with, and see when the case is to be woken."""
        for start in step.starts:
            self.slots.submit(replace(start, callers=step.callers) if step.callers else start)
        self._open(held)
        if step.again:
            held.inbox.append((Owner.wake, False))
        due_at = held.owner.due_at(self._now())
        if due_at is not None or held.timer is not None:
            self._set_timer(held, due_at)

    def _tell(self, key: CaseKey, write: CaseWrite) -> None:
        reports = self.reports
        for _, event in write.events:
            if type(event) is TransitionFired:
                if event.firing is None:
                    self.fired_immediate += 1
                else:
                    self.fired_acting += 1
        for row in write.frames:
            reports.announce(key, row.firing, row.frame)
        reports.changed(key, write.expected_seq + 1, write.events)
        chronicle(key, write.events)
        if write.holds is not None:
            reports.resources(key.tenant, write.row.workflow_id)
        if write.mail is not None:
            reports.mail()
        if write.opened or write.asked:
            reports.kin([new.key for new in write.opened], [CaseKey(key.tenant, one.case) for one in write.asked])

    def _release(self, held: Held) -> None:
        """The case was given up: nothing of it runs, and its executions need not be looked for."""
        del self._held[held.key]
        self._leave(held)
        self.reports.released(held.key, bool(held.unapplied))

    def _fail(self, held: Held, error: BaseException) -> None:
        if not held.dropped:
            self.drop(held.key)
            self.reports.lost(held.key, error)

    # -- writes in flight -------------------------------------------------------------------------------------------

    def _send(self, write: CaseWrite | LogWrite) -> asyncio.Future[None]:
        future = self._write(write)
        self._flying += 1
        self._quiet.clear()
        return future

    def _landed(self, future: asyncio.Future[None]) -> None:
        """A write has come to its end. Who waited for it may be gone: how it ended is nobody's concern then."""
        if not future.cancelled():
            future.exception()
        self._flying -= 1
        if not self._flying:
            self._quiet.set()

    def _logged(self, held: Held, future: asyncio.Future[None]) -> None:
        self._landed(future)
        held.logging -= 1
        if held.dropped:
            self._stray_landed(held.key)

    def _stray(self, write: CaseWrite | LogWrite) -> asyncio.Future[None]:
        """Send a write of a case that is not held."""
        future = self._send(write)
        self._strays[write.key] += 1
        future.add_done_callback(lambda done: (self._landed(done), self._stray_landed(write.key)))
        return future

    def _stray_landed(self, key: CaseKey) -> None:
        self._strays[key] -= 1
        if self._strays[key] <= 0:
            del self._strays[key]
            self.reports.landed(key)

    def _leave(self, held: Held) -> None:
        """The case is not held any more; what it has in flight is a stray from now on."""
        held.dropped = True
        self._open(held)
        held.inbox.clear()
        self._forget_timer(held)
        if held.writing or held.logging:
            self._strays[held.key] += held.writing + held.logging

    def _open(self, held: Held) -> None:
        if held.opening:
            held.opening = False
            self._opening -= 1
            self.reports.opened()

    # -- what is due while something else of the case runs ----------------------------------------------------------

    def _set_timer(self, held: Held, due_at: datetime | None) -> None:
        self._forget_timer(held)
        if due_at is not None:
            seconds = max(0.0, (due_at - self._now()).total_seconds())
            held.timer = asyncio.get_running_loop().call_later(seconds, self._due, held)

    def _due(self, held: Held) -> None:
        held.timer = None
        if not held.dropped:
            self._post(held, Owner.wake)

    def _forget_timer(self, held: Held) -> None:
        if held.timer is not None:
            held.timer.cancel()
            held.timer = None


def _command(held: Held, command: CommandRow, owner: Owner, now: datetime) -> Step:
    held.unapplied.discard(command.id)
    return owner.command(command, now)


def _screened(found: Screened, owner: Owner, now: datetime) -> Step:
    return owner.screened(found.firing, found.start, found.step, found.decision, found.event, now)


def _kept(kept: asyncio.Future[None], owner: Owner, now: datetime) -> Step:
    """An input comes to its turn when what was before it is committed."""
    if not kept.done():
        kept.set_result(None)
    return NOTHING


def _ended(ended: Ended, owner: Owner, now: datetime) -> Step:
    if ended.suspended is not None:
        return owner.suspended(ended.firing, ended.start, ended.suspended, ended.recorded, ended.sequence, now)
    if ended.output is not None:
        return owner.completed(ended.firing, ended.start, ended.output, ended.sequence, now)
    assert ended.error is not None
    return owner.failed(ended.firing, ended.start, ended.error, ended.sequence, now, ended.recorded)
