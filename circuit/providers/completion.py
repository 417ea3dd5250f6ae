"""OpenAI's chat completions without IO: the body of a request, and the parser of what comes back.

`ChatParser.feed` takes the bytes of an answer, cut anywhere, and gives chunks. It accepts what compatible servers
send beside OpenAI's own shape: reasoning under two names, content as a list of parts, no `finish_reason`, an error
inside the stream, and a whole completion instead of a stream.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import orjson

from circuit.errors import BadResponse, CircuitError, StreamCut
from circuit.providers.messages import Message, Role, TextPart
from circuit.providers.profiles import Profile
from circuit.providers.provider import Finished, ModelChunk, ModelRequest, ReasoningChunk, TextChunk
from circuit.providers.sse import LINE_LIMIT, EventOversize, EventSplitter, ServerEvent
from circuit.providers.strict import satisfies_strict

_FINISH = {"function_call": "tool_calls", "eos": "stop", "end_turn": "stop", "max_tokens": "length"}
_SAMPLING = ("temperature", "top_p", "frequency_penalty", "presence_penalty")
_HIGH = re.compile("[\ud800-\udbff]\\Z")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
_HEAD = max(len(field) for field in _FIELDS)

SCHEMA_INSTRUCTION = "Answer with one JSON value and nothing else. It must fit this JSON Schema:\n"


def request_body(request: ModelRequest, profile: Profile, *, own: bool) -> bytes:
    """The JSON of a streaming request. `own` says that it goes to OpenAI itself and not to a compatible server."""
    messages = [_message(message) for message in request.messages]
    body: dict[str, Any] = {
        "model": request.model,
        "messages": messages,
        "stream": True,
        # Padding against traffic analysis is OpenAI's own; a strict compatible server refuses the unknown key.
        "stream_options": {"include_usage": True} | ({"include_obfuscation": False} if own else {}),
    }
    parameters = request.parameters
    if profile.sampling:
        body |= {name: parameters[name] for name in _SAMPLING if parameters.get(name) is not None}
    if parameters.get("max_tokens") is not None:
        body[profile.max_tokens_key] = parameters["max_tokens"]
    if profile.stop and parameters.get("stop_sequences"):
        body["stop"] = list(parameters["stop_sequences"])
    schema = request.output_schema
    if schema is not None and profile.json_schema:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {
                "name": re.sub(r"[^A-Za-z0-9_-]+", "_", request.schema_name)[:64] or "output",
                "schema": schema,
                "strict": satisfies_strict(schema),
            },
        }
    elif schema is not None:
        messages.append({"role": "system", "content": SCHEMA_INSTRUCTION + orjson.dumps(schema).decode()})
    return orjson.dumps(body)


def _message(message: Message) -> dict[str, Any]:
    # Reasoning is not sent back: no compatible server takes it under a common name.
    text = "".join(part.text for part in message.parts if isinstance(part, TextPart))
    return {"role": Role(message.role).value, "content": text}


class ChatParser:
    """Parses the body of one answer. `in_band` makes an error of what the server reports inside it."""

    def __init__(self, model: str, place: str, in_band: Callable[[Any], CircuitError]) -> None:
        self._model = model
        self._place = place
        self._in_band = in_band
        self._splitter = EventSplitter()
        self._whole: bytearray | None = None
        self._head = b""
        self._chunks = 0
        self._reason: str | None = None
        self._refused = False
        self._usage: dict[str, Any] = {}
        self._held: dict[type[TextChunk] | type[ReasoningChunk], str] = {}
        self.done = False
        """Whether the terminal marker was seen: nothing that matters can follow."""

    @property
    def answered(self) -> bool:
        """Whether the answer itself is whole, though its terminal marker may lack."""
        return self.done or self._reason is not None

    def feed(self, piece: bytes) -> list[ModelChunk]:
        """The chunks that `piece` completes, without the terminal one. Raises `BadResponse` and in-band errors."""
        if len(self._head) < _HEAD:
            undecided = not self._head
            self._head = (self._head + piece[: 2 * _HEAD]).lstrip()[:_HEAD]
            if undecided and self._head[:1] == b"{":
                self._whole = bytearray()
        if self._whole is not None:
            self._whole += piece
            if len(self._whole) > LINE_LIMIT:
                raise BadResponse(f"{self._place} sent an answer of more than {LINE_LIMIT} bytes")
            return []
        try:
            events = self._splitter.feed(piece)
        except EventOversize as oversize:
            raise BadResponse(f"{self._place} sent {oversize}") from None
        chunks: list[ModelChunk] = []
        for event in events:
            if self.done:
                break
            chunks += self._event(event)
        return chunks

    def finish(self) -> list[ModelChunk]:
        """The last chunks, ending with `Finished`, when the body has ended.

        Raises `StreamCut` where the stream has no end of its own, `BadResponse` where it never was one.
        """
        chunks: list[ModelChunk] = []
        if self._whole is not None:
            chunks += self._completion(bytes(self._whole))
        elif not self.done:
            event = self._splitter.flush()
            # What the end of the body cut off counts only if it is whole.
            if event is not None and (event.data.strip() == b"[DONE]" or _is_json(event.data)):
                chunks += self._event(event)
        if not self.answered:
            if not self._chunks and not self._resembles_stream():
                raise BadResponse(f"{self._place} answered with something that is not a chat completion")
            raise StreamCut(f"{self._place} ended its stream before the answer was whole")
        chunks += [kind(text) for kind, text in self._held.items() if text]
        self._held.clear()
        reason = "refusal" if self._refused else self._reason or "stop"
        return [*chunks, Finished(reason, self._model, self._usage)]

    def _resembles_stream(self) -> bool:
        """Whether the body began as an event stream does, as far as it came."""
        return any(self._head.startswith(field) or field.startswith(self._head) for field in _FIELDS)

    def _event(self, event: ServerEvent) -> Iterator[ModelChunk]:
        data = event.data.strip()
        if data.startswith(b"[DONE]"):
            self.done = True
            return
        if not data:
            return
        value = _json(data)
        if not isinstance(value, dict):
            if event.name == "error":
                raise self._in_band(data.decode("utf-8", "replace"))
            raise BadResponse(f"{self._place} sent an event that is not a JSON object")
        chunk = cast("dict[str, Any]", value)
        if event.name == "error" and "error" not in chunk:
            raise self._in_band(chunk)
        self._chunks += 1
        self._look(chunk)
        yield from self._choices(chunk, "delta")

    def _completion(self, body: bytes) -> Iterator[ModelChunk]:
        """A whole completion, from a server that does not stream."""
        value = _json(body.strip())
        if not isinstance(value, dict):
            raise BadResponse(f"{self._place} answered with something that is neither a stream nor a JSON object")
        completion = cast("dict[str, Any]", value)
        self._look(completion)
        choices = completion.get("choices")
        if not isinstance(choices, list) or not choices:
            raise BadResponse(f"{self._place} answered with JSON that is not a chat completion")
        yield from self._choices(completion, "message")
        self.done = True

    def _look(self, chunk: dict[str, Any]) -> None:
        """What is the same in chunks and in whole completions: errors, the model's name, usage."""
        if chunk.get("error"):
            raise self._in_band(chunk["error"])
        if chunk.get("object") == "error":
            raise self._in_band(chunk)
        if isinstance(chunk.get("model"), str) and chunk["model"]:
            self._model = chunk["model"]
        if isinstance(chunk.get("usage"), dict):
            self._usage = _usage(chunk["usage"]) or self._usage

    def _choices(self, chunk: dict[str, Any], key: str) -> Iterator[ModelChunk]:
        choices = chunk.get("choices")
        if choices is None:
            return
        if not isinstance(choices, list):
            raise BadResponse(f"{self._place} sent choices that are not a list")
        for item in cast("list[Any]", choices):
            if not isinstance(item, dict):
                raise BadResponse(f"{self._place} sent a choice that is not an object")
            choice = cast("dict[str, Any]", item)
            if choice.get("index") not in (0, None):
                continue
            if choice.get("error"):
                raise self._in_band(choice["error"])
            said = choice.get(key)
            if isinstance(said, dict):
                yield from self._said(cast("dict[str, Any]", said))
            reason = choice.get("finish_reason")
            if isinstance(reason, str) and reason:
                if reason == "error":
                    raise self._in_band({"message": "the model's answer ended with an error"})
                self._reason = _FINISH.get(reason, reason)

    def _said(self, said: dict[str, Any]) -> Iterator[ModelChunk]:
        reasoning = said.get("reasoning") or said.get("reasoning_content")
        if isinstance(reasoning, str):
            yield from self._text(ReasoningChunk, reasoning)
        content = said.get("content")
        if isinstance(content, str):
            yield from self._text(TextChunk, content)
        elif isinstance(content, list):
            for part in cast("list[Any]", content):
                yield from self._part(part)
        refusal = said.get("refusal")
        if isinstance(refusal, str) and refusal:
            self._refused = True
            yield from self._text(TextChunk, refusal)

    def _part(self, part: Any) -> Iterator[ModelChunk]:
        """One part of content that comes as a list; `thinking` parts are Mistral's."""
        if isinstance(part, str):
            yield from self._text(TextChunk, part)
            return
        if not isinstance(part, dict):
            return
        fields = cast("dict[str, Any]", part)
        if isinstance(fields.get("text"), str):
            yield from self._text(TextChunk, fields["text"])
        elif isinstance(fields.get("refusal"), str):
            self._refused = True
            yield from self._text(TextChunk, fields["refusal"])
        elif isinstance(fields.get("thinking"), list):
            for thought in cast("list[Any]", fields["thinking"]):
                if isinstance(thought, dict) and isinstance(text := cast("dict[str, Any]", thought).get("text"), str):
                    yield from self._text(ReasoningChunk, text)
        elif isinstance(fields.get("thinking"), str):
            yield from self._text(ReasoningChunk, fields["thinking"])

    def _text(self, kind: type[TextChunk] | type[ReasoningChunk], text: str) -> Iterator[ModelChunk]:
        """A chunk of text. Servers written in JavaScript may cut between the two halves of a surrogate pair."""
        text = self._held.pop(kind, "") + text
        if text and _HIGH.search(text):
            self._held[kind] = text[-1]
            text = text[:-1]
        if text:
            yield kind(_joined(text))


def _joined(text: str) -> str:
    """`text` with surrogate pairs as the characters that they stand for; a lone surrogate stays."""
    if text.isascii() or not _PAIR.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _usage(raw: dict[str, Any]) -> dict[str, Any]:
    """The counts under Circuit's names; what the provider does not count is left out."""
    inside = _mapping(raw.get("prompt_tokens_details"))
    outside = _mapping(raw.get("completion_tokens_details"))
    counts = {
        "input_tokens": raw.get("prompt_tokens"),
        "output_tokens": raw.get("completion_tokens"),
        "cached_input_tokens": inside.get("cached_tokens"),
        "reasoning_tokens": outside.get("reasoning_tokens"),
    }
    return {
        name: count
        for name, count in counts.items()
        if isinstance(count, int) and (count or name in ("input_tokens", "output_tokens"))
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _json(data: bytes) -> Any:
    """The value of `data`, or None where it is no JSON. Not orjson's parser: that one takes no lone surrogates, and
    a pair of them may be cut in two by the server."""
    try:
        return json.loads(data.decode("utf-8"), strict=False)
    except (ValueError, RecursionError):
        return None


def _is_json(data: bytes) -> bool:
    return isinstance(_json(data.strip()), dict)
