"""procrastinate: each step is a job that defers the next one; one async worker with many jobs at once (its docs:
concurrency, batch defers)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from exchange import LENGTH, PAYLOAD, Run, Task, main, one_by_one
from procrastinate import App, PsycopgConnector

CONNECTIONS = 20
AT_ONCE = 50


async def prepare(task: Task) -> Run:
    logging.disable(logging.WARNING)
    app = App(connector=PsycopgConnector(conninfo=task.url, min_size=CONNECTIONS, max_size=CONNECTIONS))
    done: asyncio.Queue[None] = asyncio.Queue()

    @app.task(name="step")
    async def step(data: dict[str, Any], index: int) -> None:
        if index < LENGTH:
            await step.defer_async(data={**data, "n": data["n"] + 1}, index=index + 1)
        else:
            done.put_nowait(None)

    async def one() -> None:
        await step.defer_async(data=PAYLOAD, index=1)
        await done.get()

    def work() -> asyncio.Task[None]:
        return asyncio.create_task(app.run_worker_async(concurrency=AT_ONCE, install_signal_handlers=False))

    await app.open_async()
    await app.schema_manager.apply_schema_async()
    worker = work()
    await one()
    if not task.alone:
        worker.cancel()
        await asyncio.wait([worker])
        await step.batch_defer_async(*[{"data": PAYLOAD, "index": 1} for _ in range(task.runs)])

    async def run() -> list[float]:
        if task.alone:
            return await one_by_one(one, task.runs)
        working = work()
        for _ in range(task.runs):
            await done.get()
        working.cancel()
        await asyncio.wait([working])
        return []

    return run


if __name__ == "__main__":
    main(prepare)
