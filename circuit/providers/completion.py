"""OpenAI's chat completions without IO: the body of a request, and the parser of what comes back.

`ChatParser.feed` takes the bytes of an answer, cut anywhere, and gives chunks. It accepts what compatible servers
send beside OpenAI's own shape: reasoning under several names, content as a list of parts, no `finish_reason`, calls
that all have the index 0 or none, usage in other places, an error inside the stream, and a whole completion instead of
a stream.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, cast

import orjson

from circuit.errors import BadResponse
from circuit.providers.assembly import Kind
from circuit.providers.messages import (
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    state_of,
    text_of,
)
from circuit.providers.parser import InBand, Parser, count_of, counts, mapping, parsed, sequence, text, written
from circuit.providers.profiles import Profile, profile_of
from circuit.providers.provider import Finished, ModelChunk, ModelRequest
from circuit.providers.sse import ServerEvent
from circuit.providers.strict import satisfies_strict
from circuit.providers.thoughts import Thoughts
from circuit.providers.wire import (
    SAMPLING,
    arguments_of,
    data_url,
    plain_name,
    schema_prompt,
    system_text,
    takes_schema,
    wire_id,
    wire_name,
)

PROTOCOL = "openai-chat"
_LONGEST_ID = 40
_REASONING = ("reasoning_content", "reasoning", "reasoning_text", "thinking")
_DETAILS = "reasoning_details"
_FINISH = {
    "function_call": "tool_calls",
    **dict.fromkeys(("eos", "eos_token", "end_turn", "stop_sequence"), "stop"),
    **dict.fromkeys(("max_tokens", "model_length", "model_context_window_exceeded"), "length"),
    "sensitive": "content_filter",
}
"""What servers say in the place of OpenAI's own words."""
_FAILED = ("error", "network_error", "insufficient_system_resource")


class ChatWire:
    """The protocol of `/chat/completions`, as it is spoken with `server`: a name by which this is told from others."""

    def __init__(self, server: str = "") -> None:
        self._server = server

    def path(self, request: ModelRequest) -> str:
        return "/chat/completions"

    def body(self, request: ModelRequest, *, own: bool) -> dict[str, Any]:
        return request_body(request, profile_of(request.model), own=own, server=self._server)

    def parser(self, request: ModelRequest, place: str, in_band: InBand) -> Parser:
        return ChatParser(request, place, in_band, self._server)


def request_body(request: ModelRequest, profile: Profile, *, own: bool, server: str = "") -> dict[str, Any]:
    """The JSON of a streaming request. `own` says that it goes to OpenAI itself and not to a compatible `server`."""
    schema = request.output_schema
    native = takes_schema(request, profile, own)
    prompted = schema_prompt(schema) if schema is not None and not native else ""
    body: dict[str, Any] = {
        "model": request.model,
        "messages": list(_messages(request.messages, prompted, own, server)),
        "stream": True,
        # Padding against traffic analysis is OpenAI's own; a strict compatible server refuses the unknown key.
        "stream_options": {"include_usage": True} | ({"include_obfuscation": False} if own else {}),
    }
    parameters = request.parameters
    if profile.sampling:
        body |= {name: parameters[name] for name in SAMPLING if parameters.get(name) is not None}
    if parameters.get("max_tokens") is not None:
        body[profile.max_tokens_key] = parameters["max_tokens"]
    if profile.stop and parameters.get("stop_sequences"):
        body["stop"] = list(parameters["stop_sequences"])
    if parameters.get("reasoning_effort"):
        body["reasoning_effort"] = parameters["reasoning_effort"]
    # Where none may be called they are of use to a provider's cache alone; many servers take no schema beside them.
    if request.tools and (own or request.tool_choice != "none" or request.output_schema is None):
        body["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": wire_name(tool.name),
                    "description": tool.description,
                    "parameters": tool.parameters,
                },
            }
            for tool in request.tools
        ]
        body |= _choice(request.tool_choice)
    if schema is not None and native:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {
                "name": re.sub(r"[^A-Za-z0-9_-]+", "_", request.schema_name)[:64] or "output",
                "schema": schema,
                "strict": satisfies_strict(schema),
            },
        }
    return body


def _messages(messages: Sequence[Message], prompted: str, own: bool, server: str) -> Iterator[dict[str, Any]]:
    """The messages of a request, and what else it says. A compatible server gets one message of the system, in front:
    the templates of many models take no other."""
    if not own and (system := system_text(messages, prompted)):
        yield {"role": "system", "content": system}
    for message in messages:
        if own or message.role != Role.SYSTEM:
            yield from _entries(message, own, server)
    if own and prompted:
        yield {"role": "system", "content": prompted}


def _choice(choice: str) -> dict[str, Any]:
    if choice == "auto":
        return {}
    if choice in ("required", "none"):
        return {"tool_choice": choice}
    return {"tool_choice": {"type": "function", "function": {"name": wire_name(choice)}}}


def _entries(message: Message, own: bool, server: str) -> Iterator[dict[str, Any]]:
    """The messages of the protocol that `message` becomes: each result of a tool is one of its own."""
    results = [part for part in message.parts if isinstance(part, ToolResultPart)]
    for result in results:
        yield {"role": "tool", "tool_call_id": _id(result.call_id, own), "content": result.content}
    rest = [part for part in message.parts if not isinstance(part, ToolResultPart)]
    if not rest and results:
        return
    calls = [part for part in rest if isinstance(part, ToolCallPart)]
    entry: dict[str, Any] = {"role": Role(message.role).value, "content": _content(rest)}
    if calls:
        entry["content"] = entry["content"] or None
        entry["tool_calls"] = [_call(call, own, server) for call in calls]
        # Reasoning goes back only where the server gave it and only beside calls: some ask for it there.
        for part in rest:
            if isinstance(part, ReasoningPart) and not own:
                entry |= _thought(part, server)
    yield entry


def _kept(part: ReasoningPart | ToolCallPart, server: str) -> Mapping[str, Any]:
    """What `server` wants back with `part`. What another one said there, it need not know, and many refuse it."""
    kept = state_of(part, PROTOCOL)
    return kept if kept.get("server", server) == server else {}


def _thought(part: ReasoningPart, server: str) -> dict[str, Any]:
    """Reasoning under the name by which it came; what a server tells of it says the text too."""
    kept = _kept(part, server)
    if kept.get(_DETAILS):
        return {_DETAILS: kept[_DETAILS]}
    return {kept["field"]: part.text} if kept.get("field") else {}


def _id(call_id: str, own: bool) -> str:
    """A server gets its own ids back as they are; OpenAI's own are such that they stay."""
    return wire_id(call_id, _LONGEST_ID) if own else call_id


def _call(call: ToolCallPart, own: bool, server: str) -> dict[str, Any]:
    arguments = orjson.dumps(arguments_of(call)).decode()
    function = {"name": wire_name(call.name), "arguments": arguments}
    extra = _kept(call, server).get("extra_content")
    return {"id": _id(call.id, own), "type": "function", "function": function} | (
        {"extra_content": extra} if extra else {}
    )


def _content(parts: Sequence[Part]) -> Any:
    if not any(isinstance(part, ImagePart) for part in parts):
        return text_of(parts)
    return [
        {"type": "text", "text": part.text}
        if isinstance(part, TextPart)
        else {"type": "image_url", "image_url": {"url": data_url(part)}}
        for part in parts
        if isinstance(part, TextPart | ImagePart)
    ]


class ChatParser(Parser):
    """Parses the body of one answer."""

    protocol = PROTOCOL
    answer = "a chat completion"

    def __init__(self, request: ModelRequest, place: str, in_band: InBand, server: str = "") -> None:
        super().__init__(request, place, in_band)
        self._server = server
        self._tools = request.tools
        self._refused = False
        self._begun = False
        self._thoughts = Thoughts()
        self._slots: dict[int | str, tuple[str, int]] = {}
        self._last: int | str | None = None

    def event(self, event: ServerEvent) -> Iterator[ModelChunk]:
        data = event.data.strip()
        if data.startswith(b"[DONE]"):
            if not self._begun:
                raise BadResponse(f"{self.place} ended its stream without an answer in it")
            self.done = True
            if self._refused:
                self.reason = "refusal"
            return
        if not data:
            return
        chunk = self.object_of(event)
        if event.name == "error" and "error" not in chunk:
            raise self.in_band(chunk)
        self._look(chunk)
        yield from self._choices(chunk, "delta")

    def whole(self, value: Any) -> Iterator[ModelChunk]:
        completion = mapping(value)
        self._look(completion)
        if not sequence(completion.get("choices")):
            raise BadResponse(f"{self.place} answered with JSON that is not a chat completion")
        yield from self._choices(completion, "message")
        self.done = True

    def _finished(self) -> Finished:
        self._thoughts.close()
        return super()._finished()

    def _look(self, chunk: Mapping[str, Any]) -> None:
        """What is the same in chunks and in whole completions: errors, the model's name, usage."""
        if chunk.get("error"):
            raise self.in_band(chunk["error"])
        if chunk.get("object") == "error":
            raise self.in_band(chunk)
        self.model = text(chunk.get("model")) or self.model
        # Groq's own account.
        own = mapping(chunk.get("x_groq"))
        if own.get("error"):
            raise self.in_band(own["error"])
        self._count(chunk.get("usage") or own.get("usage"))

    def _count(self, account: Any) -> None:
        usage = mapping(account)
        if read := usage_of(usage):
            self.usage, self.raw_usage = read, dict(usage)

    def _choices(self, chunk: Mapping[str, Any], key: str) -> Iterator[ModelChunk]:
        choices = chunk.get("choices")
        if choices is None:
            return
        if not isinstance(choices, list):
            raise BadResponse(f"{self.place} sent choices that are not a list")
        for item in cast("list[Any]", choices):
            if not isinstance(item, dict):
                raise BadResponse(f"{self.place} sent a choice that is not an object")
            choice = cast("dict[str, Any]", item)
            if choice.get("index") not in (0, None):
                continue
            self._begun = True
            if choice.get("error"):
                raise self.in_band(choice["error"])
            # Moonshot's place for it.
            self._count(choice.get("usage"))
            yield from self._said(mapping(choice.get(key)))
            if reason := text(choice.get("finish_reason")):
                if reason in _FAILED:
                    raise self.in_band({"message": f"the model's answer ended with an error ({reason})"})
                self.reason = "refusal" if self._refused else _FINISH.get(reason, reason)

    def _said(self, said: Mapping[str, Any]) -> Iterator[ModelChunk]:
        detailed = self._thoughts.take(said.get(_DETAILS))
        for name in _REASONING:
            if thought := text(said.get(name)):
                yield from self.assembly.reasoning("reasoning", thought)
                self._note("reasoning", "reasoning", field=name)
                break
        else:
            if detailed:
                yield from self.assembly.reasoning("reasoning", detailed)
        if said.get(_DETAILS) and self._thoughts.entries:
            self._note("reasoning", "reasoning", **{_DETAILS: self._thoughts.entries})
        content = said.get("content")
        if isinstance(content, str):
            if content:
                yield from self.assembly.text("text", content)
        else:
            for part in sequence(content):
                yield from self._part(part)
        if refusal := text(said.get("refusal")):
            self._refused = True
            yield from self.assembly.text("text", refusal)
        for call in sequence(said.get("tool_calls")):
            yield from self._call(mapping(call))
        if legacy := mapping(said.get("function_call")):
            yield from self._call({"index": 0, "function": legacy})

    def _part(self, part: Any) -> Iterator[ModelChunk]:
        """One part of content that comes as a list; `thinking` parts are Mistral's."""
        fields = mapping(part)
        if isinstance(part, str):
            yield from self.assembly.text("text", part)
        elif isinstance(fields.get("text"), str):
            yield from self.assembly.text("text", fields["text"])
        elif isinstance(fields.get("refusal"), str):
            self._refused = True
            yield from self.assembly.text("text", fields["refusal"])
        elif isinstance(fields.get("thinking"), str):
            yield from self.assembly.reasoning("reasoning", fields["thinking"])
        else:
            for thought in sequence(fields.get("thinking")):
                yield from self.assembly.reasoning("reasoning", text(mapping(thought).get("text")))

    def _call(self, call: Mapping[str, Any]) -> Iterator[ModelChunk]:
        """A piece of a call. A new id at an occupied index is a new call; a piece without an index and an id goes on
        with the last one."""
        function = mapping(call.get("function"))
        call_id = text(call.get("id"))
        arguments = function.get("arguments")
        name = plain_name(self._tools, text(function.get("name")))
        index = call.get("index")
        if not isinstance(index, int):
            index = call_id or (f"unnumbered {self.assembly.calls}" if name or self._last is None else self._last)
        known, number = self._slots.get(index, ("", -1))
        another = call_id and known and call_id != known
        # Whole calls without ids that all claim the same index.
        another = another or (name and not call_id and number >= 0 and self._whole_at(number))
        if number < 0 or another:
            number = self.assembly.calls
        self._slots[index] = (call_id or known, number)
        self._last = index
        # Some servers send the arguments as the object that they stand for.
        said = arguments if isinstance(arguments, str) else written(arguments) if arguments else ""
        yield from self.assembly.call(("call", number), said, call_id=call_id, name=name)
        if extra := call.get("extra_content"):
            self._note(("call", number), "call", extra_content=extra)

    def _note(self, key: Hashable, kind: Kind, **state: Any) -> None:
        self.assembly.note(key, kind, server=self._server, **state)

    def _whole_at(self, number: int) -> bool:
        return isinstance(parsed(self.assembly.said(("call", number)).encode("utf-8", "replace")), dict)


def usage_of(raw: Mapping[str, Any]) -> dict[str, int]:
    """The counts under Circuit's names; what the provider does not count is left out."""
    inside = mapping(raw.get("prompt_tokens_details"))
    outside = mapping(raw.get("completion_tokens_details"))
    answered = count_of(raw.get("completion_tokens"))
    thought = count_of(outside.get("reasoning_tokens", raw.get("reasoning_tokens")))
    whole = count_of(raw.get("total_tokens"))
    if thought and answered is not None and whole == (count_of(raw.get("prompt_tokens")) or 0) + answered + thought:
        # xAI counts what was thought beside the answer, not in it.
        answered += thought
    # DeepSeek's and Moonshot's names for what came from the cache.
    cached = next((raw[name] for name in ("prompt_cache_hit_tokens", "cached_tokens") if name in raw), None)
    return counts(
        input_tokens=raw.get("prompt_tokens"),
        output_tokens=answered,
        cached_input_tokens=inside.get("cached_tokens", cached),
        cache_write_tokens=inside.get("cache_write_tokens"),
        reasoning_tokens=thought,
    )
