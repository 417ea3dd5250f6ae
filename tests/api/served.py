"""A server in this process, on a loopback port that was free."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

from offices import Office
from stage import Stage

from circuit.api.application import create_application
from circuit.api.server import serve
from circuit.engine.rates import RequestRate
from circuit.engine.reach import Reach

Serving = Callable[..., AbstractAsyncContextManager["Served"]]


class Served:
    """A server that runs. `stop` ends it as a signal would."""

    def __init__(self, url: str, application: Any, task: asyncio.Task[None], office: Office) -> None:
        self.url = url
        self.websocket_url = "ws" + url.removeprefix("http")
        self.port = int(url.rpartition(":")[2])
        self.application = application
        self.readers = application.state.readers
        self.office = office
        self._task = task

    async def stop(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


@asynccontextmanager
async def served(stage: Stage, **options: Any) -> AsyncIterator[Served]:
    ready = options.pop("ready", None)
    office = Office(stage, ready, options.pop("gate", None))
    reach = Reach(stage.database, stage.clock.monotonic)
    rates = {
        part: RequestRate(reach, rate, stage.clock.monotonic, part) for part, rate in options.pop("rates", {}).items()
    }
    application = create_application(office.services, rates=rates, **options)
    loop = asyncio.get_running_loop()
    url: asyncio.Future[str] = loop.create_future()
    task = asyncio.create_task(serve(application, port=0, ready=url.set_result))
    done, _ = await asyncio.wait([task, url], return_when=asyncio.FIRST_COMPLETED)
    if task in done:
        task.result()
    server = Served(url.result(), application, task, office)
    try:
        yield server
    finally:
        await server.stop()
