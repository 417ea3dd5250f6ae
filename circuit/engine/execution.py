"""One start of one action: what it may do while it runs, how long, and what its end is called.

Nothing here decides what becomes of the firing. An execution ends in one `Ended`: with an output, with one of
Circuit's errors, or *interrupted*, when the database failed under it; then the firing is resumed, not retried.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from circuit.engine.action import LONGEST_KEY, Action, ActionCall, ActionOutput, Suspended, Woken, lasting
from circuit.engine.calls import rules_of_agents
from circuit.engine.firings import Start
from circuit.engine.payload import PAYLOAD_LIMIT, PayloadFault, PayloadOversize, storable
from circuit.engine.suspension import WAIT
from circuit.engine.treasury import Charging, Unlimited
from circuit.errors import ActionFailed, Cancelled, CircuitError, ExecutionTimeout, InvalidOutput, StorageError
from circuit.events import StreamDelta, StreamType
from circuit.ids import CaseKey
from circuit.net.colour import Colour
from circuit.observability.logs import about
from circuit.security.redaction import excerpt, redact
from circuit.security.redactor import Redaction, Redactor, lengthy
from circuit.spend import NOTHING, Spend
from circuit.storage.charges import Asked, Charge, Settled
from circuit.storage.records import ALL_ATTEMPTS, ChargeRow, JournalRow, LogWrite, NewCase
from circuit.streams.publisher import Outlet, Publisher
from circuit.threads import apart
from circuit.tracing import entered
from circuit.value import dataclass, replace

if TYPE_CHECKING:
    from circuit.engine.trace import CaseTrace

logger = logging.getLogger(__name__)

EXCHANGE_LIMIT = 4 * PAYLOAD_LIMIT
"""How many bytes of JSON one run may add to a conversation."""
QUIET_SECONDS = 1.0
"""How long a call waits for its budgets before its readers are told."""
LONGEST_MESSAGE = 500
"""How many characters of a foreign exception go into the rows; all of it goes to the log."""


FaultHook = Callable[[str], None]
"""Called at the named points at which the crash tests end the process."""


def no_fault(point: str) -> None:
    """The hook for crash tests, as it is everywhere else: it does nothing."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a start ended. Exactly one of `output`, `error`, `suspended` and `interrupted` is set; `sequence` is the last
    frame. A suspended one tells what it has `recorded`, for the start that follows the wait, and a failed one what of
    that counts in later attempts too."""

    key: CaseKey
    firing: int
    start: int
    sequence: int
    output: ActionOutput | None = None
    error: CircuitError | None = None
    suspended: Suspended | None = None
    recorded: Mapping[str, Any] = field(default_factory=dict[str, Any])
    interrupted: StorageError | None = None

    @property
    def outcome(self) -> str:
        """How it ended, in a word."""
        if self.output is not None:
            return "completed"
        if self.error is not None:
            return "failed"
        return "suspended" if self.suspended is not None else "interrupted"


@dataclass(frozen=True, slots=True)
class Screened:
    """What screening found in a start: the journal's `step` with the `decision`, and the fields of its `event`."""

    key: CaseKey
    firing: int
    start: int
    step: str
    decision: Any
    event: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every execution of a worker shares. `log` returns when its rows are committed; `trace`, where there is one,
    is told how each start goes; `screened` is told what screening found, for the history, and says when that has it."""

    actions: Mapping[str, Action]
    publisher: Publisher
    log: Callable[[LogWrite], Awaitable[None]]
    now: Callable[[], datetime]
    fault: FaultHook = no_fault
    charging: Charging = Unlimited()
    trace: CaseTrace | None = None
    redactor: Redactor = field(default_factory=Redactor)
    screened: Callable[[Screened], asyncio.Future[None] | None] = lambda _: None


class Cutoff:
    """By what the engine cuts an execution off: from then on nothing that it says or records counts, however long
    its action takes to end."""

    def __init__(self) -> None:
        self.cut = False
        self._outlet: Outlet | None = None

    def watch(self, outlet: Outlet) -> None:
        """The execution has begun to speak through `outlet`."""
        self._outlet = outlet
        if self.cut:
            outlet.abandon()

    def end(self) -> None:
        """Cut it off. Twice is fine."""
        self.cut = True
        if self._outlet is not None:
            self._outlet.abandon()


class Context:
    """The `ActionContext` of one start."""

    def __init__(self, call: ActionCall, outlet: Outlet, around: Surroundings, cutoff: Cutoff) -> None:
        self._call = call
        self._outlet = outlet
        self._around = around
        self._cutoff = cutoff
        self._journal = dict(call.recorded)
        self._lasting = {step: value for step, value in call.recorded.items() if lasting(step)}
        self._answering = False
        self._charges = 0
        # What each charge that is not settled yet did cost, as far as that is known.
        self._open: dict[int, Spend | None] = {}
        # Done when the history has all that screening found.
        self._found: asyncio.Future[None] | None = None

    async def emit(self, delta: StreamDelta) -> None:
        self._require_wanted()
        if not self._answering and delta.type is StreamType.CONTENT_CHUNK:
            self._answering = True
            self._around.fault("before_answer")
        await self._outlet.emit(delta)

    async def record(self, step: str, value: Any) -> Any:
        self._require_wanted()
        if step in self._journal:
            return self._journal[step]
        stored = _stored(value, f"the journal entry {step}")
        self._around.fault("after_answer")
        call = self._call
        attempt = call.attempt
        if lasting(step):
            # Noted before it is stored: the write goes on when the action is cancelled, and then it counts.
            attempt, self._lasting[step] = ALL_ATTEMPTS, stored
        journal = [JournalRow(call.firing, attempt, step, stored)]
        known = {number: spent for number, spent in self._open.items() if spent is not None}
        settled = [
            ChargeRow(call.firing, call.start, number, spent.calls, spent.tokens, spent.microdollars)
            for number, spent in known.items()
        ]
        if self._found is not None:
            # A run that has an answer decides nothing anew: what was found must not be lost between the two.
            await asyncio.shield(self._found)
        await self._around.log(LogWrite(call.key, journal, settled=settled))
        self._journal[step] = stored
        for number in known:
            self._open.pop(number, None)
        self._around.charging.settled(len(known))
        self._around.fault("after_journal")
        return stored

    def screened(self, step: str, decision: Any, event: Mapping[str, Any]) -> None:
        self._require_wanted()
        if step in self._journal:
            return
        call = self._call
        stored = self._journal[step] = self._lasting[step] = _stored(decision, f"the journal entry {step}")
        self._found = self._around.screened(Screened(call.key, call.firing, call.start, step, stored, event))

    async def suspend(
        self,
        kind: str,
        key: str = "",
        payload: Any = None,
        timeout_seconds: float | None = None,
        *,
        roles: Sequence[str] = (),
        form: Mapping[str, Any] | None = None,
        opens: Callable[[], Awaitable[NewCase]] | None = None,
    ) -> Woken:
        self._require_wanted()
        ended = self._journal.get(WAIT + key)
        if ended is None:
            opened = None if opens is None else await opens()
            raise Suspended(kind, key, payload, timeout_seconds, roles=roles, form=form, opens=opened)
        return Woken(ended["payload"], ended["principal"], ended.get("timed_out", False))

    async def hold(self, most: Spend) -> int | None:
        self._require_wanted()
        call = self._call
        self._charges += 1
        number = self._charges
        charge = Charge(call.key, call.firing, call.start, number)
        held = self._around.charging.hold(Asked(charge, call.workflow_id, most, call.budget, call.child))
        try:
            if not held.done() and not (await asyncio.wait([held], timeout=QUIET_SECONDS))[0]:
                await self.emit(StreamDelta.thinking("waiting until other calls leave enough of the budget"))
            granted = await held
            self._require_wanted()
        except BaseException:
            # It may have been granted at this very moment, and is not made.
            held.cancel()
            self._around.charging.settle(Settled(charge, NOTHING))
            raise
        if not granted:
            return None
        self._open[number] = None
        return number

    def settle(self, charge: int, spent: Spend) -> None:
        if charge in self._open:
            self._open[charge] = spent

    def close(self) -> None:
        """The execution is over: settle what is open."""
        call = self._call
        while self._open:
            number, spent = self._open.popitem()
            self._around.charging.settle(Settled(Charge(call.key, call.firing, call.start, number), spent))

    @property
    def recorded(self) -> Mapping[str, Any]:
        """What this attempt has journalled so far."""
        return self._journal

    def now(self) -> datetime:
        return self._around.now()

    @property
    def lasting(self) -> Mapping[str, Any]:
        """What the journal holds for later attempts too."""
        return self._lasting

    def _require_wanted(self) -> None:
        if self._cutoff.cut:
            raise Cancelled(f"execution {self._call.execution_id}, start {self._call.start}, was cancelled")


async def execute(start: Start, around: Surroundings, cutoff: Cutoff | None = None) -> Ended:
    """Perform one start to its end. Raises only `asyncio.CancelledError`, when the engine cancels it."""
    call, trace = start.call, around.trace
    rules = (*call.redaction, *rules_of_agents(call.config))
    with about(str(call.key), call.execution_id, rules):
        if trace is None:
            return await _execute(start, around, cutoff or Cutoff(), around.redactor.at("events", rules))
        span = trace.begun(start)
        with entered(span):
            ended = await _execute(start, around, cutoff or Cutoff(), around.redactor.at("events", rules))
            trace.ended(span, ended)
        return ended


async def _execute(start: Start, around: Surroundings, cutoff: Cutoff, redaction: Redaction) -> Ended:
    call = start.call
    outlet = around.publisher.open(call.key, call.firing, call.start, reason=start.reason, redaction=redaction)
    cutoff.watch(outlet)
    context = Context(call, outlet, around, cutoff)
    try:
        try:
            result = await _perform(call, context, around.actions)
        finally:
            context.close()
        if cutoff.cut:
            raise asyncio.CancelledError("the engine has cut this execution off; how it ends is told to nobody")
        if isinstance(result, StorageError):
            outlet.abandon()
            return Ended(call.key, call.firing, call.start, 0, interrupted=result)
        if redaction:
            result = await _shown(result, redaction)
        try:
            sequence = await outlet.close()
        except StorageError as error:
            outlet.abandon()
            return Ended(call.key, call.firing, call.start, 0, interrupted=error)
    except BaseException:
        outlet.abandon()
        raise
    if isinstance(result, CircuitError):
        return Ended(call.key, call.firing, call.start, sequence, error=result, recorded=context.lasting)
    if isinstance(result, Suspended):
        return Ended(call.key, call.firing, call.start, sequence, suspended=result, recorded=context.recorded)
    return Ended(call.key, call.firing, call.start, sequence, output=result)


async def _shown(
    result: ActionOutput | Suspended | CircuitError, redaction: Redaction
) -> ActionOutput | Suspended | CircuitError:
    """`result` as it is told."""
    if isinstance(result, CircuitError):
        return result.saying(redaction.text(result.message))
    if isinstance(result, Suspended):
        return result
    told = [result.text, result.output]
    text, output = await apart(partial(redaction.value, told)) if lengthy(told) else redaction.value(told)
    return replace(result, shown=(text, output))


async def _perform(
    call: ActionCall, context: Context, actions: Mapping[str, Action]
) -> ActionOutput | Suspended | CircuitError:
    """What the action returned, what it waits for, or the error that its end counts as."""
    action = actions.get(call.kind)
    if action is None:
        return ActionFailed(
            f"this worker has no action of the kind {call.kind!r}; it knows {', '.join(sorted(actions)) or 'none'}"
        )
    limit = asyncio.timeout(call.timeout_seconds)
    try:
        async with limit:
            try:
                output = await action.perform(call, context)
            except Suspended as wait:
                return _sane_wait(wait)
        return _sane(output)
    except CircuitError as error:
        return _late(call) if limit.expired() else error
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return ActionFailed(f"{call.transition}: the action was cancelled from within")
    except (Exception, SystemExit) as error:
        if isinstance(error, TimeoutError) and limit.expired():
            return _late(call)
        logger.error("execution %s: the action %s raised", call.execution_id, call.kind, exc_info=error)
        return ActionFailed(f"{call.transition}: {_told(error)}")


def _late(call: ActionCall) -> ExecutionTimeout:
    return ExecutionTimeout(f"{call.transition} took longer than {call.timeout_seconds:g} s")


def _told(error: BaseException) -> str:
    """A foreign exception in one line: what looks like a key is masked, for nobody knows what its author put in."""
    return excerpt(redact(f"{type(error).__name__}: {error}", ()), LONGEST_MESSAGE)


def _sane(output: ActionOutput) -> ActionOutput:
    """`output` as it reads back from the database; the owner thus works on what the next one would read.

    What stands in its outputs by names, as a whole and as text is not too large for being said so often."""
    if not isinstance(output, ActionOutput):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidOutput(f"the action returned {type(output).__name__}, not an ActionOutput")
    value = None if output.output is None else _stored(output.output, "the structured output")
    limit = PAYLOAD_LIMIT if value is None else 3 * PAYLOAD_LIMIT
    outputs, text, usage, model = _stored(
        [dict(output.outputs), output.text, dict(output.usage), output.model], "the output", limit
    )
    exchange = output.exchange
    if exchange is not None:
        said = _stored([dict(message) for message in exchange.messages], "what was said", EXCHANGE_LIMIT)
        exchange = replace(exchange, messages=said)
    return ActionOutput(outputs, text, value, usage, model, exchange)


def _sane_wait(wait: Suspended) -> Suspended:
    """`wait` as it reads back from the database."""
    if not (wait.kind and len(wait.key) <= LONGEST_KEY):
        raise ActionFailed(f"a wait has a kind, and a key of at most {LONGEST_KEY} characters")
    kind, key, payload, roles, form = _stored(
        [wait.kind, wait.key, wait.payload, list(wait.roles), wait.form], "what the action waits for"
    )
    if form is not None:
        try:
            Colour("form", form)
        except ValueError as error:
            raise ActionFailed(excerpt(f"the form of the wait: {error}", LONGEST_MESSAGE)) from None
    return Suspended(kind, key, payload, wait.timeout_seconds, roles=roles, form=form, opens=wait.opens)


def _stored(value: Any, what: str, limit: int = PAYLOAD_LIMIT) -> Any:
    try:
        return storable(value, limit)
    except PayloadFault as fault:
        raise InvalidOutput(excerpt(f"{what} cannot be stored: {fault}", LONGEST_MESSAGE)) from None
    except PayloadOversize as oversize:
        raise InvalidOutput(f"{what} is too large: {oversize}") from None
