"""What an adapter says of its provider's protocol, without IO; `remote` brings it over HTTP."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, cast

import orjson

from circuit.providers.messages import ImagePart, Message, Role, ToolCallPart, text_of
from circuit.providers.parser import InBand, Parser
from circuit.providers.profiles import Profile
from circuit.providers.provider import ModelRequest, ToolSpec

SCHEMA_INSTRUCTION = "Answer with one JSON value and nothing else. It must fit this JSON Schema:\n"
SAMPLING = ("temperature", "top_p", "frequency_penalty", "presence_penalty")
THINKING_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 24576}
"""Tokens of reasoning by effort, for protocols that count them."""


class Wire(Protocol):
    """One provider's protocol. `own` says that the request goes to the provider itself, not to a compatible server."""

    def path(self, request: ModelRequest) -> str:
        """Where below the base URL, perhaps with a query."""
        ...

    def body(self, request: ModelRequest, *, own: bool) -> dict[str, Any]:
        """The JSON of a streaming request."""
        ...

    def parser(self, request: ModelRequest, place: str, in_band: InBand) -> Parser:
        """The parser of its answer."""
        ...


def wire_name(name: str) -> str:
    """The name of a tool as every provider takes it; `plain_name` leads back."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64]


def wire_id(call_id: str, longest: int) -> str:
    """The id of a call as a protocol takes it that did not give it: letters, digits, `_` and `-`, and not too many. It
    is the same for the call and its result."""
    if len(call_id) <= longest and re.fullmatch(r"[A-Za-z0-9_-]+", call_id):
        return call_id
    return f"call_{hashlib.sha256(call_id.encode('utf-8', 'replace')).hexdigest()[:24]}"


def plain_name(tools: Iterable[ToolSpec], wired: str) -> str:
    """The tool that `wired` means; itself where no tool is called so."""
    return next((tool.name for tool in tools if wire_name(tool.name) == wired), wired)


def arguments_of(call: ToolCallPart) -> dict[str, Any]:
    """The arguments of an earlier call as the object that protocols ask for, whatever the model wrote."""
    if not call.arguments.strip():
        return {}
    try:
        value = json.loads(call.arguments, strict=False)
        # What no request could hold: integers of more than 64 bits, halves of surrogate pairs.
        orjson.dumps(value)
    except (TypeError, ValueError, RecursionError):
        value = None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {"invalid_arguments": call.arguments}


def data_url(image: ImagePart) -> str:
    """The image as one URL."""
    return image.url or f"data:{image.media_type or 'image/png'};base64,{image.data}"


def schema_prompt(schema: Mapping[str, Any]) -> str:
    """How a model is asked for structured output where its provider has no way of its own."""
    return SCHEMA_INSTRUCTION + orjson.dumps(schema).decode()


def takes_schema(request: ModelRequest, profile: Profile, own: bool) -> bool:
    """Whether the schema of a request goes OpenAI's own way, and not into the prompt. `own` says that it goes to OpenAI
    itself, which takes objects alone."""
    schema = request.output_schema
    if schema is None or not profile.json_schema:
        return False
    if own:
        return schema.get("type") == "object"
    return profile.schema_with_tools or not request.tools or request.tool_choice == "none"


def system_text(messages: Iterable[Message], *more: str) -> str:
    """The system's messages and `more` as one text, for protocols that keep them apart."""
    texts = [text_of(message.parts) for message in messages if message.role == Role.SYSTEM]
    return "\n\n".join(text for text in (*texts, *more) if text)
