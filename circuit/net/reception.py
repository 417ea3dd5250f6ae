"""Which message a transition waits for: its name, and the key by which it belongs to certain tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from circuit.expressions.path import MISSING
from circuit.net.scope import ScopePath
from circuit.value import dataclass

NO_KEY = ""
"""The key of a message that belongs to no tokens in particular."""


@dataclass(frozen=True, slots=True)
class Reception:
    """A message of this `name` fires the transition. With `correlate`, its key must be what these paths lead to."""

    name: str
    correlate: tuple[ScopePath, ...] = ()

    def key(self, scope: Mapping[str, Any]) -> str | None:
        """The key of the message that tokens of this scope wait for; None where a path leads to no text and no whole
        number, for then no message can be meant for them."""
        return message_key([path.get(scope) for path in self.correlate])


def message_key(parts: Sequence[Any]) -> str | None:
    """A key as it is stored and compared: the text of each part, so that 42 and "42" are one key. None where a part is
    neither a text nor a whole number."""
    if not parts:
        return NO_KEY
    texts: list[str] = []
    for part in parts:
        if part is MISSING or isinstance(part, bool) or not isinstance(part, str | int | float):
            return None
        if isinstance(part, float):
            if not part.is_integer():
                return None
            part = int(part)
        texts.append(str(part))
    return orjson.dumps(texts).decode()


def key_parts(key: str) -> tuple[str, ...]:
    """The parts of a key as it is stored."""
    return () if key == NO_KEY else tuple(orjson.loads(key))


def shown_key(key: str) -> str:
    """A key for people."""
    return "no key" if key == NO_KEY else f"the key {', '.join(key_parts(key))}"
