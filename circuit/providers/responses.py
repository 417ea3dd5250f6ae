"""OpenAI's responses without IO: the body of a request, and the parser of its events.

The conversation is kept by Circuit and sent whole (`store: false`); encrypted reasoning goes along as the state of
its part. Items are known by `output_index`, because proxies may change their ids between two events.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from circuit.errors import BadResponse, ContentFiltered
from circuit.providers.messages import (
    ImagePart,
    Message,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    state_of,
)
from circuit.providers.parser import InBand, Parser, counts, mapping, position, sequence, text
from circuit.providers.profiles import profile_of
from circuit.providers.provider import ModelChunk, ModelRequest
from circuit.providers.sse import ServerEvent
from circuit.providers.strict import satisfies_strict
from circuit.providers.wire import arguments_of, data_url, plain_name, schema_prompt, takes_schema, wire_id, wire_name

PROTOCOL = "openai-responses"
_TERMINAL = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
_LONGEST_ID = 64
_WAITING = ("response.created", "response.queued", "response.in_progress", "keepalive")
_OWN_ITEMS = ("message", "function_call", "reasoning")


class ResponsesWire:
    """The protocol of `/responses`."""

    def path(self, request: ModelRequest) -> str:
        return "/responses"

    def body(self, request: ModelRequest, *, own: bool) -> dict[str, Any]:
        profile = profile_of(request.model)
        parameters = request.parameters
        body: dict[str, Any] = {
            "model": request.model,
            "input": [item for message in request.messages for item in _items(message)],
            "stream": True,
            "store": False,
        }
        if profile.sampling:
            body |= {name: parameters[name] for name in ("temperature", "top_p") if parameters.get(name) is not None}
        if parameters.get("max_tokens") is not None:
            body["max_output_tokens"] = parameters["max_tokens"]
        if profile.reasoning:
            effort = {"effort": parameters["reasoning_effort"]} if parameters.get("reasoning_effort") else {}
            body["reasoning"] = {"summary": "auto", **effort}
            body["include"] = ["reasoning.encrypted_content"]
        if request.tools:
            body["tools"] = [
                {
                    "type": "function",
                    "name": wire_name(tool.name),
                    "description": tool.description,
                    "parameters": tool.parameters,
                    "strict": satisfies_strict(tool.parameters),
                }
                for tool in request.tools
            ]
            choice = request.tool_choice
            if choice != "auto":
                named = {"type": "function", "name": wire_name(choice)}
                body["tool_choice"] = choice if choice in ("required", "none") else named
        schema = request.output_schema
        native = takes_schema(request, profile, own)
        if schema is not None and not native:
            body["input"].append({"role": "system", "content": schema_prompt(schema)})
        elif schema is not None:
            body["text"] = {
                "format": {
                    "type": "json_schema",
                    "name": re.sub(r"[^A-Za-z0-9_-]+", "_", request.schema_name)[:64] or "output",
                    "schema": schema,
                    "strict": satisfies_strict(schema),
                }
            }
        if own:
            body["stream_options"] = {"include_obfuscation": False}
        return body

    def parser(self, request: ModelRequest, place: str, in_band: InBand) -> Parser:
        return ResponsesParser(request, place, in_band)


def _items(message: Message) -> Iterator[dict[str, Any]]:
    """The input items that `message` becomes; neighbouring texts of one phase and images are one."""
    content: list[dict[str, Any]] = []
    role = Role(message.role).value
    head: dict[str, Any] = {"role": role}
    for part in message.parts:
        if isinstance(part, TextPart):
            phase = state_of(part, PROTOCOL).get("phase")
            if content and phase != head.get("phase"):
                yield {**head, "content": content}
                content = []
            head = {"role": role, **({"phase": phase} if phase else {})}
            content.append(
                {"type": "output_text" if message.role == Role.ASSISTANT else "input_text", "text": part.text}
            )
            continue
        if isinstance(part, ImagePart):
            content.append({"type": "input_image", "image_url": data_url(part)})
            continue
        if content:
            yield {**head, "content": content}
            content = []
        if isinstance(part, ToolCallPart):
            arguments = orjson.dumps(arguments_of(part)).decode()
            call_id = wire_id(part.id, _LONGEST_ID)
            yield {"type": "function_call", "call_id": call_id, "name": wire_name(part.name), "arguments": arguments}
        elif isinstance(part, ToolResultPart):
            call_id = wire_id(part.call_id, _LONGEST_ID)
            yield {"type": "function_call_output", "call_id": call_id, "output": part.content}
        elif item := state_of(part, PROTOCOL).get("item"):
            yield dict(item)
    if content:
        yield {**head, "content": content}


def _mark(item: Mapping[str, Any]) -> str:
    """What tells an item from others: the id of a call, else its kind."""
    return text(item.get("call_id")) or text(item.get("type"))


class ResponsesParser(Parser):
    """Parses the events of one response. An `error` and the `response.failed` after it are one failure."""

    protocol = PROTOCOL
    answer = "a response"

    def __init__(self, request: ModelRequest, place: str, in_band: InBand) -> None:
        super().__init__(request, place, in_band)
        self._tools = request.tools
        self._refused = False
        # What came piece by piece: the ids of calls, and the kinds of other items.
        self._streamed: set[str] = set()

    def event(self, event: ServerEvent) -> Iterator[ModelChunk]:
        if event.data.strip() in (b"", b"[DONE]"):
            return
        value = self.object_of(event)
        kind = text(value.get("type")) or event.name
        if kind == "error" or (not kind and value.get("error")):
            raise self.in_band(value.get("error") or value)
        if kind in _TERMINAL:
            yield from self._end(mapping(value.get("response")), kind)
            return
        at = position(value.get("output_index"))
        self.moved = self.moved or (bool(kind) and kind not in _WAITING)
        if kind in ("response.created", "response.in_progress"):
            self.model = text(mapping(value.get("response")).get("model")) or self.model
        elif kind == "response.output_item.added":
            yield from self._added(at, mapping(value.get("item")))
        elif kind == "response.output_item.done":
            yield from self._done(at, mapping(value.get("item")))
        elif kind in ("response.output_text.delta", "response.refusal.delta"):
            self._refused = self._refused or kind == "response.refusal.delta"
            self._streamed.add("message")
            yield from self.assembly.text((at, position(value.get("content_index"))), text(value.get("delta")))
        elif kind in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
            self._streamed.add("reasoning")
            yield from self._thought(at, value)
        elif kind == "response.function_call_arguments.delta":
            yield from self.assembly.call((at, "call"), text(value.get("delta")))
        elif kind == "response.function_call_arguments.done":
            yield from self._arguments(at, text(value.get("arguments")))

    def whole(self, value: Any) -> Iterator[ModelChunk]:
        response = mapping(value)
        if response.get("error") and not response.get("output"):
            raise self.in_band(response["error"])
        if response.get("object") != "response" and "output" not in response:
            raise BadResponse(f"{self.place} answered with JSON that is not a response")
        yield from self._end(response, f"response.{response.get('status', 'completed')}")

    def _thought(self, at: Any, value: Mapping[str, Any]) -> Iterator[ModelChunk]:
        """Summaries come in sections, each with an index of its own: an empty line parts them."""
        section = position(value.get("summary_index", value.get("content_index")))
        begun = self.assembly.said((at, "reasoning"))
        fresh = begun and not self.assembly.has((at, "section", section))
        if not self.assembly.has((at, "section", section)):
            self.assembly.note((at, "section", section), "opaque")
        yield from self.assembly.reasoning((at, "reasoning"), ("\n\n" if fresh else "") + text(value.get("delta")))

    def _added(self, at: Any, item: Mapping[str, Any]) -> Iterator[ModelChunk]:
        self._streamed.add(_mark(item))
        if item.get("type") == "function_call":
            name = plain_name(self._tools, text(item.get("name")))
            said = text(item.get("arguments"))
            yield from self.assembly.call((at, "call"), said, call_id=text(item.get("call_id")), name=name)
        elif item.get("type") == "reasoning":
            self.assembly.note((at, "reasoning"), "reasoning")

    def _done(self, at: Any, item: Mapping[str, Any]) -> Iterator[ModelChunk]:
        """An item as it stands at its end, which is what counts: what no delta brought is said now."""
        kind = item.get("type")
        self._streamed.add(_mark(item))
        if kind == "function_call":
            yield from self._added(at, {**item, "arguments": ""})
            yield from self._arguments(at, text(item.get("arguments")))
        elif kind == "message":
            for number, part in enumerate(sequence(item.get("content"))):
                content = mapping(part)
                self._refused = self._refused or content.get("type") == "refusal"
                if not self.assembly.said((at, number)):
                    yield from self.assembly.text(
                        (at, number), text(content.get("text")) or text(content.get("refusal"))
                    )
                if phase := text(item.get("phase")):
                    self.assembly.note((at, number), "text", phase=phase)
        elif kind == "reasoning":
            if not self.assembly.said((at, "reasoning")):
                sections = sequence(item.get("summary")) or sequence(item.get("content"))
                thought = "\n\n".join(text(mapping(section).get("text")) for section in sections)
                yield from self.assembly.reasoning((at, "reasoning"), thought)
            if item.get("encrypted_content"):
                kept = {name: item[name] for name in ("type", "id", "summary", "encrypted_content") if name in item}
                self.assembly.note((at, "reasoning"), "reasoning", item={"summary": [], **kept})
        elif kind and kind not in _OWN_ITEMS:
            self.assembly.opaque((at, "item"), item=dict(item))

    def _arguments(self, at: Any, whole: str) -> Iterator[ModelChunk]:
        said = self.assembly.said((at, "call"))
        if whole.startswith(said):
            yield from self.assembly.call((at, "call"), whole[len(said) :])

    def _end(self, response: Mapping[str, Any], kind: str) -> Iterator[ModelChunk]:
        self.model = text(response.get("model")) or self.model
        usage = mapping(response.get("usage"))
        if usage:
            self.raw_usage = dict(usage)
            self.usage = counts(
                input_tokens=usage.get("input_tokens"),
                output_tokens=usage.get("output_tokens"),
                cached_input_tokens=mapping(usage.get("input_tokens_details")).get("cached_tokens"),
                cache_write_tokens=mapping(usage.get("input_tokens_details")).get("cache_write_tokens"),
                reasoning_tokens=mapping(usage.get("output_tokens_details")).get("reasoning_tokens"),
            )
        if kind == "response.failed" or response.get("status") == "failed":
            raise self.in_band(response.get("error") or {"message": "the response failed"})
        if kind == "response.cancelled":
            raise self.in_band({"message": "the response was cancelled on the provider's side"})
        streamed = frozenset(self._streamed)
        for at, item in enumerate(sequence(response.get("output"))):
            # Its place here need not be the index under which it came.
            if not self._known(at) and _mark(mapping(item)) not in streamed:
                yield from self._done(("end", at), mapping(item))
        self.reason = "refusal" if self._refused else "stop"
        if kind == "response.incomplete":
            why = text(mapping(response.get("incomplete_details")).get("reason"))
            self.reason = {"max_output_tokens": "length", "max_tokens": "length"}.get(why, why or "length")
            if self.reason == "content_filter" and not self.assembly.parts():
                raise ContentFiltered(f"the content filter of {self.place} stopped the answer")
        self.done = True

    def _known(self, at: int) -> bool:
        return any(self.assembly.has((at, key)) for key in (0, "call", "reasoning", "item"))
