"""A place inside of a journal, for what is a run of its own in the same execution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from circuit.agents.ports import Journal
from circuit.events import StreamDelta
from circuit.spend import Spend


class PlacedJournal:
    """The part of `outer` at `place`: its steps and questions have names of their own, its readers are the same."""

    def __init__(self, outer: Journal, place: str) -> None:
        self._outer = outer
        self._place = place

    async def emit(self, delta: StreamDelta) -> None:
        await self._outer.emit(delta)

    def recorded(self, step: str) -> Any:
        return self._outer.recorded(self._step(step))

    async def record(self, step: str, value: Any) -> Any:
        return await self._outer.record(self._step(step), value)

    def screened(self, step: str, decision: Mapping[str, Any], event: Mapping[str, Any]) -> None:
        self._outer.screened(self._step(step), decision, event)

    async def ask_person(
        self,
        key: str,
        payload: Mapping[str, Any],
        *,
        roles: Sequence[str] = (),
        timeout_seconds: float | None = None,
        form: Mapping[str, Any] | None = None,
    ) -> Mapping[str, Any]:
        place = f"{self._place}>{key}"
        return await self._outer.ask_person(place, payload, roles=roles, timeout_seconds=timeout_seconds, form=form)

    async def hold(self, most: Spend) -> int | None:
        return await self._outer.hold(most)

    def settle(self, charge: int, spent: Spend) -> None:
        self._outer.settle(charge, spent)

    def now(self) -> datetime:
        return self._outer.now()

    def _step(self, step: str) -> str:
        # What a tool did lasts over a retry wherever it was done: the mark of that stays in front.
        mark, _, rest = step.partition(":")
        return f"{mark}:{self._place}>{rest}"
