"""Frames of whatever an action says: text that no UTF-8 can hold, or a value that no JSON can, never stops a stream.

What cannot be written is replaced (a lone surrogate by U+FFFD, an integer beyond 64 bits by its digits, what is no
JSON value by its name); everything else goes through as it is, NUL too, which JSON writes as an escape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from circuit.events import Frame, StreamDelta, encode_frame

DEEPEST = 200
"""How deep a value may nest; the encoder gives up at 254."""


def encode(execution_id: str, start: int, sequence: int, delta: StreamDelta, at: datetime) -> Frame:
    """The frame of `delta` at this place of the stream. Never raises for what the delta holds."""
    try:
        return encode_frame(execution_id, start, sequence, delta, at)
    except TypeError:  # what the encoder raises for text and values that are not JSON
        fields = cast("dict[str, Any]", writable(delta.fields))
        return encode_frame(execution_id, start, sequence, StreamDelta(delta.type, fields), at)


def readable(text: str) -> str:
    """`text` with surrogate pairs joined and lone surrogates replaced."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def writable(value: Any, depth: int = 0) -> Any:
    """`value` as plain JSON that the encoder takes."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, int):
        return value if -(1 << 63) <= value < 1 << 64 else str(value)
    if depth >= DEEPEST:
        return "[nested too deep]"
    if isinstance(value, Mapping):
        return {readable(str(key)): writable(item, depth + 1) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [writable(item, depth + 1) for item in value]
    return f"[{type(value).__name__}]"
