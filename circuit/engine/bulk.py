"""The same asked of many, at a limited rate, so that what is let go does not come back all at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from circuit.engine.commands import CommandOutcome, OutcomeState
from circuit.errors import CircuitError

Item = TypeVar("Item")


@dataclass(slots=True)
class Tally:
    """How many were asked and what became of it; `refusals` are the reasons, with how often each was given."""

    asked: int = 0
    applied: int = 0
    pending: int = 0
    refused: int = 0
    refusals: dict[str, int] = field(default_factory=dict[str, int])

    def as_dict(self) -> dict[str, Any]:
        return {
            "asked": self.asked,
            "applied": self.applied,
            "pending": self.pending,
            "refused": self.refused,
            "refusals": self.refusals,
        }

    def refuse(self, reason: str) -> None:
        self.refused += 1
        self.refusals[reason] = self.refusals.get(reason, 0) + 1


async def ask_each(
    items: AsyncIterator[Item],
    ask: Callable[[Item], Awaitable[CommandOutcome]],
    rate: float,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    monotonic: Callable[[], float] | None = None,
) -> Tally:
    """Ask it of each item, one after the other, at most `rate` in a second. A refusal does not stop the rest."""
    now = monotonic or asyncio.get_running_loop().time
    tally = Tally()
    due = now()
    async for item in items:
        if (wait := due - now()) > 0:
            await sleep(wait)
        due = max(due, now()) + 1 / rate
        tally.asked += 1
        try:
            outcome = await ask(item)
        except CircuitError as error:
            if error.retryable:
                raise
            tally.refuse(error.message)
            continue
        if outcome.state is OutcomeState.APPLIED:
            tally.applied += 1
        elif outcome.state is OutcomeState.PENDING:
            tally.pending += 1
        else:
            error = outcome.result.get("error") or {}
            tally.refuse(str(error.get("message", "refused")))
    return tally
