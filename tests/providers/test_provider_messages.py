"""Messages as they are kept: every kind of part survives JSON."""

from __future__ import annotations

import json

from replay import ASKED

from circuit.providers.messages import (
    ImagePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    message_from,
    message_json,
)


def test_parts_survive_json() -> None:
    parts: tuple[Part, ...] = (
        TextPart(""), TextPart("a", {"protocol": "x"}), ReasoningPart("b"), ImagePart("image/png", "QQ=="),
        ToolCallPart("1", "f", ""), ToolResultPart("1", "f", "", failed=True), OpaquePart({"protocol": "y"}),
    )  # fmt: skip
    message = Message(Role.ASSISTANT, parts)
    assert message_from(json.loads(json.dumps(message_json(message)))) == message
    assert ASKED.messages[0] == message_from(message_json(ASKED.messages[0]))
