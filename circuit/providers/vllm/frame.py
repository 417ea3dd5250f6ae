"""Frames on the socket between Circuit and the process of a model: four bytes that say how long, then JSON."""

from __future__ import annotations

from asyncio import IncompleteReadError, StreamReader
from typing import Any

import orjson

LARGEST = 256 * 1024 * 1024
_HEAD = 4


class BrokenFrame(ValueError):
    """What came is no frame, or the other side closed in the middle of one."""


def frame(value: Any) -> bytes:
    """`value` as one frame. Raises `TypeError` for what is no JSON, lone surrogates included."""
    body = orjson.dumps(value)
    return len(body).to_bytes(_HEAD, "big") + body


async def receive(reader: StreamReader) -> Any:
    """What the next frame holds, or None where the other side has closed. Raises `BrokenFrame`."""
    try:
        head = await reader.readexactly(_HEAD)
        size = int.from_bytes(head, "big")
        if size > LARGEST:
            raise BrokenFrame(f"a frame of {size} bytes; {LARGEST} are the most")
        return orjson.loads(await reader.readexactly(size))
    except IncompleteReadError as error:
        if not error.partial and error.expected == _HEAD:
            return None
        raise BrokenFrame("the other side closed in the middle of a frame") from None
    except orjson.JSONDecodeError as error:
        raise BrokenFrame(f"a frame that is no JSON: {error}") from None
    except ConnectionError:
        return None
