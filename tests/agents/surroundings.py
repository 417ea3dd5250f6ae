"""What stands in for an engine around an agent run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from typing import Any

from circuit.events import StreamDelta, StreamType
from circuit.providers.provider import ModelChunk, ModelRequest

NOW = datetime(2026, 11, 21, 9, 30, 0, 250_000, tzinfo=UTC)


class Book:
    """A journal in memory; it notes in what order things happened. Also serves as an action's context."""

    def __init__(self, recorded: dict[str, Any] | None = None) -> None:
        self.steps = dict(recorded or {})
        self.deltas: list[StreamDelta] = []
        self.order: list[str] = []

    async def emit(self, delta: StreamDelta) -> None:
        self.deltas.append(delta)
        self.order.append(delta.type.value)

    def recorded(self, step: str) -> Any:
        return self.steps.get(step)

    async def record(self, step: str, value: Any) -> Any:
        self.order.append(f"record {step}")
        return self.steps.setdefault(step, value)

    def now(self) -> datetime:
        return NOW

    def fault(self, point: str) -> None:
        self.order.append(point)

    @property
    def text(self) -> str:
        return "".join(d.fields["content"] for d in self.deltas if d.type is StreamType.CONTENT_CHUNK)


class Speaker:
    """A provider that says given chunks, or raises a given error in their place, and keeps the requests."""

    def __init__(self, *chunks: ModelChunk | Exception) -> None:
        self._chunks: Sequence[ModelChunk | Exception] = chunks
        self.requests: list[ModelRequest] = []
        self.closed = 0

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
        self.requests.append(request)
        try:
            for chunk in self._chunks:
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk
        finally:
            self.closed += 1
