"""An agent's conversation in one execution: what it is told of earlier runs, and what its firing adds to it.

How far it is told is journalled, so that a run which starts again begins from the same messages however many were added
meanwhile by others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

import orjson

from circuit.agents.ports import Journal, Memory
from circuit.agents.run import AgentResult
from circuit.agents.session import recap
from circuit.engine.action import ActionCall, Exchange
from circuit.engine.conversations import conversation_id
from circuit.engine.execution import EXCHANGE_LIMIT
from circuit.ids import parse_numbered
from circuit.providers.messages import (
    Message,
    Role,
    ToolCallPart,
    calls_of,
    message_from,
    message_json,
    text_of,
)
from circuit.value import dataclass

STEP = "conversation"
_SUMMARY = "summary"

Memories = Callable[[int, UUID], Memory]
"""What remembers a conversation of a tenant."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """`recalled` is what the agent is told of earlier runs, `upto` the number of the last message known with each."""

    id: UUID
    agent_id: str
    token: int | None
    recalled: tuple[Message, ...]
    upto: tuple[int, ...]

    @classmethod
    async def open(
        cls, agent: Mapping[str, Any], call: ActionCall, journal: Journal, memories: Memories
    ) -> Conversation | None:
        """The conversation that `agent` goes on with, if it keeps one."""
        scope = agent.get("conversation")
        if scope is None:
            return None
        token = _token(call) if scope == "token" else None
        which = conversation_id(call.key, str(agent["id"]), token)
        memory = memories(call.key.tenant, which)
        begun = journal.recorded(STEP)
        if begun is None:
            begun = await journal.record(STEP, {"messages": await memory.length()})
        known = await memory.recall(begun["messages"]) if begun["messages"] else ()
        kept = paired([(number, told(said)) for number, said in known])
        return cls(which, str(agent["id"]), token, tuple(one for _, one in kept), tuple(number for number, _ in kept))

    def before(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """The messages of a run, with what is recalled behind those of the system."""
        systems = sum(message.role == Role.SYSTEM for message in messages)
        return (*messages[:systems], *self.recalled, *messages[systems:])

    def exchange(self, asked: Sequence[Message], result: AgentResult) -> Exchange:
        """What the run that was `asked` adds: a summary of what had to go, the question, the calls, the answer."""
        return Exchange(self.id, self.agent_id, self.token, added(asked, result, self.agent_id, self.upto))


def added(asked: Sequence[Message], result: AgentResult, agent_id: str, upto: Sequence[int]) -> list[dict[str, Any]]:
    """What a run that was `asked` adds to a conversation of `agent_id`, as JSON. `upto` are the numbers of the last
    messages that were known with each that was recalled."""
    said = [message_json(message) for message in asked]
    for message, speaker in zip(result.said, result.speakers, strict=True):
        by = {} if speaker == agent_id else {"agent_id": speaker}
        said.append({**message_json(message), **by})
    if len(orjson.dumps(said)) > EXCHANGE_LIMIT // 2:
        # Results of tools may be large without end; what was asked and answered counts.
        said = [*said[: len(asked)], *said[-1:]]
    if result.recap is not None:
        summary = message_json(Message.text(Role.USER, result.recap.text))
        said.insert(0, {**summary, "role": _SUMMARY, "covers": upto[result.recap.recalled - 1]})
    return said


def paired(known: Sequence[tuple[int, Message]]) -> list[tuple[int, Message]]:
    """What is known, without calls whose results are not and results whose calls are not: no provider takes those."""
    kept: list[tuple[int, Message]] = []
    for at, (number, message) in enumerate(known):
        if message.role == Role.TOOL:
            if not (kept and calls_of(kept[-1][1].parts)):
                continue
        elif calls_of(message.parts) and not (at + 1 < len(known) and known[at + 1][1].role == Role.TOOL):
            parts = tuple(part for part in message.parts if not isinstance(part, ToolCallPart))
            if not parts:
                continue
            message = Message(message.role, parts)
        kept.append((number, message))
    return kept


def told(said: Mapping[str, Any]) -> Message:
    """A message, as the memory of a conversation has it, for a model."""
    if said["role"] == _SUMMARY:
        return recap(text_of(message_from({**said, "role": "user"}).parts))
    return message_from(said)


def _token(call: ActionCall) -> int | None:
    """The token that the firing is about: the first one that it consumes."""
    first = parse_numbered(str(call.tokens[0]["id"])) if call.tokens else None
    return None if first is None else first.number
