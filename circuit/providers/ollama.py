"""The adapter for Ollama's own protocol, `/api/chat`: JSON by lines, arguments as objects, calls whole.

Ollama cuts a prompt silently to the context that it was started with; `options: {options: {num_ctx: ...}}` of the
provider asks for more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from circuit.errors import BadResponse, ModelRequestRefused
from circuit.providers.lines import LineSplitter
from circuit.providers.messages import (
    ImagePart,
    Message,
    ReasoningPart,
    Role,
    ToolCallPart,
    ToolResultPart,
    calls_of,
    text_of,
)
from circuit.providers.parser import InBand, Parser, counts, mapping, sequence, text, written
from circuit.providers.profiles import profile_of
from circuit.providers.provider import ModelChunk, ModelRequest
from circuit.providers.sse import ServerEvent
from circuit.providers.wire import SAMPLING, arguments_of, plain_name, schema_prompt, system_text, wire_name

PROTOCOL = "ollama"


class OllamaWire:
    """The protocol of `/api/chat`."""

    def path(self, request: ModelRequest) -> str:
        return "/api/chat"

    def body(self, request: ModelRequest, *, own: bool) -> dict[str, Any]:
        profile = profile_of(request.model)
        parameters, schema = request.parameters, request.output_schema
        tools = request.tools if request.tool_choice != "none" else ()
        messages = request.messages
        if schema is not None and tools:
            # Ollama holds all that a model says to a format, so that it calls no tool.
            system = Message.text(Role.SYSTEM, system_text(messages, schema_prompt(schema)))
            messages = (system, *(message for message in messages if message.role != Role.SYSTEM))
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [entry for message in messages for entry in _entries(message)],
            "stream": True,
        }
        options: dict[str, Any] = {name: parameters[name] for name in SAMPLING if parameters.get(name) is not None}
        if parameters.get("max_tokens") is not None:
            options["num_predict"] = parameters["max_tokens"]
        if parameters.get("stop_sequences"):
            options["stop"] = list(parameters["stop_sequences"])
        if options:
            body["options"] = options
        if effort := parameters.get("reasoning_effort"):
            # Most models only know whether to think; a few know how much.
            body["think"] = {"minimal": "low"}.get(effort, effort) if profile.reasoning_levels else True
        if schema is not None and not tools:
            body["format"] = schema
        if tools:
            body["tools"] = [
                {
                    "type": "function",
                    "function": {
                        "name": wire_name(tool.name),
                        "description": tool.description,
                        "parameters": tool.parameters,
                    },
                }
                for tool in tools
            ]
        return body

    def parser(self, request: ModelRequest, place: str, in_band: InBand) -> Parser:
        return OllamaParser(request, place, in_band)


def _entries(message: Message) -> Iterator[dict[str, Any]]:
    results = [part for part in message.parts if isinstance(part, ToolResultPart)]
    for result in results:
        yield {"role": "tool", "tool_name": wire_name(result.name), "content": result.content}
    rest = [part for part in message.parts if not isinstance(part, ToolResultPart)]
    if not rest and results:
        return
    entry: dict[str, Any] = {"role": Role(message.role).value, "content": text_of(rest)}
    shown = [part for part in rest if isinstance(part, ImagePart)]
    if any(not part.data for part in shown):
        raise ModelRequestRefused(
            "Ollama fetches no images: give this one as base64 (`{data, media_type}`, or a data URL), not as an address"
        )
    if images := [part.data for part in shown]:
        entry["images"] = images
    if calls := calls_of(rest):
        entry["tool_calls"] = [_call(call) for call in calls]
        if thought := "".join(part.text for part in rest if isinstance(part, ReasoningPart)):
            entry["thinking"] = thought
    yield entry


def _call(call: ToolCallPart) -> dict[str, Any]:
    return {"function": {"name": wire_name(call.name), "arguments": arguments_of(call)}}


class OllamaParser(Parser):
    """Parses the lines of one answer."""

    protocol = PROTOCOL
    answer = "an answer of Ollama"
    splitter = LineSplitter
    streams = (b"{",)

    def __init__(self, request: ModelRequest, place: str, in_band: InBand) -> None:
        super().__init__(request, place, in_band)
        self._tools = request.tools

    @property
    def answered(self) -> bool:
        return self.done

    def event(self, event: ServerEvent) -> Iterator[ModelChunk]:
        if event.data.strip():
            yield from self._line(self.object_of(event))

    def whole(self, value: Any) -> Iterator[ModelChunk]:
        raise BadResponse(f"{self.place} answered with JSON that is not an answer of Ollama")
        yield

    def _line(self, line: Mapping[str, Any]) -> Iterator[ModelChunk]:
        if line.get("error"):
            raise self.in_band(line["error"])
        if not isinstance(line.get("message"), dict) and not line.get("done"):
            raise BadResponse(f"{self.place} sent a line that is not an answer of Ollama")
        self.model = text(line.get("model")) or self.model
        message = mapping(line.get("message"))
        if thought := text(message.get("thinking")):
            yield from self.assembly.reasoning("reasoning", thought)
        if said := text(message.get("content")):
            yield from self.assembly.text("text", said)
        for item in sequence(message.get("tool_calls")):
            # Each call comes whole; two that are the same are two calls.
            function = mapping(mapping(item).get("function"))
            arguments = function.get("arguments")
            said = arguments if isinstance(arguments, str) else written(arguments or {})
            name = plain_name(self._tools, text(function.get("name")))
            key = ("call", self.assembly.calls)
            yield from self.assembly.call(key, said, call_id=text(mapping(item).get("id")), name=name)
        if line.get("done"):
            self._end(line)

    def _end(self, line: Mapping[str, Any]) -> None:
        reason = text(line.get("done_reason"))
        # `load` says that the model was only loaded; an old server gives no reason at all.
        self.reason = {"load": "stop", "": "stop"}.get(reason, reason)
        self.raw_usage = {
            name: line[name] for name in line if name.endswith(("_count", "_duration")) and line[name] is not None
        }
        # The count of a prompt that was cached may be missing.
        self.usage = counts(input_tokens=line.get("prompt_eval_count"), output_tokens=line.get("eval_count"))
        self.done = True
