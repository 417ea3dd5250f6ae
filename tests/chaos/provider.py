"""A model server whose answers, latencies and faults come from one seed.

Latencies are those of real providers, scaled down by a hundred: from 10 ms to 60 s they become 0.1 ms to 0.6 s, most of
them short, a few very long. What it says to a question depends on the question alone, so that an answer that was asked
for twice is the same, and a stream can be told from another.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.chat_server import ChatServer, Received

LEAST_SECONDS = 0.0001
MOST_SECONDS = 0.6
TAIL = 0.9
"""The exponent of the Pareto distribution of latencies: the smaller, the heavier the tail."""

KINDS: dict[str, dict[str, Any]] = {
    "rate_limit": {"status": 429, "headers": {"Retry-After": "0.1"}, "body": {"error": {"message": "slower"}}},
    "unavailable": {"status": 503, "body": {"error": {"message": "overloaded"}}},
    "broken": {"status": 500, "body": "it broke"},
    "hang_at_connect": {"hang": "first_byte"},
    "hang_in_stream": {"hang": 400},
    "cut_stream": {"cut_after": 500},
    "doubled_chunk": {"doubled": True},
    "slow_first_chunk": {"slow": 6.0},
}
"""The faults of providers. 600 s to the first chunk become 6."""


@dataclass
class Asked:
    """A question, when it came, and what it was met with."""

    at: float
    question: str
    fault: str | None


@dataclass
class SeededProvider(ChatServer):
    """`faults` gives each kind of fault the probability with which a request meets it; `only` lets a test have its way
    with the next requests."""

    seed: int = 0
    faults: Mapping[str, float] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    pieces: int = 24

    def __post_init__(self) -> None:
        super().__post_init__()
        self.random = Random(self.seed)

    def latency(self) -> float:
        return min(MOST_SECONDS, LEAST_SECONDS * self.random.paretovariate(TAIL) * 10)

    def _next(self, received: Received) -> dict[str, Any]:
        question = received.body["messages"][-1]["content"]
        drawn = self.random.random()
        fault = None
        for kind, probability in self.faults.items():
            drawn -= probability
            if drawn < 0:
                fault = kind
                break
        self.asked.append(Asked(time.time(), question, fault))
        reply = {"text": answer(question), "pieces": self.pieces, "cuts": self.random.randrange(2**16)}
        reply |= KINDS[fault] if fault else {}
        return reply | {"latency": reply.pop("slow", 0.0) or self.latency()}

    async def _perform(self, reply: dict[str, Any], writer: asyncio.StreamWriter, *rest: Any) -> bool:
        await asyncio.sleep(reply["latency"])
        return await super()._perform(reply, writer, *rest)


def answer(question: str) -> str:
    """What is said to `question`: a number that choices go by, and enough words for several frames."""
    digest = hashlib.sha256(question.encode()).hexdigest()
    return f"{int(digest[:2], 16) % 10} of ten. " + " ".join(digest[place : place + 5] for place in range(0, 60, 5))
