"""`self_reflection`: an answer is judged, and improved while the judge's confidence is too low.

Drafts and judgements are told as thinking; the answer that counts is told as the answer when it is known to be it.
"""

from __future__ import annotations

import json
from typing import Any

from circuit.agents.answer import Answer, Voice
from circuit.agents.output import interpret
from circuit.agents.session import Session
from circuit.agents.strategies.strategy import Strategy
from circuit.errors import InvalidOutput
from circuit.providers.messages import Message, Role
from circuit.value import dataclass

JUDGEMENT: dict[str, Any] = {
    "type": "object",
    "required": ["confidence", "issues"],
    "additionalProperties": False,
    "properties": {
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
        "issues": {"type": "array", "items": {"type": "string"}},
    },
}
THRESHOLD = 0.8
ROUNDS = 2


@dataclass(frozen=True, slots=True)
class SelfReflection:
    """Judges what `inner` answers against `criteria`, and has it improved at most `rounds` times while the confidence
    is under `threshold`."""

    inner: Strategy
    threshold: float = THRESHOLD
    rounds: int = ROUNDS
    criteria: tuple[str, ...] = ()

    async def answer(self, session: Session, voice: Voice, reasoning: dict[str, Any]) -> Answer:
        draft = Voice(session.journal, "draft")
        answer = await self.inner.answer(session, draft, reasoning)
        best, confidence = answer, -1.0
        judged: list[dict[str, Any]] = []
        for round_ in range(self.rounds + 1):
            if session.handed_out(answer) or session.successor:  # there is no answer yet that could be judged
                await voice.again(answer.text)
                return answer
            verdict = await self._judged(session, answer)
            judged.append(verdict)
            if verdict["confidence"] > confidence:
                best, confidence = answer, verdict["confidence"]
            if verdict["confidence"] >= self.threshold or round_ == self.rounds:
                break
            issues = "\n".join(f"- {issue}" for issue in verdict["issues"]) or "- it is not certain to be right"
            session.note(session.text("improve", issues=issues))
            answer = await self.inner.answer(session, draft, reasoning)
        reasoning["reflections"] = judged
        reasoning["confidence"] = max(confidence, 0.0)
        await voice.again(best.text)
        return best

    async def _judged(self, session: Session, answer: Answer) -> dict[str, Any]:
        """What the model says of `answer`; a judgement that cannot be read is one without confidence."""
        listed = "".join(f"\n- {criterion}" for criterion in self.criteria)
        criteria = f" It should meet these criteria:{listed}" if listed else ""
        asked = Message.text(Role.USER, session.text("self_reflection", criteria=criteria))
        said = await session.ask(asked, voice=Voice(session.journal, "reflection"), schema=JUDGEMENT, keep=False)
        try:
            verdict: dict[str, Any] = interpret(said.text, said.finish, JUDGEMENT)
        except InvalidOutput as fault:
            return {"confidence": 0.0, "issues": [f"the judgement could not be read: {fault.message}"[:500]]}
        return json.loads(json.dumps(verdict))
