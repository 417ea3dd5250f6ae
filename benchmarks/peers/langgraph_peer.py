"""LangGraph: a graph of nodes with the Postgres saver over a pool and `durability="sync"`, so that each step is stored
before the next begins (docs.langchain.com: persistence; durable execution; AsyncPostgresSaver)."""

from __future__ import annotations

import asyncio
import operator
from itertools import count
from typing import Annotated, Any, TypedDict

from exchange import BRANCHES, LENGTH, PAYLOAD, Run, Task, main, one_by_one
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

CONNECTIONS = 20
AT_ONCE = 50


class State(TypedDict):
    text: str
    n: Annotated[int, operator.add]


async def node(state: State) -> dict[str, Any]:
    return {"n": 1}


def graph(scenario: str) -> StateGraph:
    built = StateGraph(State)
    if scenario == "fork":
        branches = [f"branch{index}" for index in range(BRANCHES)]
        for name in ("split", *branches, "join"):
            built.add_node(name, node)
        built.add_edge(START, "split")
        for name in branches:
            built.add_edge("split", name)
        built.add_edge(branches, "join")
        built.add_edge("join", END)
        return built
    names = [f"step{index}" for index in range(LENGTH)]
    for name in names:
        built.add_node(name, node)
    for before, after in zip([START, *names], [*names, END], strict=True):
        built.add_edge(before, after)
    return built


async def prepare(task: Task) -> Run:
    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    pool = AsyncConnectionPool(task.url, min_size=CONNECTIONS, max_size=CONNECTIONS, kwargs=options, open=False)
    await pool.open(wait=True)
    saver = AsyncPostgresSaver(pool)
    await saver.setup()
    compiled = graph(task.scenario).compile(checkpointer=saver)
    slots, threads = asyncio.Semaphore(AT_ONCE), count()

    async def one() -> None:
        async with slots:
            thread = {"configurable": {"thread_id": f"run{next(threads)}"}}
            await compiled.ainvoke(PAYLOAD, thread, durability="sync")

    await one()

    async def run() -> list[float]:
        if task.alone:
            return await one_by_one(one, task.runs)
        await asyncio.gather(*[one() for _ in range(task.runs)])
        return []

    return run


if __name__ == "__main__":
    main(prepare)
