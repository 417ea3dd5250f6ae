"""Deliveries per second of one stream to many readers, beside a raw ASGI application on the same server.

WebSocket, SSE and a plain GraphQL selection with 1, 100 and 1,000 readers. All servers of a number of readers are there
at the same time and take turns every fraction of a second, forwards and backwards, so that whatever else the machine
does falls on all of them; the ratio is that of the CPU per delivery within a round (GraphQL's reference is the raw
WebSocket), for the server is what saturates a core, and its median counts. Deliveries per second by the clock stand
beside it. Then, what many readers cost as such (`crowd`), and how long the first byte of an answer takes on its way
(`first_byte`). `make bench-streams`
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import AsyncExitStack
from statistics import median, quantiles

from benchmarks import crowd, first_byte, results
from benchmarks.audience import Audience, Turn
from benchmarks.results import Row

TURN = {1: 4_000, 100: 150, 1_000: 15}
"""Events that are said in one turn, by the number of readers: some tenths of a second."""
ROUNDS = 20
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


async def measure(readers: int, rounds: int) -> list[Row]:
    """The rows of a number of readers, one for each protocol."""
    async with AsyncExitStack() as stack:
        contestants = {
            name: await stack.enter_async_context(Audience(*contestant, readers))
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


def _row(name: str, deliveries: int, ours: list[Turn], raw: list[Turn]) -> Row:
    ratios = [theirs.cpu_seconds / own.cpu_seconds for own, theirs in zip(ours, raw, strict=True)]
    by_clock = [theirs.seconds / own.seconds for own, theirs in zip(ours, raw, strict=True)]
    low, _, high = quantiles(ratios, n=4)
    return {
        "name": name,
        "value": round(deliveries / median(turn.cpu_seconds for turn in ours), 1),
        "unit": "deliveries/CPU s of the server",
        "reference": round(deliveries / median(turn.cpu_seconds for turn in raw), 1),
        "ratio": round(median(ratios), 3),
        "details": {
            "ratio_quartiles": [round(low, 3), round(high, 3)],
            "ratio_by_clock": round(median(by_clock), 3),
            "rate": round(deliveries / median(turn.seconds for turn in ours), 1),
            "reference_rate": round(deliveries / median(turn.seconds for turn in raw), 1),
        },
    }


def main() -> None:
    """Measure, print the rows, and put them among the results of the other benchmarks."""
    parser = argparse.ArgumentParser(prog="benchmarks.streams", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--readers", type=int, choices=TURN, help="only so many, and nothing else")
    options = parser.parse_args()
    rows: list[Row] = []
    print(f"{'':48} {'ours':>10} {'raw':>10}  ratio")
    for readers in [options.readers] if options.readers else TURN:
        rows += _shown(asyncio.run(measure(readers, options.rounds)))
    if options.readers is None:
        rows += _shown(asyncio.run(crowd.measure()))
        rows += _shown([asyncio.run(first_byte.measure())])
    results.write(rows)


def _shown(rows: list[Row]) -> list[Row]:
    for row in rows:
        beside = "" if row["reference"] is None else f"{row['reference']:>10,.0f}  {row['ratio']:.3f}"
        print(f"{row['name']:48} {row['value']:>10,.2f} {beside:18} {row.get('details', '')}", flush=True)
    return rows


if __name__ == "__main__":
    main()
