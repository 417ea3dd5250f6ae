"""What a way of working is, and how several of them become one.

They lie around each other: `self_reflection` around `chain_of_thought` around the answer itself, which is `react` or
`direct`, in whatever order an agent names them.
"""

from __future__ import annotations

from typing import Any, Protocol

from circuit.agents.answer import Answer, Voice
from circuit.agents.session import Session


class Strategy(Protocol):
    """Comes to an answer. What it wants kept beside the answer it writes into `reasoning`."""

    async def answer(self, session: Session, voice: Voice, reasoning: dict[str, Any]) -> Answer:
        """The answer, told with `voice`. Raises `AgentError` and `ProviderError`."""
        ...
