"""What stands around each call of a model: it may change the request, and change, refuse or hold back the answer.

Where one of an agent's interceptors `holds`, nothing of an answer is told, logged or journalled before all of them have
seen it whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from circuit.agents.answer import Answer
from circuit.providers.messages import TextPart
from circuit.providers.provider import ModelRequest


class Interceptor(Protocol):
    """Looks at what goes to a model and at what comes from it."""

    holds: bool

    async def before(self, request: ModelRequest) -> ModelRequest:
        """The request that is sent in the place of `request`. Raises `CircuitError` to send none."""
        ...

    async def after(self, request: ModelRequest, answer: Answer) -> Answer:
        """The answer that counts in the place of `answer`. Raises `CircuitError`, such as `OutputHeld`, for none."""
        ...


async def prepared(interceptors: Sequence[Interceptor], request: ModelRequest) -> ModelRequest:
    """The request after all interceptors, in their order."""
    for interceptor in interceptors:
        request = await interceptor.before(request)
    return request


async def passed(interceptors: Sequence[Interceptor], request: ModelRequest, answer: Answer) -> Answer:
    """The answer after all interceptors, the last one first: they lie around the model like shells."""
    for interceptor in reversed(interceptors):
        answer = await interceptor.after(request, answer)
    return answer


def with_text(answer: Answer, text: str) -> Answer:
    """`answer` saying `text` instead; its calls stay, what else it held goes."""
    return replace(answer, text=text, parts=((TextPart(text),) if text else ()) + answer.calls)
