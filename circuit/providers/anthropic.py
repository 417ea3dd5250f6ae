"""The adapter for Anthropic's messages: the body of a request, and the parser of its events.

Thinking goes back with its signature, unmodified; blocks of tools that Anthropic itself runs are opaque parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from circuit.errors import BadResponse
from circuit.providers.grammar import grammar_of
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
    state_of,
)
from circuit.providers.parser import (
    InBand,
    Parser,
    count_of,
    counts,
    mapping,
    parsed,
    position,
    sequence,
    text,
    written,
)
from circuit.providers.profiles import profile_of
from circuit.providers.provider import ModelChunk, ModelRequest
from circuit.providers.sse import ServerEvent
from circuit.providers.wire import (
    THINKING_BUDGETS,
    arguments_of,
    plain_name,
    schema_prompt,
    system_text,
    wire_id,
    wire_name,
)

PROTOCOL = "anthropic"
VERSION = "2023-06-01"
DEFAULT_MAX_TOKENS = 4096
"""The protocol asks for a limit; this one holds where neither the agent nor the model's profile has one."""
_LONGEST_ID = 64
_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "pause_turn": "pause",
}


class AnthropicWire:
    """The protocol of `/v1/messages`."""

    def path(self, request: ModelRequest) -> str:
        return "/v1/messages"

    def body(self, request: ModelRequest, *, own: bool) -> dict[str, Any]:
        profile = profile_of(request.model)
        parameters = request.parameters
        limit = parameters.get("max_tokens") or min(profile.max_output or DEFAULT_MAX_TOKENS, 32_000)
        turns = _turns(request.messages)
        body: dict[str, Any] = {
            "model": request.model,
            "messages": turns,
            "max_tokens": limit,
            "stream": True,
        }
        effort = parameters.get("reasoning_effort")
        # Thinking and a forced call exclude each other.
        thinking = bool(effort) and profile.reasoning and request.tool_choice in ("auto", "none")
        if thinking and profile.adaptive_thinking:
            body["thinking"] = {"type": "adaptive"}
            body["output_config"] = {"effort": {"minimal": "low"}.get(str(effort), effort)}
        elif thinking and not _unthought(turns):
            budget = THINKING_BUDGETS.get(str(effort), THINKING_BUDGETS["medium"])
            body["thinking"] = {"type": "enabled", "budget_tokens": budget}
            # The limit counts thinking too, and the model's own may not be passed.
            body["max_tokens"] = min(limit + budget, profile.max_output or limit + budget)
        elif profile.sampling:
            # Newer models refuse both at once.
            for name in ("temperature", "top_p"):
                if parameters.get(name) is not None:
                    body[name] = min(parameters[name], 1)
                    break
        if parameters.get("stop_sequences"):
            body["stop_sequences"] = list(parameters["stop_sequences"])
        schema = request.output_schema
        prompted = ""
        grammar = grammar_of(schema) if schema is not None and profile.json_schema else None
        if grammar is not None:
            body["output_config"] = {
                **body.get("output_config", {}),
                "format": {"type": "json_schema", "schema": grammar.schema},
            }
        if schema is not None and (grammar is None or not grammar.whole):
            prompted = schema_prompt(schema)
        if system := system_text(request.messages, prompted):
            body["system"] = system
        if request.tools:
            body["tools"] = [
                {"name": wire_name(tool.name), "description": tool.description, "input_schema": tool.parameters}
                for tool in request.tools
            ]
            choices = {"auto": {"type": "auto"}, "required": {"type": "any"}, "none": {"type": "none"}}
            choice = choices.get(request.tool_choice, {"type": "tool", "name": wire_name(request.tool_choice)})
            if choice["type"] != "auto":
                body["tool_choice"] = choice
        return body

    def parser(self, request: ModelRequest, place: str, in_band: InBand) -> Parser:
        return AnthropicParser(request, place, in_band)


def _turns(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """The messages by turns: results of tools belong to the user's, and neighbours of one role are one."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role == Role.SYSTEM:
            continue
        role = "assistant" if message.role == Role.ASSISTANT else "user"
        blocks = [block for part in message.parts if (block := _block(part)) is not None]
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    return turns


def _unthought(turns: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the calls whose results are told were made without thinking, by another model perhaps: then the API takes
    no thinking with a budget until they are done with."""
    last = [turn["content"] for turn in turns[-2:]]
    told = len(last) == 2 and any(block["type"] == "tool_result" for block in last[1])
    return told and last[0][0]["type"] not in ("thinking", "redacted_thinking")


def _block(part: Part) -> dict[str, Any] | None:
    match part:
        case TextPart():
            # An empty text is refused.
            return {"type": "text", "text": part.text} if part.text.strip() else None
        case ImagePart(url=url) if url:
            return {"type": "image", "source": {"type": "url", "url": url}}
        case ImagePart():
            source = {"type": "base64", "media_type": part.media_type or "image/png", "data": part.data}
            return {"type": "image", "source": source}
        case ToolCallPart():
            return {
                "type": "tool_use",
                "id": wire_id(part.id, _LONGEST_ID),
                "name": wire_name(part.name),
                "input": arguments_of(part),
            }
        case ToolResultPart():
            result = {"type": "tool_result", "tool_use_id": wire_id(part.call_id, _LONGEST_ID), "content": part.content}
            return result | ({"is_error": True} if part.failed else {})
        case ReasoningPart():
            kept = state_of(part, PROTOCOL)
            if kept.get("redacted"):
                return {"type": "redacted_thinking", "data": kept["redacted"]}
            if kept.get("signature"):
                return {"type": "thinking", "thinking": part.text, "signature": kept["signature"]}
            return None
        case OpaquePart():
            block = state_of(part, PROTOCOL).get("block")
            return dict(block) if block else None


class AnthropicParser(Parser):
    """Parses the events of one message."""

    protocol = PROTOCOL
    answer = "a message"

    def __init__(self, request: ModelRequest, place: str, in_band: InBand) -> None:
        super().__init__(request, place, in_band)
        self._tools = request.tools
        self._blocks: dict[Any, dict[str, Any]] = {}
        self._inputs: dict[Any, str] = {}
        # The arguments of calls that came whole with their beginning, as gateways may send them.
        self._given: dict[Any, str] = {}

    @property
    def answered(self) -> bool:
        return self.done

    def event(self, event: ServerEvent) -> Iterator[ModelChunk]:
        if event.data.strip() in (b"", b"[DONE]"):
            return
        value = self.object_of(event)
        kind = text(value.get("type")) or event.name
        index = position(value.get("index"))
        if kind == "error" or (not kind and value.get("error")):
            raise self.in_band(value.get("error") or value)
        if kind == "message_start":
            message = mapping(value.get("message"))
            self.model = text(message.get("model")) or self.model
            self._count(mapping(message.get("usage")))
        elif kind == "content_block_start":
            self.moved = True
            yield from self._start(index, mapping(value.get("content_block")))
        elif kind == "content_block_delta":
            self.moved = True
            yield from self._delta(index, mapping(value.get("delta")))
        elif kind == "content_block_stop":
            yield from self._stop(index)
        elif kind == "message_delta":
            self._end(mapping(value.get("delta")))
            self._count(mapping(value.get("usage")))
        elif kind == "message_stop":
            self.done = True

    def whole(self, value: Any) -> Iterator[ModelChunk]:
        message = mapping(value)
        if message.get("type") == "error" or "content" not in message:
            if message.get("error"):
                raise self.in_band(message["error"])
            raise BadResponse(f"{self.place} answered with JSON that is not a message")
        self.model = text(message.get("model")) or self.model
        for index, block in enumerate(sequence(message.get("content"))):
            content = mapping(block)
            yield from self._start(index, content)
            yield from self._stop(index)
        self._end(message)
        self._count(mapping(message.get("usage")))
        self.done = True

    def _start(self, index: Any, block: Mapping[str, Any]) -> Iterator[ModelChunk]:
        kind = block.get("type")
        if kind == "text":
            yield from self.assembly.text(index, text(block.get("text")))
        elif kind == "thinking":
            yield from self.assembly.reasoning(index, text(block.get("thinking")))
            if signature := text(block.get("signature")):
                self.assembly.note(index, "reasoning", signature=signature)
        elif kind == "redacted_thinking":
            self.assembly.note(index, "reasoning", redacted=text(block.get("data")))
        elif kind == "tool_use":
            name = plain_name(self._tools, text(block.get("name")))
            yield from self.assembly.call(index, call_id=text(block.get("id")), name=name)
            if block.get("input"):
                self._given[index] = written(block["input"])
        elif kind:
            self._blocks[index] = dict(block)
            self._inputs[index] = ""
            self.assembly.opaque(index)

    def _delta(self, index: Any, delta: Mapping[str, Any]) -> Iterator[ModelChunk]:
        kind = delta.get("type")
        if kind == "text_delta":
            yield from self.assembly.text(index, text(delta.get("text")))
        elif kind == "thinking_delta":
            yield from self.assembly.reasoning(index, text(delta.get("thinking")))
        elif kind == "signature_delta":
            self.assembly.note(index, "reasoning", signature=text(delta.get("signature")))
        elif kind == "input_json_delta":
            piece = text(delta.get("partial_json"))
            if index in self._blocks:
                self._inputs[index] += piece
            else:
                yield from self.assembly.call(index, piece)

    def _stop(self, index: Any) -> Iterator[ModelChunk]:
        if index in self._given and not self.assembly.said(index):
            yield from self.assembly.call(index, self._given[index])
        block = self._blocks.get(index)
        if block is None:
            return
        if self._inputs[index]:
            block["input"] = parsed(self._inputs[index].encode("utf-8", "replace"))
        self.assembly.opaque(index, block=block)

    def _end(self, delta: Mapping[str, Any]) -> None:
        reason = text(delta.get("stop_reason"))
        if reason:
            self.reason = _FINISH.get(reason, reason)
        details = mapping(delta.get("stop_details"))
        self.detail = text(details.get("explanation")) or text(details.get("category")) or self.detail

    def _count(self, usage: Mapping[str, Any]) -> None:
        """Later counts replace earlier ones and are never added; what they leave out stays."""
        self.raw_usage |= {name: count for name, count in usage.items() if count is not None}
        raw = self.raw_usage
        cached = count_of(raw.get("cache_read_input_tokens")) or 0
        kept = count_of(raw.get("cache_creation_input_tokens")) or 0
        fresh = count_of(raw.get("input_tokens"))
        self.usage = counts(
            input_tokens=None if fresh is None else fresh + cached + kept,
            output_tokens=raw.get("output_tokens"),
            cached_input_tokens=cached,
            cache_write_tokens=kept,
            reasoning_tokens=mapping(raw.get("output_tokens_details")).get("thinking_tokens"),
        )
