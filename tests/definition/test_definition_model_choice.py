"""The choice of another model for a run."""

from __future__ import annotations

import pytest

from circuit.definition import load_workflow, model_overrides, parse_model_override
from circuit.errors import InvalidRequest

CUSTOM = {"base_url": "${CUSTOM_BASE_URL}"}
WORKFLOW = load_workflow("""
workflow: x
places: [a]
agents:
  plain: {llm_provider: {type: scripted}}
  own: {llm_provider: {type: custom, model: m, base_url: http://h}}
transitions: {}
""")


@pytest.mark.parametrize(
    ("text", "agent", "provider"),
    [
        ("openai:gpt-4.1", "*", {"type": "openai", "model": "gpt-4.1"}),
        ("plain=openai:ft:gpt-4.1:team=a", "plain", {"type": "openai", "model": "ft:gpt-4.1:team=a"}),
        ("openai:ft=a", "*", {"type": "openai", "model": "ft=a"}),
        ("scripted:x", "*", {"type": "scripted", "model": "x"}),
        ("custom:llama3:8b", "*", {"type": "custom", "model": "llama3:8b", "options": CUSTOM}),
        ("plain=custom:m", "plain", {"type": "custom", "model": "m", "options": CUSTOM}),
    ],
)
def test_choices(text: str, agent: str, provider: dict[str, object]) -> None:
    assert parse_model_override(text) == (agent, provider)
    assert parse_model_override(text, WORKFLOW) == (agent, provider)


def test_an_agent_with_an_address_of_its_own_keeps_it() -> None:
    assert parse_model_override("own=custom:m", WORKFLOW) == ("own", {"type": "custom", "model": "m"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpt-4.1", "write TYPE:NAME"),
        ("", "write TYPE:NAME"),
        ("openai:", "write TYPE:NAME"),
        (":m", "write TYPE:NAME"),
        ("=openai:m", "write TYPE:NAME"),
        ("opnai:m", "did you mean openai?"),
        ("azure:m", "'azure' is not a provider that runs here"),
        ("plane=openai:m", "has no agent 'plane' (did you mean plain?)"),
        ("openai:" + "m" * 501, "500 characters"),
    ],
)
def test_what_is_no_choice(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_model_override(text, WORKFLOW)
    assert message in caught.value.message


def test_choices_of_a_run_together() -> None:
    assert model_overrides(["plain=openai:a", "openai:b"], WORKFLOW) == {"*": {"type": "openai", "model": "b"}}
    assert model_overrides(["openai:b", "own=scripted:c"], WORKFLOW) == {
        "*": {"type": "openai", "model": "b"},
        "own": {"type": "scripted", "model": "c"},
    }
    assert model_overrides(["custom:m"], WORKFLOW) == {
        "*": {"type": "custom", "model": "m", "options": CUSTOM},
        "own": {"type": "custom", "model": "m"},
    }


def test_where_no_model_answers_none_is_chosen() -> None:
    alone = load_workflow("workflow: x\nplaces: [a]\ntransitions: {}\n")
    with pytest.raises(InvalidRequest, match="x has no agents"):
        model_overrides(["openai:m"], alone)
