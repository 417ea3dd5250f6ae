"""The process of a model without a model, for `benchmarks.agents`: each step gives one token to all that it answers.

`python -m benchmarks.paced_host --alone OPTIONS` answers by itself, all requests of a round at once, a round for each
line that comes, and says the seconds of it: the same engine with nothing before it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from circuit.providers.vllm.child import run
from circuit.providers.vllm.port import Message

TOKENS_A_PIECE = 4
TOKEN = " w123"


class PacedEngine:
    """`batch` requests at once, a step every `step` seconds, as the options of its load say."""

    def __init__(self, load: Mapping[str, Any]) -> None:
        options: Mapping[str, Any] = load["options"]
        self._step = float(options["step"])
        self._batch = int(options["batch"])
        self._waiting: deque[tuple[int, asyncio.Queue[str | None]]] = deque()
        self._asked = asyncio.Event()
        self.steps = 0
        self._pacing = asyncio.create_task(self._pace())

    @classmethod
    async def open(cls, load: Mapping[str, Any]) -> PacedEngine:
        return cls(load)

    def about(self) -> Mapping[str, Any]:
        return {"context": 4096, "tasks": ["generate"], "version": "paced"}

    async def answer(self, kind: str, request_id: str, order: Mapping[str, Any]) -> AsyncGenerator[Message, None]:
        if kind == "figures":
            yield "end", {"vllm:iteration_tokens_total_count": float(self.steps)}
            return
        tokens, pieces = int(order["body"]["max_tokens"]), asyncio.Queue[str | None]()
        self._waiting.append((tokens, pieces))
        self._asked.set()
        while (piece := await pieces.get()) is not None:
            yield "text", piece
        yield "end", {"reason": "length", "usage": {"prompt_tokens": 60, "completion_tokens": tokens}}

    async def close(self) -> None:
        self._pacing.cancel()

    async def _pace(self) -> None:
        running: list[tuple[int, int, asyncio.Queue[str | None]]] = []
        while True:
            if not running and not self._waiting:
                self._asked.clear()
                await self._asked.wait()
            await asyncio.sleep(self._step)
            while self._waiting and len(running) < self._batch:
                running.append((0, *self._waiting.popleft()))
            self.steps += 1
            going: list[tuple[int, int, asyncio.Queue[str | None]]] = []
            for said, tokens, pieces in running:
                now = said + 1
                if now == 1 or now % TOKENS_A_PIECE == 0 or now == tokens:
                    # What came since the last piece: behind the first token, up to the next multiple.
                    before = 0 if now == 1 else max(1, (now - 1) // TOKENS_A_PIECE * TOKENS_A_PIECE)
                    pieces.put_nowait(TOKEN * (now - before))
                if now == tokens:
                    pieces.put_nowait(None)
                else:
                    going.append((now, tokens, pieces))
            running = going


async def alone(options: Mapping[str, Any]) -> float:
    """Seconds in which the engine gives `requests` answers of `tokens` tokens to somebody who forgets them."""
    engine = PacedEngine({"options": options})
    order = {"body": {"max_tokens": options["tokens"]}}

    async def one(number: int) -> None:
        async for _ in engine.answer("chat", str(number), order):
            pass

    began = time.perf_counter()
    await asyncio.gather(*map(one, range(options["requests"])))
    took = time.perf_counter() - began
    await engine.close()
    return took


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        for _ in sys.stdin:
            print(asyncio.run(alone(json.loads(sys.argv[2]))), flush=True)
        sys.exit()
    sys.exit(run(PacedEngine.open, sys.argv[1:]))
