"""pgqueuer: each step is a job that enqueues the next one; one queue manager over an asyncpg pool on uvloop, with the
batches of its own benchmark (its docs: drivers, benchmark)."""

from __future__ import annotations

import asyncio
import json
import logging

import asyncpg
import uvloop
from exchange import LENGTH, PAYLOAD, Run, Task, main, one_by_one
from pgqueuer import PgQueuer
from pgqueuer.models import Job
from pgqueuer.queries import Queries

CONNECTIONS = 10
BATCH = 100


async def prepare(task: Task) -> Run:
    logging.disable(logging.WARNING)
    pool = await asyncpg.create_pool(task.url, min_size=CONNECTIONS, max_size=CONNECTIONS)
    done: asyncio.Queue[None] = asyncio.Queue()
    payload = json.dumps([1, PAYLOAD]).encode()
    queries = Queries.from_asyncpg_pool(pool)
    await queries.install()

    def work() -> asyncio.Task[None]:
        queuer = PgQueuer.from_asyncpg_pool(pool)

        @queuer.entrypoint("step")
        async def step(job: Job) -> None:
            index, data = json.loads(job.payload or b"")
            if index < LENGTH:
                await queries.enqueue("step", json.dumps([index + 1, {**data, "n": data["n"] + 1}]).encode())
            else:
                done.put_nowait(None)

        return asyncio.create_task(queuer.run(batch_size=BATCH))

    async def one() -> None:
        await queries.enqueue("step", payload)
        await done.get()

    if task.alone:
        work()
        await one()
    else:
        await queries.enqueue(["step"] * task.runs, [payload] * task.runs, [0] * task.runs)

    async def run() -> list[float]:
        if task.alone:
            return await one_by_one(one, task.runs)
        work()
        for _ in range(task.runs):
            await done.get()
        return []

    return run


if __name__ == "__main__":
    uvloop.install()
    main(prepare)
