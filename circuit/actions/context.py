"""What a function may do while it runs: `Context` in asynchronous ones, `BlockingContext` in the others."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from circuit.actions.result import as_json
from circuit.actions.retrieval import Model, Retrieval
from circuit.engine.action import LONGEST_KEY, ActionCall, ActionContext, Woken, lasting_step
from circuit.errors import ActionFailed, Cancelled
from circuit.events import StreamDelta
from circuit.ids import idempotency_key
from circuit.providers.retrieval import Ranked

LONGEST_STEP_NAME = 200

_Result = TypeVar("_Result")


class Context:
    """The context of one start of one call.

    `attempt` counts tries after failures. `idempotency_key` is the same for every resume and every retry of the same
    firing, and another one for every other: hand it to whatever must do a thing once.
    """

    def __init__(
        self,
        call: ActionCall,
        context: ActionContext,
        name: str,
        beat: Callable[[], None],
        retrieval: Retrieval | None = None,
    ) -> None:
        self.case_id = str(call.key)
        self.execution_id = call.execution_id
        self.workflow_id = call.workflow_id
        self.transition = call.transition
        self.attempt = call.attempt
        self.tokens: Sequence[Mapping[str, Any]] = call.tokens
        self.idempotency_key = idempotency_key(call.execution_id, name, call.inputs)
        self._name = name
        self._call = call
        self._context = context
        self._beat = beat
        self._retrieval = retrieval
        self._asked: set[str] = set()
        self._awaited: set[str] = set()
        self._over = False

    async def step(self, name: str, function: Callable[[], Awaitable[Any] | Any]) -> Any:
        """Do `function` once: its result (JSON) is kept under `name`, and a later start or attempt of this firing
        gets it from there instead of doing it again. Returns what is kept; of two results, the first.

        If the process dies between the deed and the record, the step is done again: give `idempotency_key` along.
        """
        found, kept = await self.recall(name)
        if found:
            return kept
        value = function()
        if inspect.isawaitable(value):
            value = await value
        return await self.keep(name, value)

    async def recall(self, name: str) -> tuple[bool, Any]:
        """Whether the result of the step `name` is kept, and the result."""
        self._begin(name)
        step = lasting_step(name)
        return step in self._call.recorded, self._call.recorded.get(step)

    async def keep(self, name: str, value: Any) -> Any:
        """Keep the result of the step `name`, and return what is kept."""
        self._go_on()
        kept = await self._context.record(lasting_step(name), as_json(f"the step {name} of {self._name}", value))
        self._go_on()
        return kept

    async def embed(
        self, name: str, model: Model, texts: Sequence[str], *, dimensions: int | None = None
    ) -> list[list[float]]:
        """One vector for each text, by a model that makes such (`openai:text-embedding-3-small`, or a mapping like
        `llm_provider` of a workflow). It is held in the budgets and charged as a call of an agent is, and what comes
        of it is kept under `name`, as the result of a step. Raises `ProviderError`, `BudgetExhausted`,
        `BudgetUnbounded`."""
        self._begin(name)
        vectors = await self._reaching().embed(name, model, texts, dimensions)
        self._go_on()
        return vectors

    async def rerank(
        self, name: str, model: Model, query: str, texts: Sequence[str], *, top: int | None = None
    ) -> list[Ranked]:
        """The texts by how well they answer `query` (`index`, `score`), the best first; charged and kept as vectors
        are. Raises as `embed` does."""
        self._begin(name)
        order = await self._reaching().rerank(name, model, query, texts, top)
        self._go_on()
        return order

    def _begin(self, name: str) -> None:
        self._go_on()
        if not 0 < len(name) <= LONGEST_STEP_NAME or not name.isprintable():
            raise ActionFailed(f"{self._name}: the name of a step has 1 to {LONGEST_STEP_NAME} printable characters")
        if name in self._asked:
            raise ActionFailed(
                f"{self._name}: the step {name!r} was asked for twice in one run; give each step a name of its own"
            )
        self._asked.add(name)

    def _reaching(self) -> Retrieval:
        if self._retrieval is None:
            raise ActionFailed(f"{self._name}: this process reaches no models for functions")
        return self._retrieval

    async def suspend(
        self,
        key: str,
        *,
        payload: Any = None,
        timeout_seconds: float | None = None,
        form: Mapping[str, Any] | None = None,
        roles: Sequence[str] = (),
        kind: str = "signal",
    ) -> Woken:
        """Wait without a worker, for days if it must be, until somebody sends the signal `key` to this firing (`circuit
        signal CASE FIRING --key KEY --data JSON`), or `timeout_seconds` have passed. A signal that came before is kept.

        Does not return in this start: the function is called again when the wait is over, and gets here what was sent
        (`payload`, `principal`, or `timed_out`). So what stands before the wait is done again, unless it is a step.
        `payload` and `kind` tell people and programs what is waited for; what is sent must fit the JSON Schema `form`,
        and its sender must have one of the `roles`.
        """
        self._go_on()
        if not 0 < len(key) <= LONGEST_KEY or not key.isprintable():
            raise ActionFailed(f"{self._name}: the key of a wait has 1 to {LONGEST_KEY} printable characters")
        if key in self._awaited:
            raise ActionFailed(f"{self._name}: {key!r} is waited for twice in one run; give each wait a key of its own")
        self._awaited.add(key)
        told = as_json(f"what {self._name} tells of its wait", payload)
        return await self._context.suspend(kind, key, told, timeout_seconds, roles=roles, form=form)

    async def emit(self, content: str) -> None:
        """Send text to the readers of this execution's stream."""
        self._go_on()
        await self._context.emit(StreamDelta.content(content))

    async def heartbeat(self, note: str | None = None) -> None:
        """Say that the work goes on, with a note for people. Raises `Cancelled` where it is not wanted any more."""
        self._go_on()
        if note:
            await self._context.emit(StreamDelta.thinking(note))

    def now(self) -> datetime:
        """The present instant, by the database's clock."""
        return self._context.now()

    def end(self) -> None:
        """Nothing more is taken from here: the call has ended, whatever of it still runs."""
        self._over = True

    def _go_on(self) -> None:
        if self._over:
            raise Cancelled(f"execution {self.execution_id} of {self._name} has ended: what it does counts no more")
        self._beat()


class BlockingContext:
    """The same for functions that run in a thread: each method waits until it is done."""

    def __init__(self, context: Context, loop: asyncio.AbstractEventLoop) -> None:
        self._context = context
        self._loop = loop
        self.case_id = context.case_id
        self.execution_id = context.execution_id
        self.workflow_id = context.workflow_id
        self.transition = context.transition
        self.attempt = context.attempt
        self.tokens = context.tokens
        self.idempotency_key = context.idempotency_key

    def step(self, name: str, function: Callable[[], Any]) -> Any:
        """Do `function` once, as `Context.step` does."""
        found, kept = self._wait(self._context.recall(name))
        return kept if found else self._wait(self._context.keep(name, function()))

    def embed(
        self, name: str, model: Model, texts: Sequence[str], *, dimensions: int | None = None
    ) -> list[list[float]]:
        """One vector for each text, as `Context.embed` gives them."""
        return self._wait(self._context.embed(name, model, texts, dimensions=dimensions))

    def rerank(
        self, name: str, model: Model, query: str, texts: Sequence[str], *, top: int | None = None
    ) -> list[Ranked]:
        """The texts by how well they answer `query`, as `Context.rerank` gives them."""
        return self._wait(self._context.rerank(name, model, query, texts, top=top))

    def suspend(
        self,
        key: str,
        *,
        payload: Any = None,
        timeout_seconds: float | None = None,
        form: Mapping[str, Any] | None = None,
        roles: Sequence[str] = (),
        kind: str = "signal",
    ) -> Woken:
        """Wait without a worker, as `Context.suspend` does: the thread ends, and the function is called again."""
        return self._wait(
            self._context.suspend(
                key, payload=payload, timeout_seconds=timeout_seconds, form=form, roles=roles, kind=kind
            )
        )

    def emit(self, content: str) -> None:
        """Send text to the readers of this execution's stream."""
        self._wait(self._context.emit(content))

    def heartbeat(self, note: str | None = None) -> None:
        """Say that the work goes on, with a note for people. Raises `Cancelled` where it is not wanted any more: a
        thread cannot be ended from outside, so a long function should ask often."""
        self._wait(self._context.heartbeat(note))

    def now(self) -> datetime:
        """The present instant, by the database's clock."""
        return self._context.now()

    def _wait(self, doing: Coroutine[Any, Any, _Result]) -> _Result:
        try:
            return asyncio.run_coroutine_threadsafe(doing, self._loop).result()
        except (concurrent.futures.CancelledError, RuntimeError) as error:
            doing.close()
            raise Cancelled(f"execution {self.execution_id} has ended: its worker has stopped") from error
