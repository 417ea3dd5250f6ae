"""The adapter for Google's Gemini: the body of `streamGenerateContent`, and the parser of what comes back.

A signature of a thought stays on the part that it came with, and goes back on it; a part with a signature is never
joined with its neighbours. The stream has no marker of its own at its end: a `finishReason` is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from circuit.errors import BadResponse
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
from circuit.providers.parser import InBand, Parser, count_of, counts, mapping, parsed, sequence, text, written
from circuit.providers.partial import PartialArguments
from circuit.providers.profiles import profile_of
from circuit.providers.provider import ModelChunk, ModelRequest
from circuit.providers.sse import ServerEvent
from circuit.providers.wire import THINKING_BUDGETS, arguments_of, plain_name, schema_prompt, system_text, wire_name

PROTOCOL = "google"
_FILTERED = {
    *("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR"),
    *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION"),
}
_MALFORMED = {"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MALFORMED_RESPONSE"}
_MISSING_SIGNATURE = "MISSING_THOUGHT_SIGNATURE"
_PARAMETERS = {
    "temperature": "temperature",
    "top_p": "topP",
    "max_tokens": "maxOutputTokens",
    "frequency_penalty": "frequencyPenalty",
    "presence_penalty": "presencePenalty",
}


class GoogleWire:
    """The protocol of `models/MODEL:streamGenerateContent`."""

    def path(self, request: ModelRequest) -> str:
        model = request.model.removeprefix("models/")
        return f"/models/{quote(model, safe='')}:streamGenerateContent?alt=sse"

    def body(self, request: ModelRequest, *, own: bool) -> dict[str, Any]:
        profile = profile_of(request.model)
        parameters = request.parameters
        config: dict[str, Any] = {
            there: parameters[here] for here, there in _PARAMETERS.items() if parameters.get(here) is not None
        }
        if parameters.get("stop_sequences"):
            config["stopSequences"] = list(parameters["stop_sequences"])
        if profile.reasoning:
            config["thinkingConfig"] = _thinking(request.model, str(parameters.get("reasoning_effort") or ""))
        prompted = ""
        schema = request.output_schema
        tools = () if request.tool_choice == "none" and schema is not None else request.tools
        # Before Gemini 3 a schema excludes tools.
        if schema is not None and profile.json_schema and (not tools or profile.schema_with_tools):
            config |= {"responseMimeType": "application/json", "responseJsonSchema": schema}
        elif schema is not None:
            prompted = schema_prompt(schema)
        body: dict[str, Any] = {"contents": _contents(request.messages)}
        if system := system_text(request.messages, prompted):
            body["systemInstruction"] = {"parts": [{"text": system}]}
        if config:
            body["generationConfig"] = config
        if tools:
            declarations = [
                {
                    "name": wire_name(tool.name),
                    "description": tool.description,
                    "parametersJsonSchema": tool.parameters,
                }
                for tool in tools
            ]
            body["tools"] = [{"functionDeclarations": declarations}]
            modes = {"auto": {}, "required": {"mode": "ANY"}, "none": {"mode": "NONE"}}
            named = {"mode": "ANY", "allowedFunctionNames": [wire_name(request.tool_choice)]}
            if calling := modes.get(request.tool_choice, named):
                body["toolConfig"] = {"functionCallingConfig": calling}
        return body

    def parser(self, request: ModelRequest, place: str, in_band: InBand) -> Parser:
        return GoogleParser(request, place, in_band)


def _thinking(model: str, effort: str) -> dict[str, Any]:
    config: dict[str, Any] = {"includeThoughts": True}
    if effort and re.search(r"gemini-([3-9])", model):
        config["thinkingLevel"] = {"minimal": "low"}.get(effort, effort).upper()
    elif effort:
        config["thinkingBudget"] = THINKING_BUDGETS.get(effort, THINKING_BUDGETS["medium"])
    return config


def _contents(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """The messages by turns: neighbours of one role are one, so that parallel calls and their results stay together."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role == Role.SYSTEM:
            continue
        role = "model" if message.role == Role.ASSISTANT else "user"
        parts = [made for part in message.parts if (made := _part(part)) is not None]
        if not parts:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["parts"] += parts
        else:
            turns.append({"role": role, "parts": parts})
    return turns


def _part(part: Part) -> dict[str, Any] | None:
    match part:
        case TextPart():
            made: dict[str, Any] = {"text": part.text}
            signature = state_of(part, PROTOCOL).get("signature")
            if not part.text and not signature:
                return None
        case ReasoningPart():
            signature = state_of(part, PROTOCOL).get("signature")
            if not signature:
                return None
            made = {"text": part.text, "thought": True}
        case ToolCallPart():
            signature = state_of(part, PROTOCOL).get("signature")
            made = {"functionCall": {"name": wire_name(part.name), "args": arguments_of(part), "id": part.id}}
        case ToolResultPart():
            signature = None
            value = parsed(part.content.encode("utf-8", "replace"))
            # The protocol asks for an object.
            response = value if isinstance(value, dict) else {"error" if part.failed else "result": part.content}
            made = {"functionResponse": {"name": wire_name(part.name), "id": part.call_id, "response": response}}
        case ImagePart(url=url) if url:
            return {"fileData": {"fileUri": url} | ({"mimeType": part.media_type} if part.media_type else {})}
        case ImagePart():
            return {"inlineData": {"mimeType": part.media_type or "image/png", "data": part.data}}
        case OpaquePart():
            kept = state_of(part, PROTOCOL).get("part")
            return dict(kept) if kept else None
    return made | ({"thoughtSignature": signature} if signature else {})


class GoogleParser(Parser):
    """Parses the chunks of one answer; it also takes the JSON array that the address without `alt=sse` gives."""

    protocol = PROTOCOL
    answer = "an answer of Gemini"

    def __init__(self, request: ModelRequest, place: str, in_band: InBand) -> None:
        super().__init__(request, place, in_band)
        self._tools = request.tools
        self._open = ("", 0)
        self._partial: tuple[tuple[str, int], PartialArguments] | None = None

    def event(self, event: ServerEvent) -> Iterator[ModelChunk]:
        if event.data.strip() in (b"", b"[DONE]"):
            return
        yield from self._chunk(self.object_of(event))

    def whole(self, value: Any) -> Iterator[ModelChunk]:
        for chunk in sequence(value) if isinstance(value, list) else [value]:
            yield from self._chunk(mapping(chunk))
        if self.reason is None:
            raise BadResponse(f"{self.place} answered with JSON that is not an answer of Gemini")

    def _chunk(self, chunk: Mapping[str, Any]) -> Iterator[ModelChunk]:
        if chunk.get("error"):
            raise self.in_band(chunk["error"])
        self.model = text(chunk.get("modelVersion")) or self.model
        if usage := mapping(chunk.get("usageMetadata")):
            self._count(usage)
        for item in sequence(chunk.get("candidates")):
            candidate = mapping(item)
            if candidate.get("index") not in (0, None):
                continue
            for part in sequence(mapping(candidate.get("content")).get("parts")):
                yield from self._said(mapping(part))
            if reason := text(candidate.get("finishReason")):
                yield from self._whole_call()
                self._end(reason, text(candidate.get("finishMessage")))
        if blocked := text(mapping(chunk.get("promptFeedback")).get("blockReason")):
            self.reason, self.detail = "content_filter", f"the prompt was blocked ({blocked})"

    def _said(self, part: Mapping[str, Any]) -> Iterator[ModelChunk]:
        signature = text(part.get("thoughtSignature"))
        call = mapping(part.get("functionCall"))
        if call or "functionCall" in part:
            yield from self._called(call, signature)
        elif isinstance(part.get("text"), str):
            kind = "reasoning" if part.get("thought") else "text"
            key = self._key(kind, apart=bool(signature))
            say = self.assembly.reasoning if kind == "reasoning" else self.assembly.text
            yield from say(key, part["text"])
            if signature:
                self.assembly.note(key, kind, signature=signature)
                self._open = ("", self._open[1])
        elif part:
            self.assembly.opaque(self._key("opaque", apart=True), part=dict(part))

    def _called(self, call: Mapping[str, Any], signature: str) -> Iterator[ModelChunk]:
        """A call, or a piece of one: on Vertex the arguments may come value by value until nothing is to follow."""
        name = plain_name(self._tools, text(call.get("name")))
        if self._partial is None or name:
            yield from self._whole_call()
            key = self._key("call", apart=True)
            self._partial = (key, PartialArguments())
            yield from self.assembly.call(key, call_id=text(call.get("id")), name=name)
        key, arguments = self._partial
        arguments.take(call)
        if signature:
            self.assembly.note(key, "call", signature=signature)
        if not call.get("willContinue"):
            yield from self._whole_call()

    def _whole_call(self) -> Iterator[ModelChunk]:
        """Nothing more comes of the call that is open, if one is."""
        if self._partial is not None:
            (key, arguments), self._partial = self._partial, None
            yield from self.assembly.call(key, written(arguments.value))

    def _key(self, kind: str, *, apart: bool) -> tuple[str, int]:
        """Where the next piece of `kind` belongs: the open part of the same kind, or one of its own."""
        if apart or self._open[0] != kind:
            self._open = (kind, self._open[1] + 1)
        return self._open

    def _end(self, reason: str, message: str) -> None:
        self.detail = message or self.detail
        if reason in _MALFORMED:
            said = f": {message}" if message else ""
            raise BadResponse(f"{self.place}: the model's call of a tool could not be read ({reason}){said}")
        if reason == _MISSING_SIGNATURE:
            raise self.in_band({"code": 400, "message": f"a call went back without its thought signature ({reason})"})
        if reason in _FILTERED:
            self.reason, self.detail = "content_filter", message or reason
        else:
            self.reason = {"STOP": "stop", "MAX_TOKENS": "length"}.get(reason, reason.lower())

    def _count(self, usage: Mapping[str, Any]) -> None:
        """Every chunk repeats the account, and the last one counts. Thoughts are output, results of tools input."""
        self.raw_usage = dict(usage)
        prompt, thoughts = count_of(usage.get("promptTokenCount")), count_of(usage.get("thoughtsTokenCount")) or 0
        self.usage = counts(
            input_tokens=None if prompt is None else prompt + (count_of(usage.get("toolUsePromptTokenCount")) or 0),
            output_tokens=(count_of(usage.get("candidatesTokenCount")) or 0) + thoughts,
            cached_input_tokens=usage.get("cachedContentTokenCount"),
            reasoning_tokens=thoughts,
        )
