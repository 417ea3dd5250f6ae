"""A process that writes a stream: says the execution's name, waits for a line, and speaks."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "streams"), str(Path(__file__).resolve().parents[2])]

from stage import Stage  # noqa: E402

from circuit.events import StreamDelta  # noqa: E402


async def main(url: str) -> None:
    async with Stage(url) as stage:
        told = await stage.execution()
        print(told.name, flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        outlet = told.open()
        for number in range(500):
            await outlet.emit(StreamDelta.content(str(number)))
        await told.complete(await outlet.close())


asyncio.run(main(sys.argv[1]))
