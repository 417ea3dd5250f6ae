"""The one interface to a language model: a request in, a stream of chunks out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from circuit.providers.messages import Message, Part


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as a model sees it. `parameters` is the JSON Schema of its arguments."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One call of a model. `parameters` are those of `llm_config`; `turn` counts the calls of one execution from 0,
    `occurrence` the executions of the same agent at the same transition of a case that completed before this one,
    `attempt` the tries of this execution from 1. `tool_choice` is `auto`, `required`, `none` or the name of a tool."""

    model: str
    messages: tuple[Message, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    output_schema: Mapping[str, Any] | None = None
    schema_name: str = "output"
    turn: int = 0
    occurrence: int = 0
    attempt: int = 1
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str = "auto"


@dataclass(frozen=True, slots=True)
class TextChunk:
    text: str


@dataclass(frozen=True, slots=True)
class ReasoningChunk:
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallChunk:
    """A piece of the call number `index` of this answer: its id and name first, then pieces of its arguments."""

    index: int
    id: str
    name: str
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Restarted:
    """What came before no longer counts: the answer begins anew, from another model or endpoint, for `reason`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The terminal chunk: a stream that ends without it was cut.

    `reason` is `stop`, `length`, `tool_calls`, `refusal`, `content_filter`, `pause` (ask again with what came) or the
    provider's own word, and `detail` what it says of it. `usage` holds `input_tokens` (those that were read from a
    cache included), `output_tokens` (those of reasoning included) and what else the provider counts, under Circuit's
    names; it is empty where it gave none. `raw_usage` is the provider's own account. `parts` is the whole answer, as
    it goes back to the model in the next request. `cached` says that no model was asked for it, `choice` which of the
    models that could be asked answered, counted from 0.
    """

    reason: str
    model: str
    usage: Mapping[str, Any] = field(default_factory=dict[str, Any])
    parts: tuple[Part, ...] = ()
    raw_usage: Mapping[str, Any] = field(default_factory=dict[str, Any])
    detail: str = ""
    cached: bool = False
    choice: int = 0


ModelChunk = TextChunk | ReasoningChunk | ToolCallChunk | Restarted | Finished


class Provider(Protocol):
    """A provider adapter. Closing the iterator closes the connection, which cancels the request."""

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelChunk, None]:
        """The answer to `request`, chunk by chunk, ending with one `Finished`. Raises `ProviderError`."""
        ...


@runtime_checkable
class Recalling(Protocol):
    """A provider that may have an answer already. `stream` does not look for it: who asks looks first, for such an
    answer takes nothing that a call would."""

    async def recall(self, request: ModelRequest) -> Sequence[ModelChunk] | None:
        """The whole answer, as `stream` would give it, or None where a model must be asked."""
        ...


async def recalled(provider: Provider, request: ModelRequest) -> Sequence[ModelChunk] | None:
    """The answer to `request` that is there already, if there is one."""
    return await provider.recall(request) if isinstance(provider, Recalling) else None
