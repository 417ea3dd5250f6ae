"""What a large payload costs: cases of ten steps that carry a document of 100 KB, and of 500 bytes.

Each is measured with artefacts and without: nothing is put aside as long as a worker lives that takes every case, so a
row says that there is one. `python -m benchmarks.payloads`
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from circuit.actions.functions import action
from circuit.app import Circuit
from circuit.storage import embedded, schema, workers
from circuit.storage.database import connect
from circuit.storage.driver import Connection
from circuit.storage.workers import Incarnation

STEPS = 10
CASES = 40
WARM = 5
SIZES = (500, 100_000)
LASTING_SECONDS = 3_600.0


@action
def count_on(n: int) -> dict[str, int]:
    return {"n": n + 1}


def workflow() -> str:
    ends = {0: "initial: true", STEPS: "terminal: true"}
    places = "\n".join(f"  p{n}: {{{ends.get(n, '')}}}" for n in range(STEPS + 1))
    does = "action: {type: function, name: count_on, input_mapping: {n: data.n}, output_mapping: {data.n: n}}"
    steps = "\n".join(f"  t{n}: {{from_places: p{n}, to_place: p{n + 1}, {does}}}" for n in range(STEPS))
    return f"workflow: carry\nplaces:\n{places}\ntransitions:\n{steps}\n"


def document(rng: random.Random, size: int) -> str:
    """Words, which Postgres compresses as it compresses texts."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(3_000)]
    return " ".join(rng.choices(words, k=size // 3))[:size]


async def _measure(url: str, conn: Connection, size: int) -> tuple[float, float]:
    """KiB of WAL and milliseconds for one case."""
    rng = random.Random(size)
    documents = [document(rng, size) for _ in range(WARM + CASES)]
    async with Circuit.open(url, actions=[count_on]) as circuit:
        await circuit.load(workflow())

        async def run(texts: list[str]) -> None:
            started = [await circuit.start("carry", {"document": text, "n": 0}) for text in texts]
            for case in started:
                view = await circuit.wait(case)
                assert view.status == "completed" and view.tokens[0].data["n"] == STEPS

        await run(documents[:WARM])
        await conn.execute("CHECKPOINT")
        before = await conn.fetchval("SELECT pg_current_wal_insert_lsn()")
        since = time.perf_counter()
        await run(documents[WARM:])
        seconds = time.perf_counter() - since
        wal = await conn.fetchval("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1)", before)
    return float(wal) / CASES / 1024, seconds / CASES * 1000


async def measure(url: str) -> None:
    """Each size without artefacts and with them."""
    conn = await connect(url, patient=True)
    for size in SIZES:
        for artefacts in (False, True):
            heedless = Incarnation(uuid4(), "bench", "boot", 1, 0.0)
            if not artefacts:
                await workers.register(conn, heedless, LASTING_SECONDS)
            wal, milliseconds = await _measure(url, conn, size)
            await workers.retire(conn, heedless.id)
            how = "with" if artefacts else "without"
            print(
                f"{size:>7} bytes, {how:>7} artefacts: {wal:5.0f} KiB of WAL, {milliseconds:4.0f} ms a case", flush=True
            )
    await conn.close()


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="circuit-bench-", dir="/tmp") as folder:
        database = await asyncio.to_thread(embedded.start, Path(folder) / "home")
        try:
            await schema.upgrade(database.url)
            await measure(database.url)
        finally:
            await asyncio.to_thread(database.stop)


if __name__ == "__main__":
    asyncio.run(main())
