"""The one interface between a firing and what it does.

The engine hands an `ActionCall` to the `Action` that is registered under its `kind`, outside any transaction. The
action talks back through its `ActionContext` and either returns an `ActionOutput` or raises one of Circuit's
errors; what becomes of the firing then is the owner's decision.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import field
from datetime import datetime
from typing import Any, Literal, Protocol, runtime_checkable
from uuid import UUID

from circuit.events import StreamDelta
from circuit.ids import CaseKey
from circuit.security.rules import Rule
from circuit.spend import UNLIMITED, Limits, Spend
from circuit.storage.records import NewCase
from circuit.value import dataclass

LONGEST_WAIT_SECONDS = 10 * 366 * 86_400.0
LONGEST_KEY = 200

_CHARGED = ("embedding", "ranking")
_LASTING = ("step:", "tool:", "screened:", *(f"{kind}:" for kind in _CHARGED))


def lasting_step(name: str) -> str:
    """The journal's name for the step `name` of an action, whose result outlives a retry."""
    return f"step:{name}"


def charged_step(kind: Literal["embedding", "ranking"], name: str) -> str:
    """The journal's name for what a model gave that an action asked under `name`; its result outlives a retry too."""
    return f"{kind}:{name}"


def lasting(step: str) -> bool:
    """Whether what the journal holds under `step` also counts in later attempts: what was done stays done, while an
    answer that came to nothing is asked for again."""
    return step.startswith(_LASTING)


@dataclass(frozen=True, slots=True)
class ActionCall:
    """One start of one attempt of a firing: everything that its action may know, frozen when the firing began.

    `attempt` counts tries after failures and keys the journal; `start` counts starts (every retry and every resume)
    and is the `attempt` of the stream. `recorded` is the journal of this attempt, and what lasts of earlier ones: step
    name to value; `budget` is what the case may spend on models by its version; `child` says that another case
    opened it; `traceparent` is the trace in which the case was started, where that is known; `redaction` are the rules
    of the workflow, and `screening` what it does about what is found in what its agents are told.
    """

    key: CaseKey
    firing: int
    attempt: int
    start: int
    execution_id: str
    workflow_id: str
    transition: str
    kind: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Any]
    tokens: tuple[Mapping[str, Any], ...]
    history_count: int
    timeout_seconds: float
    recorded: Mapping[str, Any] = field(default_factory=dict)
    budget: Limits = UNLIMITED
    child: bool = False
    traceparent: str | None = None
    redaction: tuple[Rule, ...] = ()
    screening: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a run adds to a conversation of an agent when its firing completes: messages as JSON (`role`, `parts`, and
    `covers` of a summary: the number of the last message that it stands for). `token` is the one that the conversation
    is about; None: the whole case."""

    conversation: UUID
    agent_id: str
    token: int | None
    messages: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class ActionOutput:
    """What an action gives back. `outputs` are the names that `output_mapping` maps from, `shown` are the text and the
    output as they are told, where that is not as they are."""

    outputs: Mapping[str, Any]
    text: str = ""
    output: Any = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    exchange: Exchange | None = None
    shown: tuple[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Woken:
    """How a wait ended: by a signal with its `payload`, sent by `principal`, or `timed_out`."""

    payload: Any = None
    principal: str | None = None
    timed_out: bool = False


class Suspended(BaseException):
    """An action raises it to wait without a worker: for a signal to its firing, or for `timeout_seconds` to pass.

    The firing is started again then, with its journal, and finds how the wait ended under the wait's `key`. `kind`
    says for people and programs what is awaited, `payload` (JSON) what they need to know of it; only who has one of
    the `roles` may send the signal, and its payload must fit the JSON Schema `form`. With `opens`, a case begins in the
    commit that suspends the firing, and its end is what is waited for: no signal counts then.

    It is no `Exception`, so that an action which catches those by mistake does not catch this.
    """

    def __init__(
        self,
        kind: str,
        key: str = "",
        payload: Any = None,
        timeout_seconds: float | None = None,
        *,
        roles: Sequence[str] = (),
        form: Mapping[str, Any] | None = None,
        opens: NewCase | None = None,
    ) -> None:
        super().__init__(kind, key)
        if timeout_seconds is not None and not 0 <= timeout_seconds <= LONGEST_WAIT_SECONDS:
            raise ValueError(f"a wait takes 0 to {LONGEST_WAIT_SECONDS:g} s, not {timeout_seconds:g}")
        self.kind = kind
        self.key = key
        self.payload = payload
        self.timeout_seconds = timeout_seconds
        self.roles = tuple(roles)
        self.form = form
        self.opens = opens


class ActionContext(Protocol):
    """What an action may do while it runs."""

    async def emit(self, delta: StreamDelta) -> None:
        """Send a stream event to the readers of this execution."""
        ...

    async def record(self, step: str, value: Any) -> Any:
        """Put `value` (JSON) into the journal under `step` and wait until it is committed.

        The first write wins: what comes back is what the journal holds.
        """
        ...

    def screened(self, step: str, decision: Any, event: Mapping[str, Any]) -> None:
        """Put into the history what screening found, once: `decision` (JSON) goes into the journal under `step` in the
        same commit, which comes before the one that ends this start. `event` are the fields of `InputScreened`."""
        ...

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
        """Wait without a worker, as `Suspended` says: raises it, and returns in the start that follows the wait.

        All that the action does before is done again in that start, unless it is recorded. Each wait of a firing has
        a `key` of its own; a wait that is over is answered at once, and `opens` is not called then.
        """
        ...

    async def hold(self, most: Spend) -> int | None:
        """Hold the most that a call of a model may cost, before it is made, of the budgets of the case, its workflow
        and its tenant: the number of the charge, or None where there is no budget.

        Waits while calls that go on hold what is left. Raises `BudgetExhausted`, and `BudgetUnbounded` where a budget
        counts what is not known of `most`.
        """
        ...

    def settle(self, charge: int, spent: Spend) -> None:
        """What the call did cost. It is settled once, in one commit with what is recorded next. A charge that is never
        settled stands at the most that the call could cost."""
        ...

    def now(self) -> datetime:
        """The present instant."""
        ...


@runtime_checkable
class Abandonable(Protocol):
    """An action whose work may go on elsewhere when nobody waits for it any more."""

    async def abandon(self, call: ActionCall) -> None:
        """The firing of `call` ended without its action (it was cancelled, or given up): end what runs of it."""
        ...


class Action(Protocol):
    """Performs one kind of call. One that is also `Abandonable` is told of firings that ended without it."""

    async def perform(self, call: ActionCall, context: ActionContext) -> ActionOutput:
        """Do the work. Raises `Suspended`, `FiringError` or `ProviderError`; else it counts as `action_failed`."""
        ...
