"""Builds the messages of a request from an agent's prompts and what its firing hands over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from circuit.errors import InvalidInput
from circuit.expressions.template import TEMPLATE_VARIABLES, Template
from circuit.providers.messages import Message, Role


@dataclass(frozen=True, slots=True)
class PromptTexts:
    """The three texts of an agent's `prompts`, and the language in which they are written (`jinja`, or plain)."""

    system: str = ""
    user_template: str = "{input_data}"
    context_instructions: str = ""
    engine: str = ""


def prompt_values(
    *,
    inputs: Mapping[str, Any],
    tokens: Sequence[Mapping[str, Any]],
    workflow_id: str,
    history_count: int,
) -> dict[str, str]:
    """What the names in a prompt stand for: the template variables, and each mapped input by its name.

    A template variable hides an input of the same name: what a token carries must not change what the variables say.
    Where a transition consumes several tokens, `token_id`
    and `current_place` name them all, and `token_metadata` is the list of their metadata.
    """
    places = dict.fromkeys(str(token["place"]) for token in tokens)
    metadata: Any = [token["metadata"] for token in tokens]
    values: dict[str, Any] = {
        **inputs,
        "input_data": as_json(inputs),
        "token_id": ", ".join(str(token["id"]) for token in tokens),
        "current_place": ", ".join(places),
        "token_metadata": as_json(metadata[0] if len(tokens) == 1 else metadata),
        "workflow_id": workflow_id,
        "history_count": history_count,
    }
    return {name: value if isinstance(value, str) else as_json(value) for name, value in values.items()}


def build_messages(
    prompts: PromptTexts, values: Mapping[str, str], inputs: Mapping[str, Any] | None = None
) -> tuple[Message, ...]:
    """The system message (the system prompt, a blank line, the context instructions) and the user's message.

    A name without a value is that of an optional input that was not there: it becomes nothing. `inputs` are the mapped
    ones as they are, for prompts that look into them. Raises `InvalidInput` where a prompt cannot be made of these.
    """
    given: Mapping[str, Any] = values
    if prompts.engine:
        # A template variable hides an input of the same name here too.
        given = {**values, **{name: value for name, value in (inputs or {}).items() if name not in TEMPLATE_VARIABLES}}
    texts = [_render(part, given, prompts.engine).strip() for part in (prompts.system, prompts.context_instructions)]
    system = "\n\n".join(text for text in texts if text)
    user = _render(prompts.user_template, given, prompts.engine)
    messages = [Message.text(Role.SYSTEM, system)] if system else []
    return (*messages, Message.text(Role.USER, user))


def as_json(value: Any) -> str:
    """`value` as JSON on one line."""
    return orjson.dumps(value).decode()


def _render(text: str, values: Mapping[str, Any], engine: str) -> str:
    if engine:
        from circuit.expressions.jinja import JinjaTemplate

        try:
            return JinjaTemplate.parse(text).render(dict(values))
        except ValueError as error:
            raise InvalidInput(f"a prompt cannot be made of these inputs: {error}") from None
    template = Template.parse(text)
    return template.render({name: values.get(name, "") for name, _ in template.names})
