"""Agents as tools of other agents: one is asked, works in a journal of its own inside of the asker's, and answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from circuit.actions.placed import PlacedJournal
from circuit.agents.answer import Answer
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
        self._answers: dict[str, Answer] = {}

    @property
    def spent(self) -> dict[str, Any]:
        """What the answers took that were given in it, to this agent and to those that it asked."""
        usage: Counter[str] = Counter()
        costs = [answer.cost for answer in self._answers.values() if answer.cost is not None]
        for answer in self._answers.values():
            usage.update({name: count for name, count in answer.usage.items() if isinstance(count, int)})
        return {"usage": dict(usage), **({"cost": round(sum(costs), 9)} if costs else {})}

    def recorded(self, step: str) -> Any:
        return self._noted(step, super().recorded(step))

    async def record(self, step: str, value: Any) -> Any:
        return self._noted(step, await super().record(step, value))

    def _noted(self, step: str, value: Any) -> Any:
        if value is not None and step.startswith(("answer:", "summary:", "held:")):
            self._answers[step] = Answer.from_dict(value)
        return value

    async def emit(self, delta: StreamDelta) -> None:
        fields = delta.fields
        if delta.type is StreamType.CONTENT_CHUNK:
            await super().emit(StreamDelta.thinking(f"agent {self._name}", str(fields["content"])))
        elif delta.type is StreamType.THINKING:
            status = f"agent {self._name}: {fields['status']}"
            await super().emit(StreamDelta(delta.type, {**fields, "status": status}))
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
        try:
            result = await ask(name, (Message.text(Role.USER, str(arguments["task"])),), inner, f"{around.key}>{name}")
        finally:
            around.spent.update(inner.spent)
        return result.answer.text if result.output is None else result.output

    return Tool(agent_spec(agent), call, SECONDS)
