"""Deliveries per second of one stream to many readers, beside a raw ASGI application on the same server.

WebSocket, SSE and a plain GraphQL selection with 1, 100 and 1,000 readers. All servers of a number of readers are there
at the same time and take turns every fraction of a second, forwards and backwards, so that whatever else the machine
does falls on all of them; the ratio is that of the CPU per delivery within a round (GraphQL's reference is the raw
WebSocket), for the server is what saturates a core, and its median counts. Deliveries per second by the clock stand
beside it. At the end, how long the first byte of an answer takes on its way (`first_byte`). `make bench-streams`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks import first_byte

RESULTS = Path(__file__).parent / "results" / "latest.json"
TURN = {1: 4_000, 100: 150, 1_000: 15}
"""Events that are said in one turn, by the number of readers: some tenths of a second."""
ROUNDS = 20
REST_SECONDS = 0.03
"""Between two turns, in which readers take what lies in their sockets."""
MOST_APART = 16
"""Bytes between readers of a stream: the end of the connection may come with the last event or after it."""
MOST_APART_FROM_RAW = 2_000
"""Bytes between a stream and the raw one: the heads differ."""
CONTESTANTS = {
    "raw websocket": ("raw", "websocket"),
    "websocket": ("circuit", "websocket"),
    "graphql": ("circuit", "graphql"),
    "raw sse": ("raw", "sse"),
    "sse": ("circuit", "sse"),
}
REFERENCES = {"websocket": "raw websocket", "sse": "raw sse", "graphql": "raw websocket"}


@dataclass(frozen=True, slots=True)
class Turn:
    """What the deliveries of one turn took: seconds of the clock, and of the server's CPU."""

    seconds: float
    cpu_seconds: float


class Contestant:
    """A server and its readers, each in a process of its own. Use it as an async context manager."""

    def __init__(self, mode: str, protocol: str, readers: int) -> None:
        self._mode = mode
        self._protocol = protocol
        self._readers = readers
        self.turns: list[Turn] = []

    async def __aenter__(self) -> Contestant:
        self._server = await _python("benchmarks.stream_server", self._mode, str(self._readers))
        port = await _line(self._server)
        self._clients = await _python("benchmarks.stream_readers", port, str(self._readers), self._protocol)
        if await _line(self._server) != "ready":
            raise RuntimeError("the server does not speak")
        return self

    async def turn(self, events: int) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(b"%d\n" % events)
        self.turns.append(Turn(**json.loads(await _line(self._server))))
        await asyncio.sleep(REST_SECONDS)

    async def finish(self) -> int:
        """Let the stream end, and see that each reader has the same of it: how many bytes."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        amounts = json.loads(await _line(self._clients))
        if self._protocol != "graphql" and amounts[-1] - amounts[0] > MOST_APART:
            raise RuntimeError(f"readers of one stream got different amounts: {amounts}")
        return int(amounts[0])

    async def __aexit__(self, *_: object) -> None:
        for process in (self._clients, self._server):
            if process.returncode is None:
                process.kill()
            await process.wait()


async def measure(readers: int, rounds: int) -> list[dict[str, Any]]:
    """The rows of a number of readers, one for each protocol."""
    async with AsyncExitStack() as stack:
        contestants = {
            name: await stack.enter_async_context(Contestant(*contestant, readers))
            for name, contestant in CONTESTANTS.items()
        }
        order = list(contestants.values())
        for number in range(rounds + 1):
            for contestant in order if number % 2 else reversed(order):
                await contestant.turn(TURN[readers])
        amounts = {name: await contestant.finish() for name, contestant in contestants.items()}
    for name in ("websocket", "sse"):
        if abs(amounts[name] - amounts[f"raw {name}"]) > MOST_APART_FROM_RAW:
            raise RuntimeError(f"a stream is another than the raw one: {amounts}")
    # The first round warms up.
    turns = {name: contestant.turns[1:] for name, contestant in contestants.items()}
    return [
        _row(f"streams_{name}_{readers}_readers_vs_raw_asgi", TURN[readers] * readers, turns[name], turns[raw])
        for name, raw in REFERENCES.items()
    ]


def _row(name: str, deliveries: int, ours: list[Turn], raw: list[Turn]) -> dict[str, Any]:
    ratios = [theirs.cpu_seconds / own.cpu_seconds for own, theirs in zip(ours, raw, strict=True)]
    by_clock = [theirs.seconds / own.seconds for own, theirs in zip(ours, raw, strict=True)]
    low, _, high = quantiles(ratios, n=4)
    return {
        "name": name,
        "value": round(deliveries / median(turn.cpu_seconds for turn in ours), 1),
        "unit": "deliveries/CPU s of the server",
        "reference": round(deliveries / median(turn.cpu_seconds for turn in raw), 1),
        "ratio": round(median(ratios), 3),
        "ratio_quartiles": [round(low, 3), round(high, 3)],
        "ratio_by_clock": round(median(by_clock), 3),
        "rate": round(deliveries / median(turn.seconds for turn in ours), 1),
        "reference_rate": round(deliveries / median(turn.seconds for turn in raw), 1),
    }


async def _python(module: str, *arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-m", module, *arguments, stdin=PIPE, stdout=PIPE)


async def _line(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


def main() -> None:
    """Measure, print the rows, and put them among the results of the other benchmarks."""
    parser = argparse.ArgumentParser(prog="benchmarks.streams", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--readers", type=int, choices=TURN, help="only so many; then the first byte is left out")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print(f"{'':48} {'ours':>10} {'raw':>10}  ratio (quartiles)       by the clock")
    for readers in [options.readers] if options.readers else TURN:
        for row in asyncio.run(measure(readers, options.rounds)):
            low, high = row["ratio_quartiles"]
            print(
                f"{row['name']:48} {row['value']:>10,.0f} {row['reference']:>10,.0f}"
                f"  {row['ratio']:.3f} ({low:.3f} to {high:.3f})  {row['ratio_by_clock']:.3f}",
                flush=True,
            )
            rows.append(row)
    if options.readers is None:
        first = asyncio.run(first_byte.measure())
        print(f"{first['name']:48} {first['value']:>10.2f} ms {first.get('details')}")
        rows.append(dict(first))
    measured = {row["name"] for row in rows}
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    kept = [row for row in before if row["name"] not in measured]
    RESULTS.write_text(json.dumps(kept + rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
