"""The one interface to a language model: a request in, a stream of chunks out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from circuit.providers.messages import Message


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One call of a model. `parameters` are those of `llm_config`; `turn` counts the calls of one execution from 0,
    `occurrence` the executions of the same agent at the same transition of a case that completed before this one,
    `attempt` the tries of this execution from 1."""

    model: str
    messages: tuple[Message, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    output_schema: Mapping[str, Any] | None = None
    schema_name: str = "output"
    turn: int = 0
    occurrence: int = 0
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class TextChunk:
    text: str


@dataclass(frozen=True, slots=True)
class ReasoningChunk:
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The terminal chunk: a stream that ends without it was cut.

    `reason` is `stop`, `length`, `tool_calls`, `refusal` or the provider's own word; `usage` holds `input_tokens` and
    `output_tokens` and what else the provider counts, and is empty where it gave none.
    """

    reason: str
    model: str
    usage: Mapping[str, Any] = field(default_factory=dict[str, Any])


ModelChunk = TextChunk | ReasoningChunk | Finished


class Provider(Protocol):
    """A provider adapter. Closing the iterator closes the connection, which cancels the request."""

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
        """The answer to `request`, chunk by chunk, ending with one `Finished`. Raises `ProviderError`."""
        ...
