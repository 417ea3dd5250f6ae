"""`direct`: ask, make the calls that the answer asks for, ask again, until an answer makes none, or one that only
whoever asked can make."""

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
        choice = session.run.tool_choice
        for _ in range(self.turns):
            answer = await session.ask(voice=voice, schema=session.run.output_schema, tools=True, choice=choice)
            if answer.finish == "pause":
                session.keep(answer)
                continue
            if not answer.calls or session.handed_out(answer):
                return answer
            choice = "auto"
            await session.act(answer)
            reasoning["calls"] = reasoning.get("calls", 0) + len(answer.calls)
            if session.successor is not None:
                return answer
        raise TurnLimit(f"the agent was not done after {self.turns} turns: raise max_turns, or give it less to do")
