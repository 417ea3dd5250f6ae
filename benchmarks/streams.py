"""Deliveries per second of one stream to many readers, beside a raw ASGI application on the same server.

WebSocket, SSE and a plain GraphQL selection with 1, 100 and 1,000 readers; rounds are interleaved and the median
counts. The ratio is the raw side's CPU per delivery divided by Circuit's (GraphQL's reference is the raw WebSocket),
for the server is what saturates a core; deliveries per second by the clock stand beside it. At the end, how long the
first byte of an answer takes on its way (`first_byte`). `make bench-streams`
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import first_byte

RESULTS = Path(__file__).parent / "results" / "latest.json"
EVENTS = {1: 10_000, 100: 1_000, 1_000: 150}
MOST_APART = 16
"""Bytes: the end of the connection may come with the last event or after it."""
PROTOCOLS = ("websocket", "sse", "graphql")


@dataclass(frozen=True, slots=True)
class Fanned:
    """One run: deliveries per second of the clock, and per second of the server's CPU."""

    rate: float
    cpu_rate: float


async def run_once(mode: str, protocol: str, readers: int) -> Fanned:
    """Start a server and its readers, each in a process of its own, and let the stream run through."""
    events = EVENTS[readers]
    server = await _python("benchmarks.stream_server", mode, str(readers), str(events))
    try:
        assert server.stdout is not None
        port = (await server.stdout.readline()).decode().strip()
        clients = await _python("benchmarks.stream_readers", port, str(readers), protocol)
        assert clients.stdout is not None
        took = json.loads(await server.stdout.readline())
        amounts = json.loads(await clients.stdout.readline())
        await clients.wait()
        if protocol != "graphql" and amounts[-1] - amounts[0] > MOST_APART:
            raise RuntimeError(f"readers of one stream got different amounts: {amounts}")
    finally:
        server.kill()
        await server.wait()
    deliveries = readers * (events + 1)
    return Fanned(deliveries / took["seconds"], deliveries / took["cpu_seconds"])


async def measure(rounds: int = 3) -> list[dict[str, Any]]:
    """The rows, one for each protocol and number of readers."""
    rows: list[dict[str, Any]] = []
    for readers in EVENTS:
        runs: dict[str, list[Fanned]] = {}
        for _ in range(rounds):
            for name, mode, protocol in (
                ("raw websocket", "raw", "websocket"),
                ("raw sse", "raw", "sse"),
                *((protocol, "circuit", protocol) for protocol in PROTOCOLS),
            ):
                runs.setdefault(name, []).append(await run_once(mode, protocol, readers))
        for protocol in PROTOCOLS:
            raw = "raw sse" if protocol == "sse" else "raw websocket"
            rows.append(_row(f"streams_{protocol}_{readers}_readers_vs_raw_asgi", runs[protocol], runs[raw]))
    return rows


def _row(name: str, ours: list[Fanned], raw: list[Fanned]) -> dict[str, Any]:
    value, reference = (median(run.cpu_rate for run in runs) for runs in (ours, raw))
    return {
        "name": name,
        "value": round(value, 1),
        "unit": "deliveries/CPU s of the server",
        "reference": round(reference, 1),
        "ratio": round(value / reference, 3),
        "rate": round(median(run.rate for run in ours), 1),
        "reference_rate": round(median(run.rate for run in raw), 1),
    }


async def _python(module: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, stdout=asyncio.subprocess.PIPE
    )


def main() -> None:
    """Measure, print the rows, and put them among the results of the other benchmarks."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    rows = asyncio.run(measure(rounds))
    for row in rows:
        print(f"{row['name']:48} {row['value']:>12,.0f} {row['reference']:>12,.0f} {row['ratio']:>7.3f}")
    first = asyncio.run(first_byte.measure())
    print(f"{first['name']:48} {first['value']:>12.2f} ms {first.get('details')}")
    rows.append(dict(first))
    measured = {row["name"] for row in rows}
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    kept = [row for row in before if row["name"] not in measured]
    RESULTS.write_text(json.dumps(kept + rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
