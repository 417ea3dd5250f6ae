"""What is known of models by their names: which parameters they take, and how they are asked for structured output.

A model that no profile knows is used with the defaults, never refused. Sources: OpenAI's model pages and its guides
on reasoning models and structured outputs, and the errors that its API gives where a parameter does not fit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Profile:
    """How one family of models is called.

    `sampling` says whether temperature, top_p and the penalties may be sent, `stop` whether stop sequences may.
    `json_schema` says whether `response_format` takes a schema; where it does not, the schema goes into the prompt.
    """

    max_tokens_key: str = "max_tokens"
    sampling: bool = True
    stop: bool = True
    json_schema: bool = True


DEFAULT = Profile()
REASONING = Profile(max_tokens_key="max_completion_tokens", sampling=False, stop=False)

_PROFILES: tuple[tuple[re.Pattern[str], Profile], ...] = (
    (re.compile(r"gpt-5(\.\d+)?-chat"), replace(DEFAULT, max_tokens_key="max_completion_tokens")),
    (re.compile(r"(gpt-[5-9]|o[1-9])(?![a-z0-9])"), REASONING),
    (re.compile(r"gpt-4o-2024-05-13$"), replace(DEFAULT, json_schema=False)),
    (re.compile(r"gpt-(4o|4\.\d)(?![a-z0-9])|chatgpt-4o"), DEFAULT),
    (re.compile(r"gpt-(3\.5|4)(?![a-z0-9.])"), replace(DEFAULT, json_schema=False)),
)


def profile_of(model: str) -> Profile:
    """The profile of `model`; a fine-tuned model (`ft:BASE:...`) has its base's, `VENDOR/NAME` that of `NAME`."""
    name = model.lower()
    if name.startswith("ft:"):
        name = name.removeprefix("ft:").partition(":")[0]
    name = name.rpartition("/")[2]
    return next((profile for pattern, profile in _PROFILES if pattern.match(name)), DEFAULT)
