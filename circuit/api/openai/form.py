"""What a request to the endpoint for chat clients may say, and what it asks for.

What a request names and this endpoint cannot do is refused where the answer would be another one without it; what only
hints (`seed`, `store`) is taken and has no effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, cast

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from circuit.agents.chat import messages_of
from circuit.definition.tool_canonical import capability_json
from circuit.definition.tool_document import Capability
from circuit.errors import InvalidInput, InvalidRequest
from circuit.net.colour import Colour
from circuit.net.contradiction import contradiction

_SAME_NAME = ("temperature", "top_p", "frequency_penalty", "presence_penalty", "reasoning_effort")
_MOST_FUNCTIONS = 128


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class Function(_Part):
    """A function of the client's."""

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(_Part):
    type: Literal["function"]
    function: Function


class Named(_Part):
    name: str


class Choice(_Part):
    type: Literal["function"]
    function: Named


class JsonSchema(_Part):
    name: str = "output"
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class ResponseFormat(_Part):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(_Part):
    include_usage: bool = False


class Sampling(_Part):
    """What both forms have."""

    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(ge=0, le=1)] = None
    frequency_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    presence_penalty: Annotated[float | None, Field(ge=-2, le=2)] = None
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    metadata: dict[str, Any] | None = None
    user: str | None = None
    template: str | None = None
    capabilities: list[Capability] | None = None
    n: Literal[1] | None = None
    logit_bias: Annotated[dict[str, Any] | None, Field(max_length=0)] = None


class ChatForm(Sampling):
    """The body of a chat completion."""

    messages: list[dict[str, Any]]
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    reasoning_effort: Literal["minimal", "low", "medium", "high"] | None = None
    tools: Annotated[list[Tool] | None, Field(max_length=_MOST_FUNCTIONS)] = None
    tool_choice: Literal["auto", "none", "required"] | Choice | None = None
    functions: Annotated[list[Function] | None, Field(max_length=_MOST_FUNCTIONS)] = None
    function_call: Literal["auto", "none"] | Named | None = None
    response_format: ResponseFormat | None = None
    logprobs: Literal[False] | None = None
    modalities: list[Literal["text"]] | None = None
    audio: None = None


def _only_text(prompt: Any) -> Any:
    """The text in a list of one; every other list asks for several answers, or has tokens of one model."""
    if isinstance(prompt, list):
        texts = cast("list[Any]", prompt)
        if len(texts) != 1 or not isinstance(texts[0], str):
            raise PydanticCustomError("prompt", "write one text, or a list of one text")
        return texts[0]
    return prompt


class CompletionForm(Sampling):
    """The body of an older completion."""

    prompt: Annotated[str, BeforeValidator(_only_text)]
    suffix: None = None
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    logprobs: None = None


_CHAT: TypeAdapter[ChatForm] = TypeAdapter(ChatForm)
_COMPLETION: TypeAdapter[CompletionForm] = TypeAdapter(CompletionForm)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request asks for. `older` says that calls are answered in the form before `tools`; `changes` are those of
    a consultation, `subjects` are whom it is about."""

    model: str
    messages: Sequence[Mapping[str, Any]]
    stream: bool = False
    include_usage: bool = False
    older: bool = False
    template: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    subjects: tuple[str, ...] = ()


def chat_wish(body: bytes, default_model: str | None) -> Wish:
    """What a chat completion asks for. Raises `InvalidRequest`; its details name the parameter."""
    form = _read(_CHAT, body)
    changes = _sampling(form, form.max_completion_tokens or form.max_tokens)
    if form.reasoning_effort is not None:
        changes["llm_config"]["reasoning_effort"] = form.reasoning_effort
    functions = [tool.function for tool in form.tools or ()] or list(form.functions or ())
    if functions:
        changes["functions"] = [function.model_dump(exclude_none=True) for function in functions]
        changes["tool_choice"] = _choice(form)
    schema = _schema(form.response_format)
    if schema is not None:
        changes["output_schema"] = schema
    try:
        messages_of(form.messages)
    except InvalidInput as error:
        raise _refused("messages", error.message) from None
    older = not form.tools and bool(form.functions)
    return _wish(form, form.messages, changes, default_model, older=older)


def completion_wish(body: bytes, default_model: str | None) -> Wish:
    """What an older completion asks for. Raises as `chat_wish` does."""
    form = _read(_COMPLETION, body)
    if not form.prompt:
        raise _refused("prompt", "prompt is empty")
    return _wish(form, [{"role": "user", "content": form.prompt}], _sampling(form, form.max_tokens), default_model)


def _wish(
    form: Sampling,
    messages: Sequence[Mapping[str, Any]],
    changes: Mapping[str, Any],
    default_model: str | None,
    *,
    older: bool = False,
) -> Wish:
    model = form.model or default_model or (form.template and f"agent:{form.template}")
    if not model:
        raise _refused(
            "model",
            "model is missing: name an agent (agent:ID), a workflow (workflow:ID) or TYPE:MODEL. One for requests that"
            " name none is CIRCUIT_DEFAULT_MODEL of the server",
        )
    return Wish(
        model,
        messages,
        bool(form.stream),
        form.stream_options is not None and form.stream_options.include_usage,
        older,
        form.template,
        {name: value for name, value in changes.items() if value not in ({}, None)},
        form.metadata or {},
        (form.user,) if form.user else (),
    )


def _read(adapter: TypeAdapter[Any], body: bytes) -> Any:
    try:
        value = orjson.loads(body)
    except ValueError:
        raise InvalidRequest("the body of the request is not JSON") from None
    if not isinstance(value, dict):
        raise InvalidRequest("the body of the request must be a JSON object")
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        # The names of a union's branches are no part of the request.
        path = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or part.isidentifier())
        raise _refused(path.partition(".")[0] or None, f"{path or 'the body'}: {first['msg']}") from None


def _sampling(form: Sampling, most_tokens: int | None) -> dict[str, Any]:
    config = {name: value for name in _SAME_NAME if (value := getattr(form, name, None)) is not None}
    if most_tokens is not None:
        config["max_tokens"] = most_tokens
    if form.stop:
        config["stop_sequences"] = [form.stop] if isinstance(form.stop, str) else list(form.stop)
    changes: dict[str, Any] = {"llm_config": config}
    if form.capabilities is not None:
        changes["capabilities"] = [capability_json(entry) for entry in form.capabilities]
    return changes


def _choice(form: ChatForm) -> str:
    chosen = form.tool_choice if form.tools else form.function_call
    if isinstance(chosen, Choice):
        return chosen.function.name
    return chosen.name if isinstance(chosen, Named) else chosen or "auto"


def _schema(wanted: ResponseFormat | None) -> dict[str, Any] | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return {"type": "object"}
    if wanted.json_schema is None:
        raise _refused("response_format", "response_format of the type json_schema has no json_schema")
    schema = wanted.json_schema.schema_
    try:
        Colour("response_format", schema)
    except ValueError as error:
        raise _refused("response_format", f"response_format: {error}") from None
    if why := contradiction(schema):
        raise _refused("response_format", f"response_format: nothing satisfies its schema: {why}")
    return schema


def _refused(parameter: str | None, message: str) -> InvalidRequest:
    return InvalidRequest(message, details={"param": parameter} if parameter else {})
