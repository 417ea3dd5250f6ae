"""What stands in for an engine around an agent run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from circuit.events import StreamDelta, StreamType
from circuit.providers.messages import TextPart, ToolCallPart
from circuit.providers.provider import Finished, ModelChunk, ModelRequest, TextChunk, ToolCallChunk
from circuit.spend import Spend

NOW = datetime(2026, 11, 21, 9, 30, 0, 250_000, tzinfo=UTC)


class Asked(BaseException):
    """The run ended because a person was asked."""


class Book:
    """A journal in memory; it notes in what order things happened. Also serves as an action's context."""

    def __init__(self, recorded: dict[str, Any] | None = None) -> None:
        self.steps = dict(recorded or {})
        self.deltas: list[StreamDelta] = []
        self.order: list[str] = []
        self.answers: dict[str, Mapping[str, Any]] = {}
        self.questions: list[tuple[str, Mapping[str, Any], Sequence[str]]] = []

    async def emit(self, delta: StreamDelta) -> None:
        self.deltas.append(delta)
        self.order.append(delta.type.value)

    def recorded(self, step: str) -> Any:
        return self.steps.get(step)

    async def record(self, step: str, value: Any) -> Any:
        self.order.append(f"record {step}")
        return self.steps.setdefault(step, value)

    def screened(self, step: str, decision: Mapping[str, Any], event: Mapping[str, Any]) -> None:
        self.steps.setdefault(step, decision)
        self.order.append(f"screened {step}")

    async def ask_person(
        self,
        key: str,
        payload: Mapping[str, Any],
        *,
        roles: Sequence[str] = (),
        timeout_seconds: float | None = None,
        form: Mapping[str, Any] | None = None,
    ) -> Mapping[str, Any]:
        if key not in self.answers:
            self.questions.append((key, payload, roles))
            raise Asked(key)
        return self.answers[key]

    async def hold(self, most: Spend) -> int | None:
        return None

    def settle(self, charge: int, spent: Spend) -> None:
        return None

    def now(self) -> datetime:
        return NOW

    def fault(self, point: str) -> None:
        self.order.append(point)

    @property
    def text(self) -> str:
        return "".join(d.fields["content"] for d in self.deltas if d.type is StreamType.CONTENT_CHUNK)

    def thoughts(self, status: str) -> str:
        return "".join(d.fields.get("content", "") for d in self.deltas if d.fields.get("status") == status)

    def results(self) -> list[Any]:
        return [d.fields["result"] for d in self.deltas if d.type is StreamType.TOOL_RESULT]


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


class Dialogue:
    """A provider that gives one answer a request: text, or the calls of a tuple `(name, arguments)` or a list of such.
    The last one repeats."""

    def __init__(self, *answers: Any) -> None:
        self.answers = answers
        self.requests: list[ModelRequest] = []

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
        self.requests.append(request)
        answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        usage = {"input_tokens": 10, "output_tokens": 5}
        if isinstance(answer, str):
            yield TextChunk(answer)
            yield Finished("stop", "m", usage, (TextPart(answer),))
            return
        parts: list[ToolCallPart] = []
        for index, (name, arguments) in enumerate(answer if isinstance(answer, list) else [answer]):
            parts.append(ToolCallPart(f"call_{request.turn}_{index}", name, arguments))
            yield ToolCallChunk(index, parts[-1].id, name, arguments)
        yield Finished("tool_calls", "m", usage, tuple(parts))
