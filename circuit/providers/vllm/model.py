"""A model that this process keeps loaded: started when it is asked for, and again when it has crashed.

While it loads, requests wait for it. A crash fails those that run, as retryable; the next start follows by itself after
a pause that grows with each crash. A start that fails is told to all who wait, and to those that come in the next
seconds, without another try.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from enum import StrEnum
from typing import Any

from circuit.errors import CircuitError, ProviderError, ProviderUnavailable
from circuit.providers.vllm.process import ModelProcess
from circuit.providers.vllm.spec import Load
from circuit.value import dataclass

logger = logging.getLogger(__name__)

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
STEADY_SECONDS = 300.0
"""A process that lived for so long had a start that counts as good: the next pause is the shortest again."""


class ModelState(StrEnum):
    COLD = "cold"
    LOADING = "loading"
    READY = "ready"
    ASLEEP = "asleep"
    PAUSING = "pausing"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ModelView:
    """A model as it stands. `detail` is what it said last while it loads, or why it failed."""

    id: str
    model: str
    state: ModelState
    detail: str = ""
    running: int = 0
    crashes: int = 0
    pid: int | None = None
    context: int | None = None
    version: str = ""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "model": self.model,
            "state": self.state.value,
            "detail": self.detail,
            "running": self.running,
            "crashes": self.crashes,
            "pid": self.pid,
            "context": self.context,
            "version": self.version,
            "load_seconds": round(self.seconds, 1),
        }


Start = Callable[[Load, float, Callable[[str], None]], Awaitable[ModelProcess]]
"""Starts a process: what it loads, how long that may take, and who hears what it says meanwhile."""


class HostedModel:
    """One load and its process, if it has one. Lives on one event loop. `start_seconds` and `sleep_after` are those of
    whoever asked first, until another one asks for more. Whoever has the lock `memory` may take memory of the device:
    `start` takes it as well."""

    def __init__(
        self,
        load: Load,
        start: Start,
        *,
        start_seconds: float,
        sleep_after: float | None,
        memory: asyncio.Lock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.load = load
        self.crashes = 0
        self.changed: Callable[[], None] = lambda: None
        self._start = start
        self._start_seconds = start_seconds
        self._sleep_after = sleep_after
        self._memory = memory
        self._sleep = sleep
        self._monotonic = monotonic
        self._state = ModelState.COLD
        self._detail = ""
        self._process: ModelProcess | None = None
        self._failure: ProviderError | None = None
        self._failed_at = 0.0
        self._failures = 0
        self._seconds = 0.0
        self._keeping: asyncio.Task[None] | None = None
        self._resting: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[ModelProcess] | None = None
        self._users = 0
        self._turn = asyncio.Lock()
        self._orders: set[asyncio.Task[None]] = set()

    def ask_for(self, start_seconds: float, sleep_after: float | None) -> None:
        """Another one wants this model: the longer limits count."""
        self._start_seconds = max(self._start_seconds, start_seconds)
        if self._sleep_after is not None:
            self._sleep_after = None if sleep_after is None else max(self._sleep_after, sleep_after)

    def view(self) -> ModelView:
        process = self._process
        about: Mapping[str, Any] = process.about if process is not None else {}
        return ModelView(
            self.load.id,
            self.load.model,
            self._state,
            self._detail,
            process.running if process is not None else 0,
            self.crashes,
            process.pid if process is not None else None,
            about.get("context"),
            str(about.get("version") or ""),
            self._seconds,
        )

    async def loaded(self) -> ModelProcess:
        """The process, when its model answers and is awake. Raises `ProviderError`."""
        while True:
            process = self._process
            if process is None or process.ended.is_set():
                process = await asyncio.shield(self._started())
            if self._state is not ModelState.ASLEEP:
                return process
            await self.wake()

    def begin(self) -> None:
        """Have the model loaded, without waiting for it. Raises `ProviderError` where that has just failed."""
        if self._process is None or self._process.ended.is_set():
            self._started()

    async def ask(self, kind: str, **order: Any) -> AsyncGenerator[list[tuple[str, Any]], None]:
        """`ModelProcess.ask`, of a model that is loaded and woken where it is not."""
        self._users += 1
        try:
            process = await self.loaded()
            async with aclosing(process.ask(kind, **order)) as answer:
                async for messages in answer:
                    yield messages
        finally:
            self._users -= 1
            self._rest_soon()

    async def call(self, kind: str, **order: Any) -> Any:
        """`ModelProcess.call`, of a model that is loaded and woken where it is not."""
        content: Any = None
        async with aclosing(self.ask(kind, **order)) as answer:
            async for messages in answer:
                content = messages[-1][1]
        return content

    async def counts(self) -> Mapping[str, float]:
        """What the engine counts; nothing where none runs or it does not say it in time."""
        process = self._process
        if process is None or process.ended.is_set():
            return {}
        try:
            async with asyncio.timeout(1.0):
                return await process.call("figures")
        except (CircuitError, TimeoutError):
            return {}

    async def sleep(self) -> None:
        """Give the memory of the device back and keep the process. Raises `ProviderError`, also where the model was
        not loaded with `enable_sleep_mode`."""
        await self._to_its_end(self._fall_asleep(await self.loaded()))

    async def wake(self) -> None:
        """Take the memory again."""
        await self._to_its_end(self._awaken())

    async def _to_its_end(self, order: Coroutine[Any, Any, None]) -> None:
        """What the engine was told it does, also where whoever asked for it is gone: the model stands as that ends."""
        going = asyncio.create_task(order)
        self._orders.add(going)
        going.add_done_callback(self._orders.discard)
        # Nobody may be waiting for it.
        going.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(going)

    async def _fall_asleep(self, process: ModelProcess, *, idle: bool = False) -> None:
        """`idle`: only where nobody asks anything."""
        async with self._turn:
            if self._state is not ModelState.READY or (idle and self._users):
                return
            # From here on a request wakes it first, which waits for this.
            self._become(ModelState.ASLEEP)
            try:
                await process.call("sleep")
            except BaseException:
                if self.view().state is ModelState.ASLEEP:
                    self._become(ModelState.READY)
                raise

    async def _awaken(self) -> None:
        async with self._turn:
            process = self._process
            if self._state is ModelState.ASLEEP and process is not None:
                async with self._memory:
                    await process.call("wake")
                self._become(ModelState.READY)

    async def unload(self) -> None:
        """End the process. The next request starts one again."""
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
        if self._resting is not None:
            self._resting.cancel()
        process, self._process = self._process, None
        if process is not None:
            await process.stop()
        self._failure = None
        self._failures = 0
        self._become(ModelState.COLD)

    def _started(self) -> asyncio.Future[ModelProcess]:
        """The process that is being started; it is begun with where it is not."""
        if self._keeping is None or self._keeping.done():
            if self._failure is not None and self._monotonic() - self._failed_at < self._pause(self._failures):
                raise self._failure
            self._expect()
            self._keeping = asyncio.create_task(self._keep(), name=f"circuit-model-{self.load.id}")
        assert self._ready is not None
        return self._ready

    def _expect(self) -> None:
        self._ready = asyncio.get_running_loop().create_future()
        # Nobody may be waiting for it.
        self._ready.add_done_callback(asyncio.Future.exception)

    async def _keep(self) -> None:
        """Start the process, wait for its end, and start it again, until it cannot be started."""
        while True:
            ready = self._ready
            assert ready is not None
            began = self._monotonic()
            self._become(ModelState.LOADING)
            try:
                process = await self._start(self.load, self._start_seconds, self._hear)
            except Exception as error:
                self._refused(error if isinstance(error, ProviderError) else ProviderError(f"{error!r}"))
                return
            except asyncio.CancelledError:
                self._gone()
                raise
            self._process, self._failure = process, None
            ready_at = self._monotonic()
            self._seconds = ready_at - began
            self._become(ModelState.READY)
            ready.set_result(process)
            self._rest_soon()
            await process.ended.wait()
            self._expect()
            self._process = None
            self.crashes += 1
            if self._monotonic() - ready_at >= STEADY_SECONDS:
                self._failures = 0
            self._failures += 1
            self._become(ModelState.PAUSING, process.tail[-1] if process.tail else "")
            try:
                await self._sleep(self._pause(self._failures))
            except asyncio.CancelledError:
                self._gone()
                raise

    def _refused(self, error: ProviderError) -> None:
        assert self._ready is not None
        self._failure, self._failed_at = error, self._monotonic()
        self._failures += 1
        self._become(ModelState.FAILED, error.message)
        logger.error("%s", error)
        self._ready.set_exception(error)

    def _gone(self) -> None:
        """The model is unloaded under those who wait for it."""
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(ProviderUnavailable(f"the model {self.load.model} was unloaded while it loaded"))

    def _hear(self, line: str) -> None:
        if self._state is ModelState.LOADING:
            self._detail = line[:500]

    def _become(self, state: ModelState, detail: str = "") -> None:
        self._state, self._detail = state, detail[:500]
        self.changed()

    def _rest_soon(self) -> None:
        """Begin to count the time without a request anew."""
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        if self._sleep_after is not None and self._users == 0 and self._state is ModelState.READY:
            self._resting = asyncio.create_task(self._rest(self._sleep_after))

    async def _rest(self, seconds: float) -> None:
        await self._sleep(seconds)
        with contextlib.suppress(CircuitError):
            await self._to_its_end(self._fall_asleep(await self.loaded(), idle=True))

    @staticmethod
    def _pause(failures: int) -> float:
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(max(failures - 1, 0), 30))
