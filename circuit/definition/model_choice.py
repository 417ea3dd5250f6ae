"""The choice of another model for a run: `--model TYPE:NAME`, `--model AGENT=TYPE:NAME`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from circuit.definition.fault_text import suggestion
from circuit.definition.workflow import Workflow
from circuit.errors import InvalidRequest

EVERY_AGENT = "*"
TYPES = ("openai", "anthropic", "google", "ollama", "custom", "vllm", "scripted")
CUSTOM_OPTIONS = {"base_url": "${CUSTOM_BASE_URL}"}
"""The options of `custom:NAME` where no agent has its own."""


def parse_model_override(text: str, workflow: Workflow | None = None) -> tuple[str, dict[str, Any]]:
    """The agent (`*` is every agent) and the provider, as JSON `{type, model, options}`, that `text` asks for.

    `custom:NAME` takes its address from `CUSTOM_BASE_URL`, and its key from `CUSTOM_API_KEY` if that is set, unless the
    agent's own provider is custom: then it keeps them and only the model changes. Raises `InvalidRequest`.
    """
    agent, equals, choice = text.partition("=")
    if not equals or ":" in agent:
        agent, choice = EVERY_AGENT, text
    kind, colon, model = choice.partition(":")
    kind, model, agent = kind.strip(), model.strip(), agent.strip()
    if not colon or not model or not kind or not agent:
        raise InvalidRequest(
            f"{text!r} does not name a model: write TYPE:NAME, such as openai:gpt-4.1-mini, or AGENT=TYPE:NAME."
        )
    if kind not in TYPES:
        raise InvalidRequest(f"{kind!r} is not a provider that runs here ({suggestion(kind, TYPES, 'types')}).")
    if "\0" in model or len(model) > 500:
        raise InvalidRequest("the name of a model has 500 characters at most and no NUL.")
    if (
        workflow is not None
        and not workflow.agents
        and not any(action.kind == "subworkflow" for action in workflow.actions.values())
    ):
        raise InvalidRequest(f"workflow {workflow.id} has no agents, so no model answers in it: leave --model out.")
    if workflow is not None and agent != EVERY_AGENT and agent not in workflow.agents:
        hint = suggestion(agent, tuple(workflow.agents), "agents")
        raise InvalidRequest(f"workflow {workflow.id} has no agent {agent!r} ({hint}).")
    own: list[str] = []
    if workflow is not None:
        own = [item.provider.type for name, item in workflow.agents.items() if agent in (EVERY_AGENT, name)]
    chosen: dict[str, Any] = {"type": kind, "model": model}
    if kind == "custom" and not (own and all(provider == "custom" for provider in own)):
        chosen["options"] = dict(CUSTOM_OPTIONS)
    return agent, chosen


def model_overrides(texts: Iterable[str], workflow: Workflow) -> dict[str, dict[str, Any]]:
    """The providers that the texts put in place of the agents' own, by agent id or `*`; later texts win.

    Where some of all agents have a custom provider of their own, each of these gets an entry that keeps its address.
    Raises `InvalidRequest`.
    """
    chosen: dict[str, dict[str, Any]] = {}
    for text in texts:
        agent, provider = parse_model_override(text, workflow)
        if agent == EVERY_AGENT:
            chosen.clear()
            if "options" in provider:
                bare: Mapping[str, Any] = {"type": provider["type"], "model": provider["model"]}
                customs = [name for name, item in workflow.agents.items() if item.provider.type == "custom"]
                chosen.update({name: dict(bare) for name in customs})
        chosen[agent] = provider
    return chosen
