"""What is known of models by their names: which parameters they take, how much they hold, and how they are asked for
structured output.

A model that no profile knows is used with the defaults, never refused. Sources: the providers' model pages and guides
on reasoning, structured outputs and tools, and the errors that their APIs give where a parameter does not fit. How
much a model holds is left open (None) where it was not found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast


@dataclass(frozen=True, slots=True)
class Profile:
    """How one family of models is called.

    `sampling` says whether temperature, top_p and the penalties may be sent, `stop` whether stop sequences may.
    `json_schema` says whether the protocol's own way of structured output takes a schema, `schema_with_tools` whether
    it does beside tools that may be called; where it does not, the schema goes into the prompt. `context` and
    `max_output` are tokens. `reasoning` says that the model thinks where it is told to, `reasoning_levels` that it can
    be told how much.
    """

    max_tokens_key: str = "max_tokens"
    sampling: bool = True
    stop: bool = True
    json_schema: bool = True
    schema_with_tools: bool = False
    context: int | None = None
    max_output: int | None = None
    images: bool = True
    tools: bool = True
    reasoning: bool = False
    reasoning_levels: bool = False
    adaptive_thinking: bool = False


DEFAULT = Profile()
"""Of what no profile knows. What serves open models holds all that they say to a schema, so that they call no tool."""
_OPENAI = Profile(schema_with_tools=True)
REASONING = replace(_OPENAI, max_tokens_key="max_completion_tokens", sampling=False, stop=False, reasoning=True)
_CLAUDE = Profile(context=200_000, reasoning=True, json_schema=False, schema_with_tools=True)
_GEMINI = Profile(context=1_048_576, max_output=65_536, reasoning=True)

_FAMILIES: tuple[tuple[str, Profile], ...] = (
    # OpenAI
    (
        r"gpt-5(\.\d+)?-chat",
        replace(_OPENAI, max_tokens_key="max_completion_tokens", context=128_000, max_output=16_384),
    ),
    (r"gpt-5(?![.a-z0-9])", replace(REASONING, context=400_000, max_output=128_000)),
    (r"(gpt-[5-9])(?![a-z0-9])", replace(REASONING, max_output=128_000)),
    (r"o1-mini|o3-mini", replace(REASONING, context=200_000, max_output=100_000, images=False)),
    (r"(o[1-9])(?![a-z0-9])", replace(REASONING, context=200_000, max_output=100_000)),
    (r"gpt-4o-2024-05-13$", replace(_OPENAI, json_schema=False, context=128_000, max_output=4_096)),
    (r"gpt-4o(?![a-z0-9])|chatgpt-4o", replace(_OPENAI, context=128_000, max_output=16_384)),
    (r"gpt-4\.1(?![a-z0-9])", replace(_OPENAI, context=1_047_576, max_output=32_768)),
    (r"gpt-4\.\d(?![a-z0-9])", _OPENAI),
    (r"gpt-4-turbo", replace(_OPENAI, json_schema=False, context=128_000, max_output=4_096)),
    (r"gpt-4-32k", replace(_OPENAI, json_schema=False, context=32_768, images=False)),
    (r"gpt-4(?![a-z0-9.])", replace(_OPENAI, json_schema=False, context=8_192, images=False)),
    (r"gpt-3\.5(?![a-z0-9.])", replace(_OPENAI, json_schema=False, context=16_385, max_output=4_096, images=False)),
    (r"gpt-oss", replace(DEFAULT, context=131_072, images=False, reasoning=True, reasoning_levels=True)),
    # Anthropic
    (
        r"claude-(2|v1|instant)",
        Profile(context=100_000, max_output=4_096, images=False, json_schema=False, tools=False),
    ),
    (r"claude-3-(opus|sonnet|haiku)", replace(_CLAUDE, max_output=4_096, reasoning=False)),
    (r"claude-3-5", replace(_CLAUDE, max_output=8_192, reasoning=False)),
    (r"claude-3-7", replace(_CLAUDE, max_output=64_000)),
    (r"claude-opus-4-[01](?!\d)|claude-opus-4-2025|claude-opus-4$", replace(_CLAUDE, max_output=32_000)),
    (r"claude-sonnet-4-0|claude-sonnet-4-2025|claude-sonnet-4$", replace(_CLAUDE, max_output=64_000)),
    (r"claude-(opus|sonnet|haiku)-4-5", replace(_CLAUDE, max_output=64_000, json_schema=True)),
    (
        r"claude-(opus|sonnet|haiku|fable|mythos)-4-6",
        replace(_CLAUDE, context=1_000_000, max_output=64_000, json_schema=True, adaptive_thinking=True),
    ),
    (
        r"claude-(opus|sonnet|haiku|fable|mythos)-(4-[7-9]|[5-9])",
        replace(
            _CLAUDE, context=1_000_000, max_output=64_000, json_schema=True, adaptive_thinking=True, sampling=False
        ),
    ),
    # Google
    (r"gemini-(pro|1\.0)", Profile(context=32_760, max_output=8_192, json_schema=False)),
    (r"gemini-1\.5", Profile(context=1_000_000, max_output=8_192)),
    (r"gemini-2\.0", replace(_GEMINI, max_output=8_192, reasoning=False)),
    (r"gemini-2\.5", _GEMINI),
    (r"gemini-[3-9]", replace(_GEMINI, schema_with_tools=True, reasoning_levels=True)),
    # Open models, as Ollama and other servers name them
    (r"llama2|codellama|mistral$|vicuna|orca-mini", replace(DEFAULT, images=False)),
)
_PROFILES = tuple((re.compile(pattern), profile) for pattern, profile in _FAMILIES)


def profile_of(model: str) -> Profile:
    """The profile of `model`; a fine-tuned model (`ft:BASE:...`) has its base's, `VENDOR/NAME` that of `NAME`."""
    name = model.lower()
    if name.startswith("ft:"):
        name = name.removeprefix("ft:").partition(":")[0]
    name = name.rpartition("/")[2]
    return next((profile for pattern, profile in _PROFILES if pattern.match(name)), DEFAULT)


def context_of(model: str, options: Mapping[str, Any]) -> int | None:
    """How many tokens `model` holds as it is set up with the `options` of its provider: what its profile says, or less
    where they say so (vLLM's `max_model_len`, Ollama's `num_ctx`); None where nobody knows."""
    given: Any = options.get("options")
    body = cast("Mapping[str, Any]", given) if isinstance(given, Mapping) else {}
    inner: Any = body.get("options")
    inside = cast("Mapping[str, Any]", inner) if isinstance(inner, Mapping) else {}
    known = (profile_of(model).context, body.get("max_model_len"), inside.get("num_ctx"))
    return min((size for size in known if isinstance(size, int) and size > 0), default=None)


def misfits(
    model: str, parameters: Mapping[str, Any], tools: bool = False, images: bool = False, context: int | None = None
) -> list[str]:
    """What of an agent's settings `model` does not take, in words. Empty for a model that no profile knows."""
    profile = profile_of(model)
    found: list[str] = []
    limit = parameters.get("max_tokens")
    most = profile.max_output or profile.context
    if limit is not None and most is not None and limit > most:
        found.append(f"max_tokens is {limit}, and {model} gives {most} tokens at most")
    if context is not None and profile.context is not None and context > profile.context:
        found.append(f"context_tokens is {context}, and {model} holds {profile.context} tokens")
    if tools and not profile.tools:
        found.append(f"{model} takes no tools")
    if images and not profile.images:
        found.append(f"{model} takes no images")
    if parameters.get("reasoning_effort") and profile is not DEFAULT and not profile.reasoning:
        found.append(f"reasoning_effort is set, and {model} does not reason")
    return found
