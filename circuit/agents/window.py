"""Keeps a conversation within what a model can hold.

Tokens are estimated, four bytes to one, because the true count is the provider's. What is too long is made shorter in
this order: old results of tools lose their content, then the oldest turns go, from a call to its results as one, then
the largest of the last results lose their middle; the system's messages, the task and the last message of the user
stay. The task is the first message of the user in this run; what earlier runs said goes before it. `dropped` says what
a summary would be of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from circuit.providers.messages import ImagePart, Message, Part, Role, TextPart, ToolCallPart, ToolResultPart, text_of
from circuit.providers.profiles import profile_of
from circuit.providers.provider import ModelRequest, ToolSpec
from circuit.value import dataclass

RESERVE = 4_096
"""Tokens that are left for the answer where neither the agent nor the model's profile says how many."""
LEAST = 256
"""Tokens that a conversation has in any case."""
RECENT = 4
"""How many of the last messages keep everything."""
STUB = "[left out: {} characters]"
SHORTEST = 400
"""No result is cut to fewer bytes than this."""
_IMAGE_TOKENS = 1_000


@dataclass(frozen=True, slots=True)
class Fitted:
    """A conversation that fits, and the messages that had to go, oldest first. What must stay may be too much even so:
    then it is `over` by about so many tokens."""

    messages: tuple[Message, ...]
    dropped: tuple[Message, ...] = ()
    over: int = 0


@dataclass(slots=True)
class Past:
    """What a conversation brings along from earlier runs: the first `left` messages behind the system's, of `whole`.
    `summarised` says that a summary lies before them."""

    task: Message | None
    whole: int
    left: int
    summarised: bool = False

    @classmethod
    def of(cls, messages: Sequence[Message], recalled: int) -> Past:
        """The past of a run that begins with `messages`, `recalled` of which are from earlier ones."""
        new = [message for message in messages if message.role != Role.SYSTEM][recalled:]
        return cls(next((message for message in new if message.role == Role.USER), None), recalled, recalled)

    def place(self, messages: Sequence[Message]) -> int:
        """Where the summary of what went belongs: before what is left of the past, else behind the task."""
        if self.whole:
            return next((n for n, message in enumerate(messages) if message.role != Role.SYSTEM), len(messages))
        return next((n + 1 for n, message in enumerate(messages) if message.role == Role.USER), 0)

    def drop(self, count: int) -> int:
        """The oldest `count` messages went. How many of earlier runs are gone now, if some of these were."""
        gone = min(self.left, max(0, count - self.summarised))
        self.left -= gone
        self.summarised = True
        return self.whole - self.left if gone else 0


def tokens(messages: Sequence[Message]) -> int:
    """About how many tokens `messages` are."""
    return sum(4 + sum(_size(part) for part in message.parts) for message in messages)


def room(context: int, model: str, parameters: Mapping[str, Any], tools: Iterable[ToolSpec]) -> int:
    """How many tokens a conversation may have where `model` holds `context` with the tools and the answer."""
    reserve = int(parameters.get("max_tokens") or min(profile_of(model).max_output or RESERVE, RESERVE))
    return max(context - reserve - sum(len(orjson.dumps(tool.parameters)) // 4 + 50 for tool in tools), LEAST)


def narrowed(request: ModelRequest, context: int | None, task: Message | None) -> ModelRequest:
    """`request` as a model that holds `context` tokens takes it: the oldest of the conversation goes, and nothing
    stands in its place. For a model that answers once instead of the one that the conversation was fitted to."""
    if context is None:
        return request
    size = room(context, request.model, request.parameters, request.tools)
    return replace(request, messages=fit(request.messages, size, task).messages)


def fit(messages: Sequence[Message], limit: int, task: Message | None = None) -> Fitted:
    """`messages` in at most `limit` tokens, as far as that is possible; `task` stays, or else the user's first one."""
    kept = list(messages)
    if tokens(kept) <= limit:
        return Fitted(tuple(kept))
    for at in range(max(0, len(kept) - RECENT)):
        kept[at] = _emptied(kept[at])
        if tokens(kept) <= limit:
            return Fitted(tuple(kept))
    dropped: list[Message] = []
    while tokens(kept) > limit and (span := _oldest(kept, task)) is not None:
        dropped += kept[span]
        del kept[span]
    while (over := tokens(kept) - limit) > 0 and _shorten(kept, over):
        pass
    return Fitted(tuple(kept), tuple(dropped), max(over, 0))


def excerpt(text: str, limit: int) -> str:
    """`text` in at most `limit` bytes, and what says how much of it is left out: its beginning and its end."""
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return text
    head, tail = data[: limit // 2].decode(errors="ignore"), data[len(data) - limit // 2 :].decode(errors="ignore")
    return f"{head}\n{STUB.format(len(text) - len(head) - len(tail))}\n{tail}"


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


def _shorten(messages: list[Message], over: int) -> bool:
    """Cut the largest result of a tool by about `over` tokens; whether there was one that could be cut."""
    sizes = [
        (len(part.content.encode("utf-8", "replace")), at, number)
        for at, message in enumerate(messages)
        for number, part in enumerate(message.parts)
        if isinstance(part, ToolResultPart)
    ]
    size, at, number = max(sizes, default=(0, 0, 0))
    room = len(STUB) + 20
    if size <= SHORTEST + room:
        return False
    parts = list(messages[at].parts)
    part = parts[number]
    assert isinstance(part, ToolResultPart)
    parts[number] = replace(part, content=excerpt(part.content, max(SHORTEST, size - 4 * (over + 1) - room)))
    messages[at] = Message(messages[at].role, tuple(parts))
    return True


def _emptied(message: Message) -> Message:
    parts = tuple(
        replace(part, content=STUB.format(len(part.content)))
        if isinstance(part, ToolResultPart) and len(part.content) > 200
        else part
        for part in message.parts
    )
    return Message(message.role, parts)


def _oldest(messages: Sequence[Message], task: Message | None) -> slice | None:
    """The oldest messages that may go together: one that asks, or an answer with the results of its calls."""
    users = [at for at, message in enumerate(messages) if message.role == Role.USER]
    tasks = [at for at in users if messages[at] == task]
    firm = {*(tasks[-1:] or users[:1]), *users[-1:]}
    last = len(messages) - 1
    for at, message in enumerate(messages):
        if message.role in (Role.SYSTEM, Role.TOOL) or at in firm:
            continue
        end = at + 1
        while end <= last and messages[end].role == Role.TOOL:
            end += 1
        return slice(at, end) if end <= last else None
    return None
