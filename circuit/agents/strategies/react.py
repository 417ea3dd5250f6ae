"""`react`: thought, action, observation, until the model answers without a call, or its bound."""

from __future__ import annotations

from typing import Any

from circuit.agents.answer import Answer, Voice
from circuit.agents.session import Session
from circuit.agents.strategies.direct import MOST_TURNS, Direct
from circuit.providers.messages import Message, Role
from circuit.value import dataclass


@dataclass(frozen=True, slots=True)
class React:
    """`turns` is how often the model may be asked."""

    turns: int = MOST_TURNS

    async def answer(self, session: Session, voice: Voice, reasoning: dict[str, Any]) -> Answer:
        told = Message.text(Role.SYSTEM, session.text("react"))
        if told not in session.messages:
            at = next((n for n, message in enumerate(session.messages) if message.role != Role.SYSTEM), 0)
            session.messages.insert(at, told)
        return await Direct(self.turns).answer(session, voice, reasoning)
