"""Hand-over: another agent goes on with what one has begun, in the same execution, and answers in its place.

It gets what was asked and what was done so far, and works with its own model, prompts, tools and policies. What must
come out stays what the transition's agent promised: its output schema, if it has one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from circuit.actions.placed import PlacedJournal
from circuit.agents.ports import Journal
from circuit.agents.run import AgentResult, AgentRun, HandOver
from circuit.agents.template import text_of
from circuit.agents.tools import Tool, ToolContext
from circuit.agents.window import transcript
from circuit.errors import ToolLoop
from circuit.events import StreamDelta
from circuit.providers.messages import Message, Role
from circuit.providers.provider import ToolSpec

PREFIX = "hand_over."
MOST_HAND_OVERS = 8
"""How often one execution may be handed over."""
LONGEST_TRANSCRIPT = 100_000
"""How many characters of what was done a successor is told at most, the latest."""
_WHY: Mapping[str, Any] = {
    "type": "object",
    "properties": {"why": {"type": "string", "description": "Why, and what is still to be done."}},
    "required": ["why"],
    "additionalProperties": False,
}

Go = Callable[[str, tuple[Message, ...], Journal, int], Awaitable[AgentResult]]
"""Runs the agent of a name: behind its own system prompt come these messages. The number counts those who took over."""


def hand_over_tool(agent: Mapping[str, Any]) -> Tool:
    """What hands over to `agent` (its definition as JSON)."""
    name = str(agent["id"])
    about = str(agent.get("description") or agent.get("name") or name)

    async def call(arguments: Mapping[str, Any], around: ToolContext) -> Any:
        return f"{name} takes over"

    spec = ToolSpec(PREFIX + name, f"Hand the task over to another agent, which answers in your place: {about}", _WHY)
    return Tool(spec, call, successor=name)


async def handed_over(
    run: AgentRun, first: AgentResult, journal: Journal, go: Go, texts: Mapping[str, Any]
) -> AgentResult:
    """What comes of `first`, the result of `run`, when all to whom it is handed over have had their turn. `texts` are
    the agents' own prompts, by agent. Raises `ToolLoop` where it goes on and on."""
    asked = tuple(message for message in run.messages if message.role != Role.SYSTEM)
    result, names = first, [run.agent_id]
    while (to := result.successor) is not None:
        if len(names) > MOST_HAND_OVERS:
            raise ToolLoop(f"the task was handed over {MOST_HAND_OVERS} times ({' to '.join(names)}): nobody answers")
        await journal.emit(StreamDelta.thinking(f"{to.agent} takes over from {names[-1]}", to.why))
        told = _told(to, names[-1], result, texts.get(to.agent) or {})
        place = PlacedJournal(journal, f">{len(names)}")
        result = _joined(result, await go(to.agent, (*asked, told), place, len(names)))
        names.append(to.agent)
    if len(names) == 1:
        return result
    return replace(result, reasoning={**result.reasoning, "agents": names})


def _told(to: HandOver, giver: str, so_far: AgentResult, texts: Mapping[str, str]) -> Message:
    """What the successor is told beside what was asked. The calls of others are told as text: it may not have their
    tools."""
    done = transcript(so_far.said)[-LONGEST_TRANSCRIPT:]
    return Message.text(Role.USER, text_of("hand_over", texts, agent=giver, why=to.why, transcript=done))


def _joined(before: AgentResult, after: AgentResult) -> AgentResult:
    """Both as one result: the answer of the second, and what both took and said."""
    usage = dict(before.usage)
    for name, count in after.usage.items():
        usage[name] = usage.get(name, 0) + count
    costs = [one.cost for one in (before, after) if one.cost is not None]
    return replace(
        after,
        usage=usage,
        cost=round(sum(costs), 9) if costs else None,
        said=(*before.said, *after.said),
        speakers=(*before.speakers, *after.speakers),
        recap=after.recap or before.recap,
    )
