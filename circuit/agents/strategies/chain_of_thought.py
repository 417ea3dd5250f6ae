"""`chain_of_thought`: the model first writes down how it goes about it; that is told as thinking, and kept."""

from __future__ import annotations

import re
from typing import Any

from circuit.agents.answer import Answer, Voice
from circuit.agents.session import Session
from circuit.agents.strategies.strategy import Strategy
from circuit.providers.messages import Message, Role
from circuit.value import dataclass

_STEP = re.compile(r"^\s*(?:\d+[.)]|[-*])\s+", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ChainOfThought:
    """Thinks before `inner` answers."""

    inner: Strategy

    async def answer(self, session: Session, voice: Voice, reasoning: dict[str, Any]) -> Answer:
        asked = Message.text(Role.USER, session.text("chain_of_thought"))
        thought = await session.ask(asked, voice=Voice(session.journal, "thought"))
        reasoning["steps"] = [*reasoning.get("steps", ()), *steps_of(thought.text)]
        session.note(session.text("answer_now"))
        return await self.inner.answer(session, voice, reasoning)


def steps_of(text: str) -> list[str]:
    """The steps in a numbered or dotted list; the paragraphs where there is no list."""
    begins = [match.start() for match in _STEP.finditer(text)]
    if begins:
        pieces = [text[begin:end] for begin, end in zip(begins, [*begins[1:], len(text)], strict=True)]
        found = [_STEP.sub("", piece, count=1).strip() for piece in pieces]
    else:
        found = [piece.strip() for piece in text.split("\n\n")]
    return [step for step in found if step]
