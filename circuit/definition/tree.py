"""A file as values that remember where they stand, so that every fault can name its line and column."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

PathTuple: TypeAlias = tuple[str | int, ...]

_LINE_BREAK = re.compile(r"\r\n|\n|\r")
_PLAIN_SEGMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_SEGMENT = re.compile(r"""([A-Za-z_][A-Za-z0-9_-]*)|\[(\d+)\]|\["([^"]*)"\]""")
_ESCAPE_LENGTHS = {"x": 4, "u": 6, "U": 10}


@dataclass(slots=True)
class Node:
    """A value and where it stands: `start` and `end` are offsets in the text, `style` is that of a scalar.

    `size` counts the values in it with aliases written out, `height` the levels below it.
    """

    value: Any
    start: int
    end: int
    style: str = ""
    keys: dict[str, Node] = field(default_factory=dict[str, "Node"])
    children: dict[str, Node] = field(default_factory=dict[str, "Node"])
    items: list[Node] = field(default_factory=list["Node"])
    size: int = 1
    height: int = 0


def path_text(path: Sequence[str | int]) -> str:
    """A path as people write it: `transitions.ai_review.conditions[0]`."""
    parts: list[str] = []
    if len(path) > 30:
        path = (*path[:10], "...", *path[-5:])
    for segment in path:
        if isinstance(segment, int):
            parts.append(f"[{segment}]")
        elif _PLAIN_SEGMENT.fullmatch(segment):
            parts.append(f".{segment}" if parts else segment)
        else:
            parts.append(f'["{segment}"]')
    return "".join(parts)


def path_of(text: str) -> PathTuple:
    """The path that `path_text` wrote."""
    return tuple(int(index) if index else named or quoted for named, index, quoted in _SEGMENT.findall(text))


class Tree:
    """The nodes of one file. `root.value` is the whole file as plain JSON values."""

    def __init__(self, root: Node, text: str, aliases: dict[str, str]) -> None:
        self.root = root
        self.text = text
        self._aliases = aliases
        self._lines = [0, *(match.end() for match in _LINE_BREAK.finditer(text))]

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset in the text, both from 1."""
        line = bisect_right(self._lines, offset)
        return line, offset - self._lines[line - 1] + 1

    def node(self, path: Sequence[str | int]) -> Node | None:
        """The node at this path of the file, or None."""
        node, reached = self._walk(path)
        return node if reached == len(path) else None

    def where(self, path: Sequence[str | int], *, key: bool = False) -> tuple[int, int]:
        """Line and column of what stands at `path`, or of the deepest part of it that the file has.

        With `key`, the position of its key. A path may be one of the canonical document, where the file uses a
        short form.
        """
        parent = self.root
        node = self.root
        taken: str | None = None
        for segment in path:
            found, name = self._child(node, segment)
            if found is None:
                break
            parent, node, taken = node, found, name
        else:
            if key and taken is not None and taken in parent.keys:
                return self.position(parent.keys[taken].start)
            return self.position(node.start)
        if taken is not None and taken in parent.keys and not isinstance(node.value, str):
            # Something is missing in a mapping: its own key says where better than its first entry.
            return self.position(parent.keys[taken].start)
        return self.position(node.start)

    def inside(self, path: Sequence[str | int], offset: int) -> tuple[int, int]:
        """Line and column of the character at `offset` of the text value at `path`, whatever its YAML style."""
        node, reached = self._walk(path)
        if reached < len(path) or not isinstance(node.value, str):
            return self.where(path)
        return self.position(self._locate(node, offset))

    def _walk(self, path: Sequence[str | int]) -> tuple[Node, int]:
        node = self.root
        for count, segment in enumerate(path):
            found, _ = self._child(node, segment)
            if found is None:
                # A short form: the scalar stands for the rest of the path, as in `from_places: draft`.
                short = isinstance(node.value, str) and count > 0
                return node, len(path) if short else count
            node = found
        return node, len(path)

    def _child(self, node: Node, segment: str | int) -> tuple[Node | None, str | None]:
        if isinstance(segment, int):
            if node.items:
                return (node.items[segment], None) if segment < len(node.items) else (None, None)
            # A short form: one thing stands for a list of one.
            return (node, None) if segment == 0 and node.value not in ([], None) else (None, None)
        if node.items:
            return next((item for item in node.items if item.value == segment), None), None
        if segment in node.children:
            return node.children[segment], segment
        other = self._aliases.get(segment)
        return (node.children[other], other) if other in node.children else (None, None)

    def _locate(self, node: Node, offset: int) -> int:
        """The offset in the file of a character of a scalar: found by counting what is not white space, which all
        styles keep in order."""
        value: str = node.value
        wanted = len("".join(value[:offset].split()))
        raw, at = self.text, node.start
        if node.style in "|>" and node.style:
            at = (raw.find("\n", at) + 1) or node.end
        elif node.style in ("'", '"'):
            at += 1
        seen = 0
        while at < node.end:
            length, blank = self._unit(raw, at, node.style)
            if not blank:
                if seen == wanted:
                    return at
                seen += 1
            at += length
        return node.start

    @staticmethod
    def _unit(raw: str, at: int, style: str) -> tuple[int, bool]:
        """How many characters of the file make the next one of the value, and whether it is white space."""
        character = raw[at]
        if style == "'" and raw.startswith("''", at):
            return 2, False
        if style == '"' and character == "\\" and at + 1 < len(raw):
            escaped = raw[at + 1]
            return _ESCAPE_LENGTHS.get(escaped, 2), escaped in "ntrvfN_LPe \n\r"
        return 1, character.isspace()
