"""`direct`: ask, make the calls that the answer asks for, ask again, until an answer makes none."""

from __future__ import annotations

from typing import Any

from circuit.agents.answer import Answer, Voice
from circuit.agents.session import Session
from circuit.errors import TurnLimit
from circuit.value import dataclass

MOST_TURNS = 20


@dataclass(frozen=True, slots=True)
class Direct:
    """`turns` is how often the model may be asked."""

    turns: int = MOST_TURNS

    async def answer(self, session: Session, voice: Voice, reasoning: dict[str, Any]) -> Answer:
        for _ in range(self.turns):
            answer = await session.ask(voice=voice, schema=session.run.output_schema, tools=True)
            if answer.finish == "pause":
                continue
            if not answer.calls:
                return answer
            await session.act(answer)
            reasoning["calls"] = reasoning.get("calls", 0) + len(answer.calls)
        raise TurnLimit(f"the agent was not done after {self.turns} turns: raise max_turns, or give it less to do")
