"""Restate: its server (one node, its own log on disk) and a Python service of durable `ctx.run` steps over HTTP/2,
called through the ingress (docs.restate.dev: Python SDK; durable steps; concurrent tasks; serving)."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
import hypercorn.asyncio
import restate
from exchange import BRANCHES, LENGTH, PAYLOAD, Run, Task, main, one_by_one
from hypercorn.config import Config

AT_ONCE = 100
service = restate.Service("bench")


async def step(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "n": data["n"] + 1}


@service.handler()
async def chain(ctx: restate.Context, data: dict[str, Any]) -> dict[str, Any]:
    for _ in range(LENGTH):
        data = await ctx.run_typed("step", step, data=data)
    return data


@service.handler()
async def fork(ctx: restate.Context, data: dict[str, Any]) -> dict[str, Any]:
    data = await ctx.run_typed("step", step, data=data)
    found = await restate.gather(*[ctx.run_typed("step", step, data=data) for _ in range(BRANCHES)])
    return await ctx.run_typed("step", step, data=await found[0])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_server(home: Path, ingress: int, admin: int) -> subprocess.Popen[bytes]:
    # The program itself, not the script that npm puts before it: its CPU is looked at, and it must end when told to.
    program = next((Path(sys.prefix) / "node").glob("node_modules/@restatedev/restate-server-*/bin/restate-server"))
    addresses = {"RESTATE_INGRESS__BIND_ADDRESS": ingress, "RESTATE_ADMIN__BIND_ADDRESS": admin}
    addresses["RESTATE_BIND_ADDRESS"] = free_port()
    environment = {**os.environ, **{name: f"127.0.0.1:{port}" for name, port in addresses.items()}}
    environment |= {"RESTATE_BASE_DIR": str(home), "RESTATE_LOG_FILTER": "error", "DO_NOT_TRACK": "1"}
    return subprocess.Popen([str(program)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


async def until_ready(client: httpx.AsyncClient, url: str) -> None:
    for _ in range(300):
        try:
            if (await client.get(url)).is_success:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)
    raise RuntimeError(f"{url} does not answer")


async def prepare(task: Task) -> Run:
    ingress, admin, port = free_port(), free_port(), free_port()
    home = Path(tempfile.mkdtemp(prefix="bench-restate-"))
    server = start_server(home, ingress, admin)
    task.server = server.pid
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.loglevel = "ERROR"
    serving = asyncio.create_task(
        hypercorn.asyncio.serve(restate.app([service]), config, shutdown_trigger=asyncio.Event().wait)
    )
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    client = httpx.AsyncClient(timeout=60, limits=limits)
    await until_ready(client, f"http://127.0.0.1:{admin}/health")
    registered = await client.post(f"http://127.0.0.1:{admin}/deployments", json={"uri": f"http://127.0.0.1:{port}"})
    registered.raise_for_status()
    handler = f"http://127.0.0.1:{ingress}/bench/{'fork' if task.scenario == 'fork' else 'chain'}"
    slots = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with slots:
            answer = await client.post(handler, json=PAYLOAD)
            answer.raise_for_status()

    await one()

    async def run() -> list[float]:
        if serving.done():
            raise RuntimeError("the service ended")
        if task.alone:
            return await one_by_one(one, task.runs)
        await asyncio.gather(*[one() for _ in range(task.runs)])
        return []

    task.cleanup = lambda: (server.kill(), server.wait(), shutil.rmtree(home, ignore_errors=True))
    return run


if __name__ == "__main__":
    main(prepare)
