"""The workflow that nobody writes: one agent is asked, and answers.

Whoever asks an agent or a model outside of any workflow gets a case of it, so that such an execution is as durable as
any other, with its stream, its journal and its history. Its id holds a colon, which no file's can.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from circuit.definition.canonical import DEFAULT_TIMEOUT_SECONDS

ACTION = "consultation"
ASKED, ANSWERED, FAILED = "asked", "answered", "failed"
MODEL = "model"
"""The agent that stands for a model alone; the start of the case says which."""


def consultation(agent_id: str, agents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The canonical document of asking `agent_id`. `agents` are its definition and those of its colleagues."""
    ask = {
        "type": ACTION,
        "agent_id": agent_id,
        "input_mapping": {"messages": "data.messages"},
        "output_mapping": {"data.answer": "answer"},
        "required": True,
        "timeout_seconds": DEFAULT_TIMEOUT_SECONDS,
    }
    return {
        "workflow": f"agent:{agent_id}",
        "name": agents[agent_id].get("name") or agent_id,
        "description": "",
        "places": {
            ASKED: {"initial": True},
            ANSWERED: {"terminal": True},
            FAILED: {"terminal": True, "outcome": "failed"},
        },
        "agents": {
            name: {key: value for key, value in document.items() if key != "id"} for name, document in agents.items()
        },
        "transitions": {
            "answer": {
                "from_places": [{"place": ASKED, "weight": 1, "mode": "consume"}],
                "to_places": [{"place": ANSWERED, "weight": 1}],
                "agent_execution": ask,
                "on_failure": FAILED,
            }
        },
    }


def bare_model() -> dict[str, Any]:
    """The canonical document of asking a model alone. Who starts the case says which, in the place of the agent's."""
    agent = {
        "name": MODEL,
        "description": "",
        "llm_provider": {"type": "scripted", "model": "none", "options": {}},
        "prompts": {"system": "", "user_template": "{input_data}", "context_instructions": ""},
    }
    return {**consultation(MODEL, {MODEL: agent}), "workflow": f"{MODEL}:"}


def is_consultation(workflow_id: str) -> bool:
    """Whether this is the id of such a workflow."""
    return ":" in workflow_id
