"""From a provider's first byte to a reader's: what Circuit adds before somebody sees that an agent answers.

A provider that speaks OpenAI's protocol and the readers are in this process, so that one clock tells both instants;
Circuit (`circuit serve`: the server and its worker in one process, over a Postgres) is another. The provider says
nothing before the reader is connected. `make bench-streams`
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from websockets.asyncio.client import connect

from benchmarks.results import Row, figure
from circuit.storage import embedded, schema

SAMPLES = 60
WARM = 10
WORKFLOW = """
workflow: first_byte
places: {{asked: {{initial: true}}, answered: {{terminal: true}}}}
agents:
  speaker: {{llm_provider: {{type: custom, model: any, base_url: "{url}", api_key: "${{BENCH_KEY}}"}}}}
transitions:
  speak: {{from_places: asked, to_place: answered, agent_execution: speaker}}
"""
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
_CHUNK = b'data: {"id":"1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Good"}}]}\n\n'
_END = (
    b'data: {"id":"1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n"
)


class Speaker:
    """The provider: answers each request when it is told to, and notes when its first byte went out."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.said_at = 0.0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0)
            await reader.readexactly(length)
            writer.write(_HEAD)
            await writer.drain()
            self.asked.set()
            await self.go.wait()
            self.said_at = time.perf_counter()
            writer.write(_CHUNK)
            await writer.drain()
            writer.write(_END)
            await writer.drain()
        writer.close()


async def _sample(client: httpx.AsyncClient, url: str, speaker: Speaker) -> float:
    """Seconds from the provider's first byte to the reader's, once."""
    speaker.asked.clear()
    speaker.go.clear()
    started = await client.post(
        f"{url}/graphql", json={"query": 'mutation { startCase(workflowId: "first_byte") { caseId } }'}
    )
    case = started.json()["data"]["startCase"]["caseId"]
    await speaker.asked.wait()  # so the execution has begun
    async with connect(f"ws{url.removeprefix('http')}/stream") as stream:
        await stream.send(json.dumps({"type": "subscribe", "id": "a", "execution": f"{case}.1"}))
        while json.loads(await stream.recv())["type"] != "subscribed":
            pass
        speaker.go.set()
        while json.loads(await stream.recv()).get("frame", {}).get("eventType") != "content_chunk":
            pass
        return time.perf_counter() - speaker.said_at


async def measure(samples: int = SAMPLES) -> Row:
    """The row, in milliseconds. It stands beside the load of the machine, which it depends on."""
    speaker = Speaker()
    provider = await asyncio.start_server(speaker.answer, "127.0.0.1", 0)
    port = provider.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="circuit-bench-", dir="/tmp") as directory:
        database = await asyncio.to_thread(embedded.start, Path(directory) / "home")
        try:
            await schema.upgrade(database.url)
            environment = {**os.environ, "CIRCUIT_DATABASE_URL": database.url, "BENCH_KEY": "none-is-needed"}
            server = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "circuit", "serve", "--port", "0"),
                stdout=asyncio.subprocess.PIPE,
                env=environment,
            )
            try:
                assert server.stdout is not None
                url = (await server.stdout.readline()).decode().split()[-1]
                async with httpx.AsyncClient(timeout=60) as client:
                    text = WORKFLOW.format(url=f"http://127.0.0.1:{port}/v1")
                    query = "mutation ($yaml: String!) { loadWorkflow(yaml: $yaml) { id } }"
                    loaded: Any = await client.post(
                        f"{url}/graphql", json={"query": query, "variables": {"yaml": text}}
                    )
                    if "errors" in loaded.json():
                        raise RuntimeError(loaded.text)
                    took = [await _sample(client, url, speaker) for _ in range(WARM + samples)][WARM:]
            finally:
                server.terminate()
                await server.wait()
        finally:
            await asyncio.to_thread(database.stop)
            provider.close()
    took.sort()
    details = {
        "p90_ms": round(took[int(len(took) * 0.9)] * 1000, 2),
        "least_ms": round(took[0] * 1000, 2),
        "load": round(os.getloadavg()[0], 1),
    }
    return figure("streams_first_byte", median(took) * 1000, "ms from the provider's to the reader's", **details)
