"""The raw writer of `raw_writer.py` as a contestant."""

from __future__ import annotations

from exchange import LENGTH, Run, Task, main
from raw_writer import RawWriter

from circuit.storage import schema


async def prepare(task: Task) -> Run:
    await schema.upgrade(task.url)
    writer = await RawWriter.open(task.url, live=task.runs)

    async def run() -> list[float]:
        await writer.fire(LENGTH)
        return []

    return run


if __name__ == "__main__":
    main(prepare)
