"""Threads for functions that block. A thread cannot be ended from outside, so none is counted free before it is."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

from circuit.errors import ActionFailed

logger = logging.getLogger(__name__)

T = TypeVar("T")

_APART = 2
"""How much of what would hold up an event loop is worked on at once."""


async def apart(work: Callable[[], T]) -> T:
    """What `work` returns, or raises, while the event loop goes on. It must not be long: whoever is cancelled does not
    wait for its end, but others do."""
    return await asyncio.get_running_loop().run_in_executor(_apart(), work)


@cache
def _apart() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_APART, "circuit-apart")


class Threads:
    """Runs functions in at most `limit` threads at once; used on one event loop. They are daemons: a function that
    never returns does not keep the process from ending."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free = asyncio.Semaphore(limit)
        self._left: dict[threading.Thread, str] = {}

    @property
    def left_behind(self) -> int:
        """How many functions still hold a thread though nobody waits for them any more."""
        return len(self._left)

    async def run(self, what: str, function: Callable[[], Any]) -> Any:
        """What `function` returns in a thread of its own, or raises. `what` names it in messages.

        If the caller is cancelled the function is left behind: it keeps its thread until it returns, and the log says
        so. Raises `ActionFailed` where such functions hold every thread.
        """
        if len(self._left) >= self._limit:
            names = ", ".join(sorted(set(self._left.values()))[:5])
            raise ActionFailed(
                f"{what} has no thread: all {self._limit} are held by functions that did not return when they were"
                f" cancelled ({names}); a long function should call ctx.heartbeat() often"
            )
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
        context = contextvars.copy_context()

        def work() -> None:
            try:
                outcome = context.run(function), None
            except BaseException as error:
                outcome = None, error
            try:
                loop.call_soon_threadsafe(self._returned, thread, done, outcome)
            except RuntimeError:
                logger.debug("%s returned after its event loop was closed", what)

        thread = threading.Thread(target=work, name=f"circuit-action-{what}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system gives no more threads
            self._free.release()
            raise
        try:
            value, error = await done
        except asyncio.CancelledError:
            if thread.is_alive():
                self._left[thread] = what
                logger.error(
                    "%s did not return when it was cancelled: it keeps its thread until it does (%d of %d are held so)",
                    what,
                    len(self._left),
                    self._limit,
                )
            raise
        if isinstance(error, KeyboardInterrupt):
            # No key reaches a thread: the function raised it, and must not end the process.
            raise ActionFailed(f"{what} raised KeyboardInterrupt")
        if error is not None:
            raise error
        return value

    def _returned(self, thread: threading.Thread, done: asyncio.Future[Any], outcome: Any) -> None:
        self._free.release()
        what = self._left.pop(thread, None)
        if what is not None:
            logger.warning("%s, which was left behind, has returned; what it did counts no more", what)
        if not done.done():
            done.set_result(outcome)
