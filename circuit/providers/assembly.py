"""Puts an answer together from the pieces in which it comes, and says each piece on.

A parser names the places of an answer by keys of its own (a block's index, an item's); the parts come in the order in
which their keys were first named.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from circuit.providers.messages import OpaquePart, Part, ReasoningPart, State, TextPart, ToolCallPart
from circuit.providers.provider import ModelChunk, ReasoningChunk, TextChunk, ToolCallChunk

_HIGH = re.compile("[\ud800-\udbff]\\Z")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")

Kind = Literal["text", "reasoning", "call", "opaque"]


@dataclass(slots=True)
class _Draft:
    kind: Kind
    index: int = 0
    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list[str])
    state: dict[str, Any] = field(default_factory=dict[str, Any])
    held: str = ""


class Assembly:
    """One answer in the making. `protocol` marks the state of its parts; `prefix` begins the ids of calls that the
    provider gave none."""

    def __init__(self, protocol: str, prefix: str = "call") -> None:
        self._protocol = protocol
        self._prefix = prefix
        self._drafts: dict[Hashable, _Draft] = {}
        self._calls = 0

    @property
    def calls(self) -> int:
        """How many calls the answer makes so far."""
        return self._calls

    def has(self, key: Hashable) -> bool:
        """Whether something was said at `key`."""
        return key in self._drafts

    def said(self, key: Hashable) -> str:
        """What was said at `key` so far."""
        draft = self._drafts.get(key)
        return "".join(draft.pieces) if draft is not None else ""

    def text(self, key: Hashable, text: str) -> Iterator[ModelChunk]:
        """More text at `key`."""
        if ready := self._more(self._draft(key, "text"), text):
            yield TextChunk(ready)

    def reasoning(self, key: Hashable, text: str) -> Iterator[ModelChunk]:
        """More reasoning at `key`."""
        if ready := self._more(self._draft(key, "reasoning"), text):
            yield ReasoningChunk(ready)

    def call(self, key: Hashable, arguments: str = "", *, call_id: str = "", name: str = "") -> Iterator[ModelChunk]:
        """More of the call at `key`. Its id and name are what it was first given."""
        draft = self._drafts.get(key)
        begun = draft is not None and bool(draft.name)
        draft = self._draft(key, "call")
        draft.id = draft.id or call_id
        draft.name = draft.name or name
        ready = self._more(draft, arguments)
        if not draft.name:
            return
        draft.id = draft.id or f"{self._prefix}_{draft.index}"
        if not begun:
            yield ToolCallChunk(draft.index, draft.id, draft.name, "".join(draft.pieces))
        elif ready:
            yield ToolCallChunk(draft.index, draft.id, draft.name, ready)

    def opaque(self, key: Hashable, **state: Any) -> None:
        """A part at `key` that only the provider understands."""
        self._draft(key, "opaque").state.update(state)

    def note(self, key: Hashable, kind: Kind, **state: Any) -> None:
        """Keep the provider's `state` with the part at `key`, which is of `kind` if it is new."""
        self._draft(key, kind).state.update(state)

    def rest(self) -> Iterator[ModelChunk]:
        """What was held back, when nothing more comes."""
        for draft in self._drafts.values():
            if draft.held:
                held, draft.held = draft.held, ""
                draft.pieces.append(held)
                if draft.kind != "call":
                    yield (ReasoningChunk if draft.kind == "reasoning" else TextChunk)(held)

    def parts(self) -> tuple[Part, ...]:
        """The answer as it stands. What is empty and carries nothing is left out."""
        return tuple(part for draft in self._drafts.values() if (part := self._part(draft)) is not None)

    def _draft(self, key: Hashable, kind: Kind) -> _Draft:
        draft = self._drafts.get(key)
        if draft is None:
            draft = self._drafts[key] = _Draft(kind)
            if kind == "call":
                draft.index = self._calls
                self._calls += 1
        return draft

    def _more(self, draft: _Draft, text: str) -> str:
        """Servers written in JavaScript may cut between the two halves of a surrogate pair."""
        text = draft.held + text
        draft.held = ""
        if text and _HIGH.search(text):
            draft.held = text[-1]
            text = text[:-1]
        text = joined(text)
        if text:
            draft.pieces.append(text)
        return text

    def _part(self, draft: _Draft) -> Part | None:
        text = "".join(draft.pieces)
        state: State | None = {"protocol": self._protocol, **draft.state} if draft.state else None
        if draft.kind == "opaque":
            return OpaquePart(state) if state else None
        if draft.kind == "call":
            return ToolCallPart(draft.id, draft.name, text, state) if draft.name else None
        if not text and state is None:
            return None
        return (ReasoningPart if draft.kind == "reasoning" else TextPart)(text, state)


def joined(text: str) -> str:
    """`text` with surrogate pairs as the characters that they stand for; a lone surrogate stays."""
    if text.isascii() or not _PAIR.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
