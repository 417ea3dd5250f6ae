"""Messages as chat clients write them (the form of OpenAI's chat completions), and as Circuit keeps them.

A token, a request and a journal may hold a conversation as a list of such messages; what is read here has been written
by anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from circuit.agents.image import image_at
from circuit.errors import InvalidInput
from circuit.providers.messages import ImagePart, Message, Part, Role, TextPart, ToolCallPart, ToolResultPart

_ROLES = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "tool": Role.TOOL,
    "function": Role.TOOL,
}


def messages_of(entries: Any) -> tuple[Message, ...]:
    """The conversation that `entries` spell. Raises `InvalidInput`, which names the message."""
    if not isinstance(entries, list) or not entries:
        raise InvalidInput("messages must be a list with at least one message")
    found: list[Message] = []
    names: dict[str, str] = {}
    for number, entry in enumerate(cast("list[Any]", entries)):
        message = _message(entry, f"messages[{number}]", number, names)
        if message.role is Role.TOOL and found and found[-1].role is Role.TOOL:
            # What several calls of one answer gave is one message.
            message = Message(Role.TOOL, (*found.pop().parts, *message.parts))
        found.append(message)
    return tuple(found)


def call_json(call: ToolCallPart) -> dict[str, Any]:
    """A call as chat clients read it."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments or "{}"}}


def _message(entry: Any, at: str, number: int, names: dict[str, str]) -> Message:
    """One message. `names` are the tools of the calls so far, by call."""
    fields = _object(entry, at)
    role = _ROLES.get(fields.get("role", ""))
    if role is None:
        raise InvalidInput(f"{at}.role must be one of {', '.join(_ROLES)}, not {fields.get('role')!r:.80}")
    if role is Role.TOOL:
        return Message(role, (_result(fields, at, names),))
    parts = _content(fields.get("content"), f"{at}.content")
    if role is Role.ASSISTANT:
        calls = _calls(fields, at, number)
        names.update({call.id: call.name for call in calls})
        return Message(role, (*parts, *calls))
    if not parts:
        raise InvalidInput(f"{at}.content is missing")
    if role is Role.SYSTEM and any(isinstance(part, ImagePart) for part in parts):
        raise InvalidInput(f"{at}.content must be text")
    return Message(role, parts)


def _content(content: Any, at: str) -> tuple[Part, ...]:
    if content is None or content == "":
        return ()
    if isinstance(content, str):
        return (TextPart(content),)
    if not isinstance(content, list):
        raise InvalidInput(f"{at} must be text or a list of parts")
    return tuple(_part(part, f"{at}[{number}]") for number, part in enumerate(cast("list[Any]", content)))


def _part(part: Any, at: str) -> Part:
    fields = _object(part, at)
    kind = fields.get("type")
    if kind in ("text", "refusal") and isinstance(fields.get(kind), str):
        return TextPart(fields[kind])
    if kind == "image_url":
        url = _object(fields.get("image_url"), f"{at}.image_url").get("url")
        return image_at(url, f"{at}.image_url.url")
    raise InvalidInput(f"{at} must be of the type text or image_url, not {kind!r:.80}")


def _calls(fields: Mapping[str, Any], at: str, number: int) -> tuple[ToolCallPart, ...]:
    """The calls of an answer; one in the older form (`function_call`) gets an id."""
    older = fields.get("function_call")
    if older is not None:
        return (_call(older, f"{at}.function_call", f"call_{number}"),)
    calls = fields.get("tool_calls")
    if calls is None:
        return ()
    if not isinstance(calls, list):
        raise InvalidInput(f"{at}.tool_calls must be a list")
    found: list[ToolCallPart] = []
    for place, call in enumerate(cast("list[Any]", calls)):
        inside = f"{at}.tool_calls[{place}]"
        call_id: Any = _object(call, inside).get("id")
        if not isinstance(call_id, str) or not call_id:
            raise InvalidInput(f"{inside}.id must be text")
        found.append(_call(call.get("function"), f"{inside}.function", call_id))
    return tuple(found)


def _call(function: Any, at: str, call_id: str) -> ToolCallPart:
    fields = _object(function, at)
    name, arguments = fields.get("name"), fields.get("arguments", "")
    if not isinstance(name, str) or not name:
        raise InvalidInput(f"{at}.name must be text")
    if not isinstance(arguments, str):
        raise InvalidInput(f"{at}.arguments must be text that holds JSON")
    return ToolCallPart(call_id, name, arguments)


def _result(fields: Mapping[str, Any], at: str, names: Mapping[str, str]) -> ToolResultPart:
    """What a call gave: known by the call's id, or in the older form by the name of the function."""
    content = "".join(
        part.text for part in _content(fields.get("content"), f"{at}.content") if isinstance(part, TextPart)
    )
    if fields["role"] == "function":
        name: Any = fields.get("name")
        found = [call_id for call_id, known in names.items() if known == name]
        if not found:
            raise InvalidInput(f"{at}.name is {name!r:.80}, which no message before it calls")
        return ToolResultPart(found[-1], str(name), content)
    call_id: Any = fields.get("tool_call_id")
    if call_id not in names:
        raise InvalidInput(f"{at}.tool_call_id is {call_id!r:.80}, which is the id of no call before it")
    return ToolResultPart(call_id, names[call_id], content)


def _object(value: Any, at: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInput(f"{at} must be an object")
    return cast("Mapping[str, Any]", value)
