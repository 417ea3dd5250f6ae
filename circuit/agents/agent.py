"""One run of an agent: a request to a model, its answer streamed on, journalled, and interpreted.

The answer is journalled when it is whole and before anything is made of it, so that after a crash no request is sent
for an answer that is there: it is emitted again and used. An answer that turns out to be unusable fails the attempt;
another attempt has another journal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

from circuit.agents.output import check_size, check_text, interpret
from circuit.agents.ports import Journal
from circuit.errors import StreamCut
from circuit.events import StreamDelta
from circuit.providers.messages import Message
from circuit.providers.provider import Finished, ModelRequest, Provider, ReasoningChunk, Restarted, ToolCallChunk

ANSWER_STEP = "answer:0"
REPLAY_PIECE = 16 * 1024
"""How many characters of a journalled answer go into one stream event."""


@dataclass(frozen=True, slots=True)
class AgentRun:
    """What one run asks for. `occurrence` counts the completed runs before it at the same transition of its case,
    `attempt` its own tries from 1."""

    model: str
    messages: tuple[Message, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    output_schema: Mapping[str, Any] | None = None
    schema_name: str = "output"
    occurrence: int = 0
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's whole answer, as the journal keeps it. `at` is when it was whole (ISO 8601, UTC)."""

    text: str
    finish: str
    usage: Mapping[str, Any]
    model: str
    at: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "finish": self.finish,
            "usage": dict(self.usage),
            "model": self.model,
            "at": self.at,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Answer:
        return cls(value["text"], value["finish"], value["usage"], value["model"], value["at"])


@dataclass(frozen=True, slots=True)
class AgentResult:
    """An answer and, where a schema asked for it, the structured output in it."""

    answer: Answer
    output: Any


async def run_agent(
    run: AgentRun, provider: Provider, journal: Journal, fault: Callable[[str], None] = lambda _: None
) -> AgentResult:
    """Perform `run`. `fault` is called at the named crash points.

    Raises `ProviderError` where there is no answer, `InvalidOutput`, `OutputTruncated` or `ModelRefusal` where the
    answer is of no use.
    """
    kept = journal.recorded(ANSWER_STEP)
    if kept is None:
        fresh = await _ask(run, provider, journal, fault)
        fault("after_answer")
        answer = Answer.from_dict(await journal.record(ANSWER_STEP, fresh.as_dict()))
        fault("after_journal")
    else:
        answer = Answer.from_dict(kept)
        for begin in range(0, len(answer.text), REPLAY_PIECE):
            await journal.emit(StreamDelta.content(answer.text[begin : begin + REPLAY_PIECE]))
    return AgentResult(answer, interpret(answer.text, answer.finish, run.output_schema))


async def _ask(run: AgentRun, provider: Provider, journal: Journal, fault: Callable[[str], None]) -> Answer:
    """The whole answer of the model; what it says goes to the readers as it comes."""
    request = ModelRequest(
        model=run.model,
        messages=run.messages,
        parameters=run.parameters,
        output_schema=run.output_schema,
        schema_name=run.schema_name,
        turn=0,
        occurrence=run.occurrence,
        attempt=run.attempt,
    )
    pieces: list[str] = []
    finished: Finished | None = None
    size = 0
    begun = False
    # Closing the stream, however this ends, closes the connection and so cancels the request.
    async with aclosing(provider.stream(request)) as chunks:
        async for chunk in chunks:
            if isinstance(chunk, Finished):
                finished = chunk
                continue
            if isinstance(chunk, ToolCallChunk):
                continue
            if isinstance(chunk, Restarted):
                pieces.clear()
                await journal.emit(StreamDelta.restarted(chunk.reason))
                continue
            size += len(chunk.text.encode("utf-8", "surrogatepass"))
            check_size(size)
            check_text(chunk.text)
            if isinstance(chunk, ReasoningChunk):
                await journal.emit(StreamDelta.thinking("reasoning", chunk.text))
                continue
            pieces.append(chunk.text)
            await journal.emit(StreamDelta.content(chunk.text))
            if not begun:
                begun = True
                fault("before_answer")
    if finished is None:
        raise StreamCut("the provider ended its stream before the answer was whole")
    at = journal.now().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Answer("".join(pieces), finished.reason, finished.usage, finished.model or run.model, at)
