"""What an execution says, without what rules of redaction name.

Text that comes in pieces is held back as far as it could still become part of something that is taken out. An answer
goes on behind a thought; a thought ends where the answer goes on, and both end with any other event.
"""

from __future__ import annotations

from typing import Any

from circuit.events import StreamDelta, StreamType
from circuit.security.redactor import Redaction, TextStream

NAMES = ("toolName", "callId")
"""Fields that say what is meant, which no rule changes."""

Kind = tuple[StreamType, Any]
"""What text belongs to: its type, and the status of a thought."""


class Veil:
    """Stands before one start of an execution."""

    def __init__(self, redaction: Redaction) -> None:
        self._redaction = redaction
        self._texts: dict[Kind, TextStream] = {}

    def told(self, delta: StreamDelta) -> list[StreamDelta]:
        """What may be told now that `delta` was said."""
        kind, text = mergeable(delta)
        ended: list[StreamDelta] = []
        if delta.type is StreamType.CONTENT_CHUNK:
            ended = self._end(StreamType.THINKING)
        elif delta.type is not StreamType.THINKING:
            ended = self.end()
        if kind is None:
            return [*ended, StreamDelta(delta.type, self._redaction.fields(delta.fields, NAMES))]
        stream = self._texts.get(kind) or self._redaction.stream()
        if stream is None:
            return [*ended, delta]
        self._texts[kind] = stream
        told = stream.feed(text)
        return [*ended, _delta(kind, told)] if told else ended

    def end(self) -> list[StreamDelta]:
        """What was held back: nothing follows it."""
        return self._end(StreamType.THINKING) + self._end(StreamType.CONTENT_CHUNK)

    def _end(self, type_: StreamType) -> list[StreamDelta]:
        ended = [kind for kind in self._texts if kind[0] is type_]
        return [_delta(kind, rest) for kind in ended if (rest := self._texts.pop(kind).close())]


def mergeable(delta: StreamDelta) -> tuple[Kind | None, str]:
    """What text of `delta` may be joined with, and the text: chunks of the answer, or thoughts under one status."""
    fields = delta.fields
    text = fields.get("content")
    if not isinstance(text, str):
        return None, ""
    if delta.type is StreamType.CONTENT_CHUNK and len(fields) == 1:
        return (delta.type, None), text
    if delta.type is StreamType.THINKING and text and set(fields) == {"status", "content"}:
        return (delta.type, fields["status"]), text
    return None, ""


def _delta(kind: Kind, text: str) -> StreamDelta:
    type_, status = kind
    fields: dict[str, Any] = {"content": text}
    return StreamDelta(type_, fields if type_ is StreamType.CONTENT_CHUNK else {"status": status, **fields})
