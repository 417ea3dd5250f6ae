"""Hears the pieces of an answer for a client, which may go away meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.types import Receive

from circuit.api.openai.answers import problem_of
from circuit.api.openai.progress import Failed, Piece
from circuit.api.problems import INTERNAL_CODE, INTERNAL_MESSAGE
from circuit.api.readers import RESTARTING
from circuit.errors import CircuitError, Restarting

logger = logging.getLogger(__name__)

_AHEAD = 64
"""Pieces that may wait for the client; then the stream is not read on."""


class Listener:
    """Use it as an async context manager. Errors come as `Failed` pieces."""

    def __init__(self, pieces: AsyncGenerator[Piece, None], receive: Receive) -> None:
        self.gone = False
        """Whether the client has gone away."""
        self._pieces = pieces
        self._receive = receive
        self._queue: asyncio.Queue[Piece | None] = asyncio.Queue(_AHEAD)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Listener:
        self._tasks = [asyncio.create_task(self._hear()), asyncio.create_task(self._watch())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def next(self, seconds: float) -> Piece | None:
        """The next piece; None where none came within `seconds`, or where the client has gone."""
        if self.gone:
            return None
        try:
            return await asyncio.wait_for(self._queue.get(), seconds)
        except TimeoutError:
            return None

    def stop(self) -> None:
        """The server stops: what comes next is that."""
        if not self.gone:
            self._only(Failed(problem_of(Restarting(RESTARTING))))

    async def _hear(self) -> None:
        try:
            async with aclosing(self._pieces) as pieces:
                async for piece in pieces:
                    await self._queue.put(piece)
        except CircuitError as error:
            await self._queue.put(Failed(problem_of(error)))
        except Exception:
            logger.exception("the answer to a chat client failed")
            await self._queue.put(Failed({"code": INTERNAL_CODE, "message": INTERNAL_MESSAGE, "retryable": False}))

    async def _watch(self) -> None:
        with contextlib.suppress(Exception):
            while (await self._receive())["type"] != "http.disconnect":
                pass
        self.gone = True
        self._only(None)

    def _only(self, piece: Piece | None) -> None:
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(piece)
