"""Reads YAML (1.2, core schema; JSON is YAML) into values that know where they stand. `written` writes it.

The events of PyYAML's parser are put together here rather than by its own composer, because a file from outside must
not be able to hurt: the depth is bounded, and so is the number of values with all aliases written out. `yes`, `no`,
`on` and `off` are text, dates are text, and keys that stand twice are faults.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from circuit.definition.tree import Node, PathTuple, Tree, path_text
from circuit.errors import DefinitionError, Fault

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 100
TOO_DEEP = (f"the file is nested more than {MAX_DEPTH} levels deep", "flatten it")
MAX_VALUES = 100_000

_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_NULLS = ("", "~", "null", "Null", "NULL")
_PAIR = re.compile(r"(?<!\\)(?:\\u[dD][89abAB][0-9a-fA-F]{2})(?:\\u[dD][c-fC-F][0-9a-fA-F]{2})")
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")}


@dataclass(slots=True)
class _Open:
    """A collection that is being read."""

    node: Node
    anchor: str | None
    mapping: bool
    key: Node | None = None


@dataclass(slots=True)
class _Reading:
    """What is known of the file so far. `faults` are those that reading can go on after."""

    source: str
    text: str
    lines: Tree
    faults: list[Fault] = field(default_factory=list[Fault])
    stack: list[_Open] = field(default_factory=list[_Open])
    anchors: dict[str, Node | None] = field(default_factory=dict[str, "Node | None"])
    values: int = 0

    def path(self) -> PathTuple:
        """Where the next node goes."""
        path: list[str | int] = []
        for opened in self.stack:
            if not opened.mapping:
                path.append(len(opened.node.items))
            elif opened.key is not None:
                path.append(str(opened.key.value))
        return tuple(path)

    def fault(self, offset: int, message: str, hint: str = "") -> None:
        line, column = self.lines.position(offset)
        self.faults.append(Fault(self.source, line, column, path_text(self.path()), message, hint))

    def fatal(self, offset: int, message: str, hint: str = "") -> DefinitionError:
        """The error to raise where reading cannot go on."""
        self.fault(offset, message, hint)
        return DefinitionError(self.faults)


def parse(text: str, source: str, aliases: dict[str, str]) -> tuple[Tree, list[Fault]]:
    """The tree of a YAML text, and the faults that are no reason to stop reading.

    Raises `DefinitionError` where there is no tree: the text is too long, not YAML, empty, not one document or not a
    mapping, nested too deeply or too large with its aliases written out.
    """
    text = text.removeprefix("\ufeff")
    reading = _Reading(source, text, Tree(Node(None, 0, 0), text, {}))
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise reading.fatal(0, f"the file is larger than {MAX_BYTES:,} bytes", "split it up, or keep data out of it")
    if match := _UNPRINTABLE.search(text):
        name = "NUL" if match[0] == "\0" else f"U+{ord(match[0]):04X}"
        raise reading.fatal(match.start(), f"the file holds the control character {name}", "remove it")
    reading.text = _as_yaml(text)
    root = _compose(reading)
    if root is None or root.value is None:
        raise reading.fatal(0, "the file is empty", "a workflow file begins with `workflow: NAME`")
    if not isinstance(root.value, dict):
        kind = "a list" if isinstance(root.value, list) else "a single value"
        hint = "it begins with `workflow: NAME`, then `places:` and `transitions:`"
        raise reading.fatal(root.start, f"a workflow file is a mapping of keys, not {kind}", hint)
    return Tree(root, text, aliases), reading.faults


def _as_yaml(text: str) -> str:
    """JSON is YAML but for two things: tabs between its parts, and characters that are escaped as two halves."""
    if not text.lstrip().startswith("{") or not ("\t" in text or "\\ud" in text.lower()):
        return text
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    # No tab stands inside of a string of JSON, and a space instead of it keeps every column.
    return _PAIR.sub(lambda match: f"\\U{ord(json.loads(chr(34) + match[0] + chr(34))):08x}", text.replace("\t", " "))


def _compose(reading: _Reading) -> Node | None:
    root: Node | None = None
    documents = 0
    for event in _events(reading):
        start: int = event.start_mark.index
        node: Node | None = None
        anchor: str | None = None
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise reading.fatal(start, "the file holds several documents", "keep one; `---` begins another")
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            _open(reading, event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            opened = reading.stack.pop()
            opened.node.end = event.end_mark.index
            node, anchor = opened.node, opened.anchor
        elif isinstance(event, yaml.ScalarEvent):
            node, anchor = _scalar(reading, event), event.anchor
            _count(reading, start, 1)
        elif isinstance(event, yaml.AliasEvent):
            node = _alias(reading, event)
        if node is None:
            continue
        if anchor is not None:
            reading.anchors[anchor] = node
        if reading.stack:
            _attach(reading, reading.stack[-1], node)
        else:
            root = node
    return root


def _events(reading: _Reading) -> Iterator[Any]:
    try:
        yield from yaml.parse(reading.text, Loader=_PARSER)
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        raise _not_yaml(reading, mark.index if mark else 0, error) from None
    except yaml.YAMLError as error:
        raise reading.fatal(getattr(error, "position", 0), "this is not YAML", str(error).splitlines()[0]) from None


def _not_yaml(reading: _Reading, offset: int, error: yaml.MarkedYAMLError) -> DefinitionError:
    reading.stack.clear()
    problem = (error.problem or "").removesuffix(" in this context").removesuffix(" here")
    context = error.context or ""
    character = reading.text[offset : offset + 1]
    if character == "\t":
        return reading.fatal(offset, "a tab cannot indent YAML", "indent with spaces")
    if "cannot start any token" in problem:
        return reading.fatal(offset, f"text cannot begin with {character!r}", "put the text in quotes")
    if "maximum nesting depth" in problem:
        # Some releases of the parser's C library have a limit of their own, and look ahead up to it.
        return reading.fatal(offset, *TOO_DEEP)
    if "mapping values are not allowed" in problem:
        return reading.fatal(
            offset, "`: ` cannot stand here", "put text that holds `: ` in quotes, or check the indentation"
        )
    hint = "check the indentation, the quotes and the brackets here and just before"
    context_mark: Any = error.context_mark
    if context and context_mark is not None:
        line, column = reading.lines.position(context_mark.index)
        context = f" {context} that begins at {line}:{column}"
    elif context:
        context = f" {context}"
    return reading.fatal(offset, f"this is not YAML:{context}{',' if context else ''} {problem}", hint)


def _open(reading: _Reading, event: Any) -> None:
    start: int = event.start_mark.index
    if len(reading.stack) >= MAX_DEPTH:
        raise reading.fatal(start, *TOO_DEEP)
    _count(reading, start, 1)
    mapping = isinstance(event, yaml.MappingStartEvent)
    expected = "map" if mapping else "seq"
    if event.tag not in (None, "!", f"tag:yaml.org,2002:{expected}"):
        reading.fault(start, f"the tag {_tag_name(event.tag)} is not allowed here", "remove it")
    node = Node({} if mapping else [], start, start)
    if event.anchor is not None:
        # Until it is complete the anchor stands for nothing: an alias inside would never end.
        reading.anchors[event.anchor] = None
    reading.stack.append(_Open(node, event.anchor, mapping))


def _alias(reading: _Reading, event: Any) -> Node:
    start: int = event.start_mark.index
    if event.anchor not in reading.anchors:
        raise reading.fatal(
            start, f"there is no anchor &{event.anchor} before this alias", "put text that begins with * in quotes"
        )
    target = reading.anchors[event.anchor]
    if target is None:
        raise reading.fatal(start, f"the alias *{event.anchor} stands inside of what it names", "write the value out")
    _count(reading, start, target.size)
    if len(reading.stack) + target.height > MAX_DEPTH:
        raise reading.fatal(start, *TOO_DEEP)
    # Faults in the value are shown where it is written; the value as a whole stands where the alias does.
    return Node(
        target.value,
        target.start if isinstance(target.value, str) else start,
        target.end,
        target.style,
        target.keys,
        target.children,
        target.items,
        target.size,
        target.height,
    )


def _count(reading: _Reading, offset: int, values: int) -> None:
    reading.values += values
    if reading.values > MAX_VALUES:
        raise reading.fatal(
            offset, f"the file holds more than {MAX_VALUES:,} values with its aliases written out", "make it smaller"
        )


def _attach(reading: _Reading, parent: _Open, node: Node) -> None:
    owner = parent.node
    owner.size += node.size
    owner.height = max(owner.height, node.height + 1)
    if not parent.mapping:
        owner.items.append(node)
        owner.value.append(node.value)
    elif parent.key is None:
        parent.key = _key(reading, node)
    else:
        key = parent.key
        parent.key = None
        name = str(key.value)
        if name in owner.children:
            line, _ = reading.lines.position(owner.keys[name].start)
            parent.key = key
            reading.fault(key.start, f"the key {name!r} stands twice; first in line {line}", "remove one of them")
            parent.key = None
            return
        owner.keys[name] = key
        owner.children[name] = node
        owner.value[name] = node.value


def _key(reading: _Reading, node: Node) -> Node:
    """The node as a key, which is text; whatever else it is becomes a fault and the text of it the key."""
    if isinstance(node.value, str):
        if node.value == "<<" and not node.style:
            reading.fault(node.start, "merge keys (<<) are not part of YAML 1.2", "use an alias for the whole value")
        return node
    if isinstance(node.value, dict | list):
        reading.fault(node.start, "a key must be text, not a list or a mapping", "put text in braces in quotes")
    else:
        shown = reading.text[node.start : node.end] or "nothing"
        reading.fault(node.start, f"a key must be text, not {shown}", f'write it in quotes: "{shown}"')
    written = reading.text[node.start : node.end]
    return Node(written[:100], node.start, node.end)


def _scalar(reading: _Reading, event: Any) -> Node:
    start: int = event.start_mark.index
    text: str = event.value
    style: str = event.style or ""
    node = Node(text, start, event.end_mark.index, style)
    tag: str | None = event.tag
    if tag not in (None, "!") and tag not in _TAGS:
        reading.fault(start, f"the tag {_tag_name(tag)} is not allowed", "remove it")
    elif tag is not None:
        if tag not in ("!", "tag:yaml.org,2002:str"):
            node.value = _plain(reading, text, start)
    elif event.implicit[0]:
        node.value = _plain(reading, text, start)
    if isinstance(node.value, str):
        if "\0" in text:
            reading.fault(start, "the text holds a NUL character, which cannot be stored", "remove it")
        elif any("\ud800" <= character <= "\udfff" for character in text):
            reading.fault(start, "the text holds half of a surrogate pair, which is no character", "remove it")
    return node


def _plain(reading: _Reading, text: str, start: int) -> Any:
    """What a scalar without quotes stands for (YAML 1.2, core schema)."""
    if text in _NULLS:
        return None
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.fullmatch(text):
        if len(text) > 25 or not -(2**63) <= (number := int(text, 0 if text[:2] in ("0o", "0x") else 10)) < 2**64:
            reading.fault(start, "the number has too many digits to be stored exactly", "write it in quotes")
            return 0
        return number
    finite = _FLOAT.fullmatch(text)
    if finite or _NOT_FINITE.fullmatch(text):
        if finite and math.isfinite(number := float(text)):
            return number
        reading.fault(start, f"{text[:40]} is not a number that JSON can hold", "write a finite number")
        return 0.0
    return text


def _tag_name(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")
