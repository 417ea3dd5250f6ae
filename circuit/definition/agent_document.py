"""What a workflow file says of agents: providers, parameters, prompts. Together with `document`, the only place where
the keys of the format are named."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from circuit.definition.agent_reference import Body, Headers, SecretReference, Url
from circuit.definition.field import (
    Duration,
    ErrorContext,
    Identifier,
    JsonObject,
    Line,
    Part,
    Text,
    by_kind,
    fault,
    kind_of,
    seconds,
)
from circuit.definition.redaction_document import Rules
from circuit.definition.screening_document import Screening
from circuit.definition.tool_document import Capability, PolicyEntry, Tool

_MODEL = "The name of the model, as the provider spells it."
_API_KEY = "The key, as a reference to the environment: ${NAME}. Literal keys are refused."
_HEADERS = "HTTP headers of each request. Each value holds a reference to the environment, as in Bearer ${NAME}."


def _key_field(variable: str) -> Any:
    return Field(description=f"{_API_KEY} Default: ${{{variable}}}; several keys have commas between them.")


class ProviderLimits(Part):
    """What is sent to one endpoint with one key."""

    concurrency: Annotated[int | None, Field(ge=1, description="Requests at once, of each worker.")] = None
    requests_per_minute: Annotated[
        int | None, Field(ge=1, description="Requests in any minute, of all workers together.")
    ] = None
    tokens_per_minute: Annotated[
        int | None, Field(ge=1, description="Tokens in any minute, of all workers together, as far as known.")
    ] = None


class PriceEntry(Part):
    """What a model costs."""

    input: Annotated[float, Field(ge=0, le=1_000_000, description="US dollars for a million tokens of prompts.")]
    output: Annotated[float, Field(ge=0, le=1_000_000, description="US dollars for a million tokens of answers.")]


class RemoteProvider(Part):
    """What all providers have that are reached over HTTP."""

    price: Annotated[
        PriceEntry | None, Field(description="What the model costs, where that is not known by its name or is another.")
    ] = None
    limits: Annotated[
        ProviderLimits | None, Field(description="Limits beside those that the provider tells in its answers.")
    ] = None
    headers: Annotated[Headers | None, Field(description=_HEADERS)] = None
    options: Annotated[
        Body | None, Field(description="Further keys of the request's body, handed to the provider as they are.")
    ] = None


class OpenAIProvider(RemoteProvider):
    """A model of OpenAI, of Azure's form of it, or of a server that speaks its protocol."""

    type: Annotated[Literal["openai"], Field(description="OpenAI, or a server that speaks its protocol.")]
    model: Annotated[Line, Field(description=_MODEL)]
    api_key: Annotated[SecretReference | None, _key_field("OPENAI_API_KEY")] = None
    base_url: Annotated[
        Url | None, Field(description="Address of the server. Default: OPENAI_BASE_URL, else OpenAI's own.")
    ] = None
    api: Annotated[
        Literal["chat", "responses"] | None,
        Field(description="Which of the two protocols: chat completions (the default) or responses."),
    ] = None
    api_version: Annotated[
        Line | None, Field(description="Version of Azure's form; it goes into the query, and the key into `api-key`.")
    ] = None


class AnthropicProvider(RemoteProvider):
    """A model of Anthropic."""

    type: Annotated[Literal["anthropic"], Field(description="Anthropic's messages.")]
    model: Annotated[Line, Field(description=_MODEL)]
    api_key: Annotated[SecretReference | None, _key_field("ANTHROPIC_API_KEY")] = None
    base_url: Annotated[
        Url | None, Field(description="Address of the server. Default: ANTHROPIC_BASE_URL, else Anthropic's own.")
    ] = None


class GoogleProvider(RemoteProvider):
    """A model of Google's Gemini."""

    type: Annotated[Literal["google"], Field(description="Google's Gemini.")]
    model: Annotated[Line, Field(description=_MODEL)]
    api_key: Annotated[SecretReference | None, _key_field("GOOGLE_API_KEY")] = None
    base_url: Annotated[
        Url | None, Field(description="Address of the server. Default: GOOGLE_BASE_URL, else Google's own.")
    ] = None


class OllamaProvider(RemoteProvider):
    """A model that Ollama serves."""

    type: Annotated[Literal["ollama"], Field(description="Ollama's own protocol.")]
    model: Annotated[Line, Field(description=_MODEL)]
    api_key: Annotated[SecretReference | None, _key_field("OLLAMA_API_KEY")] = None
    base_url: Annotated[
        Url | None, Field(description="Address of the server. Default: OLLAMA_BASE_URL, else http://localhost:11434.")
    ] = None


class CustomProvider(RemoteProvider):
    """A model behind any server that speaks OpenAI's protocol, with its own address and headers."""

    type: Annotated[Literal["custom"], Field(description="A server with its own address, key and headers.")]
    model: Annotated[Line, Field(description=_MODEL)]
    base_url: Annotated[Url, Field(description="Address of the server, up to and without /chat/completions.")]
    api_key: Annotated[SecretReference | None, Field(description=_API_KEY)] = None
    api: Annotated[
        Literal["chat", "responses"] | None,
        Field(description="Which of the two protocols: chat completions (the default) or responses."),
    ] = None


LONGEST_TTL_SECONDS = 366 * 86_400.0
_RESPONSE_HINT = "write {when: text that the prompt holds, or /a regular expression/, response: text or an object}"
_MISSPELT = {"when", "respond", "responses", "text", "output", "answer", "reply", "reasoning", "finish", "message"}


def _check_response(value: JsonObject) -> JsonObject:
    """Refuses what is meant as an instruction and would be taken for a structured answer."""
    if "response" not in value and "error" not in value and "tool_calls" not in value:
        if "when" in value and set(value) <= _MISSPELT:
            raise fault("response", "an answer with `when` needs `response` or `error`", _RESPONSE_HINT)
        return value
    if "response" in value and not isinstance(value["response"], str | dict):
        kind = kind_of(value["response"])
        raise fault("response", f"`response` must be text or a mapping, not {kind}", _RESPONSE_HINT, at=["response"])
    when = value.get("when")
    if "when" not in value:
        return value
    if not isinstance(when, str) or not when:
        raise fault("response", "`when` must be text", _RESPONSE_HINT, at=["when"])
    if len(when) > 2 and when.startswith("/") and when.endswith("/"):
        try:
            re.compile(when[1:-1], re.DOTALL)
        except re.error as error:
            raise fault(
                "response", f"`when` is not a regular expression: {error}", _RESPONSE_HINT, at=["when"]
            ) from None
    return value


def _check_ttl(value: float | str) -> float | str:
    if not 0 < seconds(value) <= LONGEST_TTL_SECONDS:
        raise fault("ttl", "an answer is kept for more than nothing and a year at most")
    return value


def _check_delay(value: float | str) -> float | str:
    if seconds(value) > 3600:
        raise fault("delay", "the pause before a chunk must be an hour at most")
    return value


ScriptedTurn = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[JsonObject, AfterValidator(_check_response), Tag("<mapping>")],
    by_kind("text, an object (a structured answer) or {when, response}", "text", "mapping"),
]
ScriptedResponse = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[JsonObject, AfterValidator(_check_response), Tag("<mapping>")]
    | Annotated[list[ScriptedTurn], Tag("<list>")],
    by_kind("text, an object (a structured answer), {when, response} or a list of turns", "text", "mapping", "list"),
]


class ScriptedProvider(Part):
    """Answers that the file itself holds, for demonstrations and tests; no model is asked."""

    type: Annotated[Literal["scripted"], Field(description="Answers from this file; no model is asked.")]
    model: Annotated[Line, Field(description="A name for the scripted model.")] = "scripted"
    responses: Annotated[
        list[ScriptedResponse] | None,
        Field(
            description="The answers: text, or an object (a structured answer), by turn; or {when, response}, given "
            "where the text `when` (or /regular expression/) is found in the prompt; or {error, message}, which "
            "fails; or {tool_calls: [{name, arguments}]}; or a list, the answers of one execution turn by turn. "
            "Without any, seeded answers that fit the output_schema are made up."
        ),
    ] = None
    delay_seconds: Annotated[
        Duration | None,
        AfterValidator(lambda value: value if value is None else _check_delay(value)),
        Field(description="Pause before each chunk."),
    ] = None
    chunk_size: Annotated[int | None, Field(ge=1, le=100_000, description="Characters a chunk.")] = None
    seed: Annotated[int | None, Field(description="Seed of the answers that are made up.")] = None
    price: Annotated[PriceEntry | None, Field(description="What its answers count as, to try budgets.")] = None


class VllmProvider(Part):
    """A model that Circuit loads itself, with vLLM, in a process beside the worker."""

    type: Annotated[Literal["vllm"], Field(description="A model inside, which vLLM runs.")]
    model: Annotated[Line, Field(description="A folder with the model, or its name on the Hugging Face hub.")]
    options: Annotated[
        JsonObject | None,
        Field(description="vLLM's own engine arguments: quantization, tensor_parallel_size, max_model_len, ..."),
    ] = None
    request: Annotated[
        JsonObject | None,
        Field(description="Further keys of each request, as vLLM's chat completions take them: top_k, seed, ..."),
    ] = None
    tool_parser: Annotated[Line | None, Field(description="vLLM's parser of the model's tool calls.")] = None
    reasoning_parser: Annotated[Line | None, Field(description="vLLM's parser of the model's reasoning.")] = None
    chat_template: Annotated[
        Text | None, Field(description="A chat template, or the file that holds it. Default: the model's own.")
    ] = None
    adapters: Annotated[
        dict[str, Line] | None, Field(description="LoRA adapters: a folder, or a name on the hub, for each name.")
    ] = None
    adapter: Annotated[Line | None, Field(description="Which of the adapters answers. Default: the model itself.")] = (
        None
    )
    start_timeout: Annotated[Duration | None, Field(description="How long loading may take. Default: 15 minutes.")] = (
        None
    )
    sleep_after: Annotated[
        Duration | None,
        Field(description="After how long without a request the model gives its memory back. Default: never."),
    ] = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.adapter is not None and self.adapter not in (self.adapters or {}):
            known = ", ".join(self.adapters or {}) or "none"
            message = f"there is no adapter {self.adapter!r}; there are: {known}"
            raise fault("adapter", message, "name it in adapters", at=["adapter"])
        if "model" in (self.options or {}):
            raise fault("options", "the options may not name another model", "remove it", at=["options", "model"])
        return self


PROVIDERS = ("openai", "anthropic", "google", "ollama", "custom", "scripted", "vllm")


def _provider_tag(value: Any) -> str | None:
    named: Any = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)  # type: ignore[reportUnknownMemberType]
    if named not in PROVIDERS:
        return None
    return f"<{named}>"


LlmProvider = Annotated[
    Annotated[OpenAIProvider, Tag("<openai>")]
    | Annotated[AnthropicProvider, Tag("<anthropic>")]
    | Annotated[GoogleProvider, Tag("<google>")]
    | Annotated[OllamaProvider, Tag("<ollama>")]
    | Annotated[CustomProvider, Tag("<custom>")]
    | Annotated[ScriptedProvider, Tag("<scripted>")]
    | Annotated[VllmProvider, Tag("<vllm>")],
    Discriminator(
        _provider_tag,
        custom_error_type="unknown_type",
        custom_error_message="unknown type",
        custom_error_context=ErrorContext(known=PROVIDERS, expected="a mapping like {type: openai, model: NAME}"),
    ),
]


class LlmConfig(Part):
    """How the model generates. What is left out is the provider's own default."""

    temperature: Annotated[
        float | None, Field(ge=0, le=2, description="0 (the same answer each time) to 2 (very varied).")
    ] = None
    max_tokens: Annotated[int | None, Field(ge=1, description="The longest answer, in tokens.")] = None
    top_p: Annotated[float | None, Field(ge=0, le=1, description="Nucleus sampling: 1 is the full vocabulary.")] = None
    frequency_penalty: Annotated[float | None, Field(ge=-2, le=2, description="Above 0 reduces repetition.")] = None
    presence_penalty: Annotated[float | None, Field(ge=-2, le=2, description="Above 0 encourages new topics.")] = None
    stop_sequences: Annotated[
        list[Annotated[str, Field(min_length=1)]] | None,
        Field(max_length=16, description="Texts at which the model stops."),
    ] = None
    reasoning_effort: Annotated[
        Literal["minimal", "low", "medium", "high"] | None,
        Field(description="How much a reasoning model thinks before it answers."),
    ] = None


_VARIABLES = (
    "{input_data}, {token_id}, {current_place}, {token_metadata}, {workflow_id}, {history_count} and each name of the "
    "input_mapping are replaced; other braces stay."
)


class PromptSet(Part):
    """What the agent is told. Names in braces are replaced; what is put in is never evaluated."""

    system: Annotated[Text | None, Field(description=f"The agent's role. {_VARIABLES}")] = None
    user_template: Annotated[
        Text | None, Field(description=f"The message of each execution. {_VARIABLES} Default: {{input_data}}.")
    ] = None
    context_instructions: Annotated[
        Text | None, Field(description=f"How to treat what is given as context. {_VARIABLES}")
    ] = None
    capabilities: Annotated[
        dict[str, Text] | None, Field(description="Texts in the place of those of the capabilities, by name.")
    ] = None
    engine: Annotated[
        Literal["jinja"] | None,
        Field(description="Prompts in Jinja2, in its sandbox, in the place of plain names in braces."),
    ] = None


class ResponseCache(Part):
    """Identical requests of all agents that say so share one answer for a while."""

    ttl: Annotated[
        Duration, AfterValidator(lambda value: _check_ttl(value)), Field(description="How long an answer is kept.")
    ]


class Agent(Part):
    """An agent: a model with prompts and parameters. Transitions run it by its id."""

    name: Annotated[Line | None, Field(description="Its name for people. Default: the id.")] = None
    description: Annotated[Text | None, Field(description="What it is for.")] = None
    llm_provider: Annotated[LlmProvider, Field(description="Which model of which provider answers.")]
    fallback: Annotated[
        list[LlmProvider] | None, Field(max_length=10, description="Which models answer where the first one fails.")
    ] = None
    llm_config: Annotated[LlmConfig | None, Field(description="How the model generates.")] = None
    prompts: Annotated[PromptSet | None, Field(description="What the agent is told.")] = None
    capabilities: Annotated[
        list[Capability] | None, Field(description="Ways of working: react, chain_of_thought, self_reflection.")
    ] = None
    tools: Annotated[list[Tool] | None, Field(description="Tools that the agent may call.")] = None
    policies: Annotated[list[PolicyEntry] | None, Field(description="What gates the tools.")] = None
    context_tokens: Annotated[
        int | None, Field(ge=256, description="Most tokens of the conversation. Default: what the model holds.")
    ] = None
    images: Annotated[
        list[Identifier] | None,
        Field(
            max_length=20,
            description="Mapped inputs that are images: an address, a data URL, {url}, {data, media_type}, or a list.",
        ),
    ] = None
    conversation: Annotated[
        Literal["token", "case"] | None,
        Field(
            description="What of its earlier runs it is told: those about the same token, or all in the case. Default: "
            "nothing."
        ),
    ] = None
    cache: Annotated[
        ResponseCache | None,
        Field(description="Whether identical requests get the earlier answer. Default: each asks the model."),
    ] = None
    redaction: Annotated[
        Rules | None, Field(description="What is taken out of its events, its logs and what its models are told.")
    ] = None
    screening: Annotated[
        Screening | None,
        Field(description="What is done about what is found in what it is told. Default: the workflow's."),
    ] = None
    output_schema: Annotated[
        JsonObject | None,
        Field(description="JSON Schema of its structured answer; output_mapping maps from its property names."),
    ] = None
