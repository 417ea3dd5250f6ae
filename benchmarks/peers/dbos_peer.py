"""DBOS: workflows of durable steps, async, all started at once (docs.dbos.dev: programming guide; workflows; steps)."""

from __future__ import annotations

import asyncio
from typing import Any

from dbos import DBOS, DBOSConfig
from exchange import BRANCHES, LENGTH, PAYLOAD, Run, Task, main, one_by_one

CONNECTIONS = 20


@DBOS.step()
async def step(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "n": data["n"] + 1}


@DBOS.workflow()
async def chain(data: dict[str, Any]) -> dict[str, Any]:
    for _ in range(LENGTH):
        data = await step(data)
    return data


@DBOS.workflow()
async def fork(data: dict[str, Any]) -> dict[str, Any]:
    data = await step(data)
    found = await asyncio.gather(*[step(data) for _ in range(BRANCHES)])
    return await step(found[0])


async def prepare(task: Task) -> Run:
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": task.url,
        "sys_db_pool_size": CONNECTIONS,
        "run_admin_server": False,
        "log_level": "ERROR",
        "console_log_level": "ERROR",
    }
    DBOS(config=config)
    DBOS.launch()
    workflow = fork if task.scenario == "fork" else chain

    async def one() -> None:
        await (await DBOS.start_workflow_async(workflow, PAYLOAD)).get_result()

    await one()

    async def run() -> list[float]:
        if task.alone:
            return await one_by_one(one, task.runs)
        await asyncio.gather(*[one() for _ in range(task.runs)])
        return []

    return run


if __name__ == "__main__":
    main(prepare)
