"""`direct`: ask, make the calls that the answer asks for, ask again, until an answer makes none, or one that only
whoever asked can make."""

from __future__ import annotations

from typing import Any

from circuit.agents.answer import Answer, Voice
from circuit.agents.session import Session
from circuit.errors import TurnLimit
from circuit.value import dataclass, replace

MOST_TURNS = 20


@dataclass(frozen=True, slots=True)
class Direct:
    """`turns` is how often the model may be asked."""

    turns: int = MOST_TURNS

    async def answer(self, session: Session, voice: Voice, reasoning: dict[str, Any]) -> Answer:
        choice, schema = session.run.tool_choice, session.run.output_schema
        begun = ""
        for _ in range(self.turns):
            answer = await session.ask(voice=voice, schema=schema, tools=True, choice=choice)
            if answer.finish == "pause":
                session.keep(answer)
                begun += answer.text
                continue
            if schema is None and begun:
                # What it goes on with after a pause is the rest of one answer.
                answer = replace(answer, text=begun + answer.text)
            if not answer.calls or session.handed_out(answer):
                return answer
            choice, begun = "auto", ""
            await session.act(answer)
            reasoning["calls"] = reasoning.get("calls", 0) + len(answer.calls)
            if session.successor is not None:
                return answer
        raise TurnLimit(f"the agent was not done after {self.turns} turns: raise max_turns, or give it less to do")
