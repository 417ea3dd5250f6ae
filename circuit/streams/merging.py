"""What compaction makes of a stream: pieces of one text that follow each other become one frame. Pure.

The frame is the last of them with the text of all; so its number, its cursor and its instant are the last one's. Beside
it lies how long each piece was: a reader whose cursor lies inside gets what comes behind its cursor and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from circuit.events import ENVELOPE, Frame, StreamType, lasting
from circuit.streams.cursor import Cursor
from circuit.value import replace

LONGEST_TEXT = 16 * 1024
"""Characters that a merged frame holds at most: no reader gets a larger frame than those that it may get live."""

Kind = tuple[str, str | None]


class Entry(NamedTuple):
    """A stored frame. `body` is None where it cannot be merged anyway; `lengths` are set where it holds several."""

    start: int
    first: int
    sequence: int
    body: str | None
    lengths: Sequence[int] | None = None

    @property
    def size(self) -> int:
        """Bytes of what it says, and of the lengths."""
        lengths = "" if self.lengths is None else dumps(self.lengths)
        return len((self.body or "").encode()) + len(lengths)


class Merged(NamedTuple):
    """The frame that takes the place of so many `frames`; `saved` are the bytes that this saves."""

    entry: Entry
    frames: int
    saved: int


class Merging(NamedTuple):
    """What becomes of some frames: those that take the place of others, and the last frame of all as it is then: what
    comes next may belong to it."""

    merged: Sequence[Merged]
    last: Entry


def merge(entries: Sequence[Entry]) -> Merging:
    """Merge what can be merged of these frames of one stream, one at least, which are in order."""
    merged: list[Merged] = []
    run = _Run(entries[0], _said(entries[0]))
    for entry in entries[1:]:
        said = _said(entry)
        if not run.takes(entry, said):
            run.close(merged)
            run = _Run(entry, said)
    last = run.close(merged)
    return Merging(merged, last)


def dumps(lengths: Sequence[int]) -> str:
    """The lengths as they are stored."""
    return orjson.dumps(lengths).decode()


def rest(frame: Frame, lengths: Sequence[int] | None, after: Cursor) -> Frame:
    """What of a stored frame comes behind the cursor `after`. Without `lengths` (it was erased) that is all of it."""
    told = after.sequence - (frame.sequence - frame.merged)
    if frame.start != after.start or not 0 < told < frame.merged:
        return frame
    left = frame.merged - told
    if lengths is None:
        return replace(frame, merged=left, wires={})
    said = orjson.loads(frame.body)
    body = lasting({**said, "content": said["content"][sum(lengths[:told]) :]})
    return replace(frame, merged=left, body=body, wires={})


class _Run:
    """Frames that become one, as far as they have come; `said` is None of one that cannot be merged."""

    def __init__(self, entry: Entry, said: dict[str, Any] | None) -> None:
        self._entries = [entry]
        self._said = said
        self._texts: list[str] = [] if said is None else [said["content"]]
        self._length = sum(map(len, self._texts))

    def takes(self, entry: Entry, said: dict[str, Any] | None) -> bool:
        """Add `entry`, which says `said`, if it goes on with the same text and there is room for it."""
        last = self._entries[-1]
        if (entry.start, entry.first) != (last.start, last.sequence + 1) or said is None or self._said is None:
            return False
        if _kind(said) != _kind(self._said) or self._length + len(said["content"]) > LONGEST_TEXT:
            return False
        self._entries.append(entry)
        self._texts.append(said["content"])
        self._length += len(said["content"])
        self._said = said
        return True

    def close(self, merged: list[Merged]) -> Entry:
        """The frame that they become."""
        first, last = self._entries[0], self._entries[-1]
        if first is last:
            return first
        body = orjson.dumps({**(self._said or {}), "content": "".join(self._texts)}).decode()
        lengths = [
            length
            for entry, text in zip(self._entries, self._texts, strict=True)
            for length in entry.lengths or (len(text),)
        ]
        entry = Entry(last.start, first.first, last.sequence, body, lengths)
        merged.append(Merged(entry, len(self._entries), sum(one.size for one in self._entries) - entry.size))
        return entry


def _said(entry: Entry) -> dict[str, Any] | None:
    """What a frame says, if it is a piece of text and nothing else."""
    if entry.body is None:
        return None
    said: dict[str, Any] = orjson.loads(entry.body)
    content = said.get("content")
    own = {StreamType.CONTENT_CHUNK: {"content"}, StreamType.THINKING: {"status", "content"}}
    if not isinstance(content, str) or said.keys() - set(ENVELOPE) != own.get(said["eventType"]):
        return None
    lengths = entry.lengths or (len(content),)
    if len(lengths) != entry.sequence - entry.first + 1 or sum(lengths) != len(content):
        return None
    return said


def _kind(said: dict[str, Any]) -> Kind:
    return said["eventType"], said.get("status")
