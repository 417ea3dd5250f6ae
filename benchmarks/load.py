"""`python -m benchmarks.load` (or `make bench-load`): how much one worker process holds.

`running`: the memory of so many executions that run and wait for an answer. `agents`: so many agents at once, each
reading a stream of ten chunks a second over loopback HTTP, every chunk stored: CPU a chunk of the worker and of
Postgres, and how much longer than the streams themselves it all took.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

import psutil
from rich.console import Console

from benchmarks import results
from benchmarks.gauge import Gauge
from benchmarks.postgres import postgres
from benchmarks.results import Row, figure
from circuit.actions.agent import AgentAction
from circuit.app import SystemClock, SystemIds
from circuit.definition import load_workflow
from circuit.engine.action import Action, ActionCall, ActionContext, ActionOutput
from circuit.engine.commands import TokenInput
from circuit.engine.engine import Engine
from circuit.engine.worker import WorkerLimits
from circuit.providers.registry import ProviderRegistry
from circuit.security.principal import LOCAL
from circuit.storage import schema
from circuit.storage.database import Database

CASES = 100
CHUNKS_A_SECOND = 10
MORE_TOKENS = """
INSERT INTO circuit.token (tenant_id, case_id, number, version, place, data, metadata, entered_at)
SELECT tenant_id, case_id, more, 1, place, data, metadata, entered_at
FROM circuit.token, generate_series(2, $1::int) more
"""
NET = """
workflow: load
places: {{begin: {{initial: true}}, end: {{terminal: true}}}}
agents:
  writer: {{llm_provider: {{type: custom, base_url: "{url}", model: loopback}}}}
transitions:
  write: {{from_places: begin, to_place: end, agent_execution: {{agent_id: writer}}}}
"""

console = Console(width=130)


class Waiting:
    """An action that waits until it is let go, and says so when so many wait."""

    def __init__(self, many: int) -> None:
        self.many = many
        self.all = asyncio.Event()
        self.go = asyncio.Event()

    async def perform(self, call: ActionCall, context: ActionContext) -> ActionOutput:
        self.many -= 1
        if not self.many:
            self.all.set()
        await self.go.wait()
        return ActionOutput({})


async def _engine(gauge: Gauge, action: Action, many: int, base_url: str) -> tuple[Engine, Database]:
    """An engine over a fresh database with `CASES` cases, which begin `many` executions in all when it is started."""
    url = await gauge.fresh("load")
    await schema.upgrade(url)
    database = await Database.open(url)
    clock = SystemClock()
    limits = WorkerLimits(executions=many)
    engine = Engine(database, actions={"agent": action}, clock=clock, ids=SystemIds(clock), limits=limits)
    net = load_workflow(NET.format(url=base_url), "load.yaml")
    await engine.commands.publish(net, LOCAL)
    for _ in range(CASES):
        await engine.commands.start_case(net.id, TokenInput({"text": "x" * 150}, {}), principal=LOCAL)
    connection = await database.raw()
    await connection.execute(MORE_TOKENS, many // CASES)
    await connection.execute(f"UPDATE circuit.case SET next_token = {many // CASES + 1}")
    await connection.close()
    return engine, database


async def running(gauge: Gauge, many: int) -> list[Row]:
    """The memory of `many` executions that wait."""
    action = Waiting(many)
    engine, database = await _engine(gauge, action, many, "http://127.0.0.1:1/v1")
    before = psutil.Process().memory_info().rss
    await engine.start()
    await action.all.wait()
    used = psutil.Process().memory_info().rss
    console.print(f"{many:,} running executions: {used / 1e6:,.0f} MB, {before / 1e6:,.0f} before")
    action.go.set()
    await engine.stop()
    await database.close()
    return [figure("running_executions_memory", used / 1e6, "MB", executions=many, before_mb=round(before / 1e6))]


async def agents(gauge: Gauge, many: int, seconds: int) -> list[Row]:
    """`many` agents that each read ten chunks a second for so many seconds."""
    program = [sys.executable, "-m", "benchmarks.load", "--serve", str(seconds)]
    server = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE)
    assert server.stdout is not None
    port = int(await server.stdout.readline())
    registry = ProviderRegistry({})
    engine, database = await _engine(gauge, AgentAction(registry), many, f"http://127.0.0.1:{port}/v1")
    connection = await database.raw()
    try:
        began, client, postgres = time.perf_counter(), time.process_time(), gauge.cpu()
        await engine.start()
        while await connection.fetchval("SELECT count(*) FROM circuit.case WHERE status = 'completed'") < CASES:
            await asyncio.sleep(0.2)
        took, client, postgres = time.perf_counter() - began, time.process_time() - client, gauge.cpu() - postgres
        chunks = many * seconds * CHUNKS_A_SECOND
        stored = await connection.fetchval("SELECT count(*) FROM circuit.stream_event WHERE type = 'content_chunk'")
    finally:
        await engine.stop()
        await connection.close()
        await database.close()
        await registry.aclose()
        server.kill()
        await server.wait()
    told = {"agents": many, "chunks": chunks, "frames_stored": stored, "seconds": round(took, 1), "streams": seconds}
    told["postgres_us"] = round(postgres / chunks * 1e6, 1)
    spent = client / chunks * 1e6
    console.print(f"{many:,} agents: {spent:,.0f} + {told['postgres_us']:,.0f} µs of CPU a chunk; {told}")
    return [figure("agents_streaming", spent, "µs of the worker's CPU a chunk", **told)]


async def serve(seconds: int) -> None:
    """A server that answers each request with a stream of chunks as OpenAI's does."""
    delta = {"choices": [{"index": 0, "delta": {"content": "some words of an answer "}}]}
    chunk = b"data: " + json.dumps(delta).encode() + b"\n\n"
    last = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        await reader.readexactly(length)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        for _ in range(seconds * CHUNKS_A_SECOND):
            writer.write(chunk)
            await asyncio.sleep(1 / CHUNKS_A_SECOND)
        writer.write(last)
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=2_000)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await listening.serve_forever()


async def _measure(url: str, options: argparse.Namespace) -> list[Row]:
    gauge = await Gauge.open(url)
    try:
        rows = await running(gauge, options.executions)
        return rows + await agents(gauge, options.agents, options.seconds)
    finally:
        await gauge.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.load", description=__doc__)
    parser.add_argument("--executions", type=int, default=10_000, help="executions that run (default 10,000)")
    parser.add_argument("--agents", type=int, default=1_000, help="agents at once (default 1,000)")
    parser.add_argument("--seconds", type=int, default=20, help="how long each agent's stream lasts (default 20)")
    parser.add_argument("--output", type=Path, default=results.LATEST, help="where the results go")
    parser.add_argument("--serve", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve))
        return
    with postgres() as (url, _):
        rows = asyncio.run(_measure(url, options))
    results.write(rows, options.output)
    console.print(f"written to {options.output}")


if __name__ == "__main__":
    main()
