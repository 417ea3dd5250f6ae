"""Calls of models in the words of OpenTelemetry's conventions for generative AI (`gen_ai.*`).

What is said to a model and by it stands in a span only where the span allows it, with what looks like a key masked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from circuit.providers.messages import (
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from circuit.providers.provider import Finished, ModelRequest
from circuit.providers.retrieval import Embeddings
from circuit.security.redaction import redact
from circuit.tracing import Value

Shown = Callable[[str], str]
"""What of a text a span may show."""

LONGEST_TEXT = 16 * 1024
"""Characters of one part of a message that go into a span."""

_PROVIDERS = {"google": "gcp.gemini"}
"""The names of the conventions, where they are not those of workflow files."""
_PARAMETERS = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "max_tokens": "gen_ai.request.max_tokens",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
}
_USAGE = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cached_input_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
}


def provider_name(kind: str) -> str:
    """The provider of a type, as the conventions call it."""
    return _PROVIDERS.get(kind, kind)


def usage_of(usage: Mapping[str, Any]) -> dict[str, Value]:
    """Tokens as they are counted."""
    return {name: usage[ours] for ours, name in _USAGE.items() if isinstance(usage.get(ours), int)}


def request_of(kind: str, request: ModelRequest) -> dict[str, Value]:
    """What a request to a provider of this type is, without what it says."""
    found: dict[str, Value] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider_name(kind),
        "gen_ai.request.model": request.model,
        "gen_ai.request.stream": True,
        "gen_ai.output.type": "text" if request.output_schema is None else "json",
    }
    for ours, name in _PARAMETERS.items():
        value = request.parameters.get(ours)
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = value
    return found


def retrieval_of(operation: str, kind: str, model: str) -> dict[str, Value]:
    """What a request for vectors or for an order is. The conventions have a name for the first only."""
    return {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": provider_name(kind),
        "gen_ai.request.model": model,
    }


def vectors_of(made: Embeddings) -> dict[str, Value]:
    """What vectors are, without what they say."""
    found: dict[str, Value] = {"gen_ai.response.model": made.model, **usage_of(made.usage)}
    if made.vectors:
        found["gen_ai.embeddings.dimension.count"] = len(made.vectors[0])
    return found


def answer_of(finished: Finished) -> dict[str, Value]:
    """What an answer is, without what it says."""
    found: dict[str, Value] = {"gen_ai.response.finish_reasons": [finished.reason], **usage_of(finished.usage)}
    if finished.model:
        found["gen_ai.response.model"] = finished.model
    return found


def said_to(request: ModelRequest, shown: Shown) -> dict[str, Value]:
    """What a model is told, as far as it may be `shown`."""
    told = [message for message in request.messages if message.role != Role.SYSTEM]
    system = [part for message in request.messages if message.role == Role.SYSTEM for part in message.parts]
    found: dict[str, Value] = {"gen_ai.input.messages": _written(_message(message, shown) for message in told)}
    if system:
        found["gen_ai.system_instructions"] = _written(_part(part, shown) for part in system)
    return found


def said_by(finished: Finished, text: str, shown: Shown) -> dict[str, Value]:
    """What a model said, as far as it may be `shown`: `text`, where its parts do not say it."""
    parts = finished.parts or ((TextPart(text),) if text else ())
    said = {"role": "assistant", "parts": [_part(part, shown) for part in parts], "finish_reason": finished.reason}
    return {"gen_ai.output.messages": _written([said])}


def clean(text: str, shown: Shown) -> str:
    """`text` as a span may show it."""
    said = shown(redact(text[: 2 * LONGEST_TEXT], ()))
    return said if len(said) <= LONGEST_TEXT else said[: LONGEST_TEXT - 1] + "…"


def _written(values: Iterable[Any]) -> str:
    return orjson.dumps(list(values)).decode()


def _message(message: Message, shown: Shown) -> dict[str, Any]:
    return {"role": str(message.role), "parts": [_part(part, shown) for part in message.parts]}


def _part(part: Part, shown: Shown) -> dict[str, Any]:
    if isinstance(part, ToolCallPart):
        return {"type": "tool_call", "id": part.id, "name": part.name, "arguments": clean(part.arguments, shown)}
    if isinstance(part, ToolResultPart):
        return {"type": "tool_call_response", "id": part.call_id, "response": clean(part.content, shown)}
    if isinstance(part, ImagePart):
        # Its bytes are for the model alone.
        return {"type": "blob", "modality": "image", "mime_type": part.media_type}
    if isinstance(part, OpaquePart):
        return {"type": "opaque"}
    kind = "reasoning" if isinstance(part, ReasoningPart) else "text"
    return {"type": kind, "content": clean(part.text, shown)}
