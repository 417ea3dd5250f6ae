"""What is said of a case whose agents are scripted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from circuit.cli.terminal import one_line

if TYPE_CHECKING:
    from circuit.definition.workflow import Workflow


def scripted_agents(workflow: Workflow, choices: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The agents that a case with these `choices` runs on the scripted provider."""
    return [
        agent.id
        for agent in workflow.agents.values()
        if (choices.get(agent.id) or choices.get("*") or {"type": agent.provider.type})["type"] == "scripted"
    ]


def scripted_notice(agents: Sequence[str]) -> str:
    """One line that says that no model is asked, and how one would be."""
    who = f"The agent {agents[0]} is" if len(agents) == 1 else f"The agents {', '.join(agents)} are"
    return one_line(
        f"{who} scripted: no model is asked. For a real one: --model openai:NAME with OPENAI_API_KEY set"
        " (and OPENAI_BASE_URL for any OpenAI-compatible server)."
    )
