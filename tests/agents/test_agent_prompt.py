"""Messages from prompts: every template variable, mapped inputs, JSON that needs no escape."""

from __future__ import annotations

import json
from typing import Any

import pytest

from circuit.agents.prompt import PromptTexts, build_messages, prompt_values
from circuit.errors import InvalidInput
from circuit.expressions.template import TEMPLATE_VARIABLES
from circuit.providers.messages import Role, TextPart, text_of

TOKEN = {"id": "c.1", "place": "submitted", "data": {"content": "x"}, "metadata": {"type": "article"}}


def values(inputs: dict[str, Any] | None = None, tokens: tuple[dict[str, Any], ...] = (TOKEN,)) -> dict[str, str]:
    return prompt_values(inputs=inputs or {}, tokens=tokens, workflow_id="review", history_count=3)


def rendered(prompts: PromptTexts, given: dict[str, str]) -> list[tuple[Role, str]]:
    messages = build_messages(prompts, given)
    return [(m.role, "".join(part.text for part in m.parts if isinstance(part, TextPart))) for m in messages]


def test_every_template_variable_has_a_value() -> None:
    given = values({"content": "Ü", "n": 2})
    assert set(TEMPLATE_VARIABLES) <= given.keys()
    assert given == {
        "content": "Ü",
        "n": "2",
        "input_data": '{"content":"Ü","n":2}',
        "token_id": "c.1",
        "current_place": "submitted",
        "token_metadata": '{"type":"article"}',
        "workflow_id": "review",
        "history_count": "3",
    }


def test_inputs_that_are_not_text_come_as_json() -> None:
    given = values({"list": [1, None], "none": None, "yes": True, "text": "as it is"})
    assert (given["list"], given["none"], given["yes"], given["text"]) == ("[1,null]", "null", "true", "as it is")


def test_an_input_cannot_pass_for_a_template_variable() -> None:
    assert values({"workflow_id": "forged", "token_id": "forged"})["workflow_id"] == "review"


def test_several_tokens_are_all_named() -> None:
    other = TOKEN | {"id": "c.2", "place": "facts", "metadata": {}}
    given = values({}, (TOKEN, other, other))
    assert given["token_id"] == "c.1, c.2, c.2"
    assert given["current_place"] == "submitted, facts"
    assert json.loads(given["token_metadata"]) == [{"type": "article"}, {}, {}]


def test_the_system_message_holds_the_context_instructions_after_a_blank_line() -> None:
    prompts = PromptTexts("You review for {workflow_id}.", "Review: {content}", "Earlier reviews come first.")
    assert rendered(prompts, values({"content": "x {token_id} {y}"})) == [
        (Role.SYSTEM, "You review for review.\n\nEarlier reviews come first."),
        (Role.USER, "Review: x {token_id} {y}"),
    ]


def test_empty_prompts_make_no_system_message() -> None:
    assert rendered(PromptTexts(), values({"a": 1})) == [(Role.USER, '{"a":1}')]
    assert rendered(PromptTexts("", "?", "Only this."), values())[0] == (Role.SYSTEM, "Only this.")


def test_json_in_a_prompt_stays_and_an_absent_optional_input_is_nothing() -> None:
    prompts = PromptTexts(user_template='Answer {"a": {"b": [{absent}]}} {not-a-name} {}')
    assert rendered(prompts, values()) == [(Role.USER, 'Answer {"a": {"b": []}} {not-a-name} {}')]


def test_prompts_in_jinja_look_into_inputs_and_evaluate_nothing_twice() -> None:
    prompts = PromptTexts(
        "For {{ workflow_id }}.", "{% for one in lines %}{{ one.n }};{% endfor %}{{ said }}", "", "jinja"
    )
    inputs = {"lines": [{"n": 1}, {"n": "2"}], "said": "{{ workflow_id }}", "workflow_id": "forged"}
    messages = build_messages(prompts, values(inputs), inputs)
    assert [text_of(message.parts) for message in messages] == ["For review.", "1;2;{{ workflow_id }}"]
    with pytest.raises(InvalidInput, match="cannot be made of these inputs"):
        build_messages(PromptTexts(user_template="{{ said + 1 }}", engine="jinja"), values(inputs), inputs)
