"""Agents as tools of other agents: one is asked, works in a journal of its own inside of the asker's, and answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from circuit.actions.placed import PlacedJournal
from circuit.agents.ports import Journal
from circuit.agents.run import AgentResult
from circuit.agents.tools import Tool, ToolContext
from circuit.events import StreamDelta, StreamType
from circuit.providers.messages import Message, Role
from circuit.providers.provider import ToolSpec

PREFIX = "agent."
SECONDS = 600.0
_ASKED: Mapping[str, Any] = {
    "type": "object",
    "properties": {"task": {"type": "string", "description": "What the agent is to do, with all that it must know."}},
    "required": ["task"],
    "additionalProperties": False,
}

Ask = Callable[[str, tuple[Message, ...], Journal, str], Awaitable[AgentResult]]
"""Runs the agent of a name from these messages on, with this journal, under this execution id."""


class InnerJournal(PlacedJournal):
    """The part of a journal that belongs to one call of an agent. What the agent says is thinking to the readers: the
    answer that counts is the asker's."""

    def __init__(self, outer: Journal, place: str, name: str) -> None:
        super().__init__(outer, place)
        self._name = name

    async def emit(self, delta: StreamDelta) -> None:
        fields = delta.fields
        if delta.type is StreamType.CONTENT_CHUNK:
            await super().emit(StreamDelta.thinking(f"agent {self._name}", str(fields["content"])))
        elif delta.type is StreamType.THINKING:
            status = f"agent {self._name}: {fields['status']}"
            await super().emit(StreamDelta.thinking(status, fields.get("content")))
        elif delta.type in (StreamType.TOOL_CALL, StreamType.TOOL_RESULT):
            named = {**fields, "toolName": f"{self._name}/{fields['toolName']}"}
            await super().emit(StreamDelta(delta.type, named))


def agent_spec(agent: Mapping[str, Any]) -> ToolSpec:
    """`agent` (its definition as JSON) as a model sees it that may ask it."""
    about = str(agent.get("description") or agent.get("name") or agent["id"])
    return ToolSpec(f"{PREFIX}{agent['id']}", f"Ask another agent: {about}", _ASKED)


def agent_tool(agent: Mapping[str, Any], journal: Journal, ask: Ask) -> Tool:
    """`agent` (its definition as JSON) as a tool of the one whose journal this is."""
    name = str(agent["id"])

    async def call(arguments: Mapping[str, Any], around: ToolContext) -> Any:
        place = around.key.rpartition("/")[2]
        inner = InnerJournal(journal, place, name)
        result = await ask(name, (Message.text(Role.USER, str(arguments["task"])),), inner, f"{around.key}>{name}")
        return result.answer.text if result.output is None else result.output

    return Tool(agent_spec(agent), call, SECONDS)
