"""What is said to a model and by it: messages of typed parts, the same in requests, journal and storage.

A part may carry `state`: what its provider wants back unchanged (a signature of reasoning, an id of an item), under
the name of the protocol that gave it. It goes back to the same protocol only; another one never sees it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

State = Mapping[str, Any]
"""A provider's own note on a part. `protocol` says whose it is."""


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class TextPart:
    text: str
    state: State | None = None


@dataclass(frozen=True, slots=True)
class ReasoningPart:
    """What the model thought. `text` is empty where the provider keeps it to itself."""

    text: str
    state: State | None = None


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image, as base64 `data` or as a `url` that the provider fetches."""

    media_type: str = ""
    data: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class ToolCallPart:
    """A call that the model makes. `arguments` is the JSON as the model wrote it, not yet looked at."""

    id: str
    name: str
    arguments: str
    state: State | None = None


@dataclass(frozen=True, slots=True)
class ToolResultPart:
    """What a call gave back. `failed` says that it is an error and not a result."""

    call_id: str
    name: str
    content: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class OpaquePart:
    """A part that only its provider understands, such as a search that it made on its own side."""

    state: State


Part = TextPart | ReasoningPart | ImagePart | ToolCallPart | ToolResultPart | OpaquePart

_KINDS: dict[str, type[Part]] = {
    "text": TextPart,
    "reasoning": ReasoningPart,
    "image": ImagePart,
    "tool_call": ToolCallPart,
    "tool_result": ToolResultPart,
    "opaque": OpaquePart,
}
_NAMES: dict[type[Part], str] = {kind: name for name, kind in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    parts: tuple[Part, ...]

    @classmethod
    def text(cls, role: Role, text: str) -> Message:
        return cls(role, (TextPart(text),))


def text_of(parts: Sequence[Part]) -> str:
    """All text of `parts`."""
    return "".join(part.text for part in parts if isinstance(part, TextPart))


def calls_of(parts: Sequence[Part]) -> tuple[ToolCallPart, ...]:
    """The calls in `parts`, in the order in which the model made them."""
    return tuple(part for part in parts if isinstance(part, ToolCallPart))


def state_of(part: TextPart | ReasoningPart | ToolCallPart | OpaquePart, protocol: str) -> Mapping[str, Any]:
    """What `part` carries for `protocol`; empty where it carries another one's, or nothing."""
    return part.state if part.state is not None and part.state.get("protocol") == protocol else {}


def part_json(part: Part) -> dict[str, Any]:
    """`part` as JSON; what says nothing is left out."""
    fields = {name: getattr(part, name) for name in part.__slots__}
    return {"type": _NAMES[type(part)], **{name: value for name, value in fields.items() if value or name == "text"}}


def part_from(value: Mapping[str, Any]) -> Part:
    """The part that `part_json` wrote. Raises `KeyError` for a type that this release does not know."""
    kind = _KINDS[value["type"]]
    given: dict[str, Any] = {name: value[name] for name in kind.__slots__ if name in value}
    # Empty texts are left out, and these have no default.
    given |= {name: "" for name in kind.__slots__ if name in ("arguments", "content") and name not in given}
    return kind(**given)


def message_json(message: Message) -> dict[str, Any]:
    """`message` as JSON."""
    return {"role": Role(message.role).value, "parts": [part_json(part) for part in message.parts]}


def message_from(value: Mapping[str, Any]) -> Message:
    """The message that `message_json` wrote."""
    return Message(Role(value["role"]), tuple(part_from(part) for part in value["parts"]))
