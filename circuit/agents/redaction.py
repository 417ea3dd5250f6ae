"""What models are told, without what rules of redaction name.

The conversation itself stays as it is, and so does what the model answers: each request is redacted on its way out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from circuit.agents.answer import Answer
from circuit.providers.messages import Message, Part, TextPart, ToolCallPart, ToolResultPart
from circuit.providers.provider import ModelRequest
from circuit.security.redactor import Redaction, lengthy
from circuit.threads import apart


class PromptRedaction:
    """An `Interceptor`, the last one before the model. Reasoning goes back as it came, for its provider has signed it;
    images are shown as they are."""

    holds = False

    def __init__(self, redaction: Redaction) -> None:
        self._redaction = redaction

    async def before(self, request: ModelRequest) -> ModelRequest:
        def messages() -> tuple[Message, ...]:
            return tuple(self._message(message) for message in request.messages)

        return replace(request, messages=await apart(messages) if _long(request.messages) else messages())

    async def after(self, request: ModelRequest, answer: Answer) -> Answer:
        return answer

    def _message(self, message: Message) -> Message:
        return Message(message.role, tuple(self._part(part) for part in message.parts))

    def _part(self, part: Part) -> Part:
        if isinstance(part, TextPart):
            return TextPart(self._redaction.text(part.text), part.state)
        if isinstance(part, ToolResultPart):
            return ToolResultPart(part.call_id, part.name, self._redaction.text(part.content), part.failed)
        if isinstance(part, ToolCallPart):
            return ToolCallPart(part.id, part.name, self._redaction.written(part.arguments), part.state)
        return part


def _long(messages: Sequence[Message]) -> bool:
    parts = [part for message in messages for part in message.parts]
    said = [part.text for part in parts if isinstance(part, TextPart)]
    said += [part.content for part in parts if isinstance(part, ToolResultPart)]
    return lengthy([*said, *(part.arguments for part in parts if isinstance(part, ToolCallPart))])
