"""Keeps a conversation within what a model can hold.

Tokens are estimated, four bytes to one, because the true count is the provider's. What is too long is made shorter in
this order: old results of tools lose their content, then the oldest turns go, from a call to its results as one; the
system's messages and the first and the last message of the user stay. `dropped` says what a summary would be of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from circuit.providers.messages import ImagePart, Message, Part, Role, TextPart, ToolCallPart, ToolResultPart, text_of
from circuit.value import dataclass

RECENT = 4
"""How many of the last messages keep everything."""
STUB = "[left out: {} characters]"
_IMAGE_TOKENS = 1_000


@dataclass(frozen=True, slots=True)
class Fitted:
    """A conversation that fits, and the messages that had to go, oldest first."""

    messages: tuple[Message, ...]
    dropped: tuple[Message, ...] = ()


def tokens(messages: Sequence[Message]) -> int:
    """About how many tokens `messages` are."""
    return sum(4 + sum(_size(part) for part in message.parts) for message in messages)


def fit(messages: Sequence[Message], limit: int) -> Fitted:
    """`messages` in at most `limit` tokens, as far as that is possible."""
    kept = list(messages)
    if tokens(kept) <= limit:
        return Fitted(tuple(kept))
    for at in range(max(0, len(kept) - RECENT)):
        kept[at] = _emptied(kept[at])
        if tokens(kept) <= limit:
            return Fitted(tuple(kept))
    dropped: list[Message] = []
    while tokens(kept) > limit and (span := _oldest(kept)) is not None:
        dropped += kept[span]
        del kept[span]
    return Fitted(tuple(kept), tuple(dropped))


def transcript(messages: Sequence[Message]) -> str:
    """`messages` as text, for a summary."""
    lines: list[str] = []
    for message in messages:
        for part in message.parts:
            if isinstance(part, ToolCallPart):
                lines.append(f"{message.role} called {part.name} with {part.arguments}")
            elif isinstance(part, ToolResultPart):
                lines.append(f"{part.name} gave {part.content}")
        if said := text_of(message.parts):
            lines.append(f"{message.role}: {said}")
    return "\n".join(lines)


def _size(part: Part) -> int:
    match part:
        case ImagePart():
            return _IMAGE_TOKENS
        case ToolCallPart():
            length = len(part.name) + len(part.arguments.encode("utf-8", "replace"))
        case ToolResultPart():
            length = len(part.content.encode("utf-8", "replace"))
        case TextPart():
            length = len(part.text.encode("utf-8", "replace"))
        case _:
            length = len(str(part))
    return -(-length // 4)


def _emptied(message: Message) -> Message:
    parts = tuple(
        replace(part, content=STUB.format(len(part.content)))
        if isinstance(part, ToolResultPart) and len(part.content) > 200
        else part
        for part in message.parts
    )
    return Message(message.role, parts)


def _oldest(messages: Sequence[Message]) -> slice | None:
    """The oldest messages that may go together: one that asks, or an answer with the results of its calls."""
    users = [at for at, message in enumerate(messages) if message.role == Role.USER]
    firm = {*users[:1], *users[-1:]}
    last = len(messages) - 1
    for at, message in enumerate(messages):
        if message.role in (Role.SYSTEM, Role.TOOL) or at in firm:
            continue
        end = at + 1
        while end <= last and messages[end].role == Role.TOOL:
            end += 1
        return slice(at, end) if end <= last else None
    return None
