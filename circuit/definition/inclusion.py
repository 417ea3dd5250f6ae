"""Fragments: files with places, transitions and the like that workflow files include, with parameters.

A fragment is put together with the file that includes it before anything is checked, so that it is checked as if it
stood there; faults name the file and the line in which they lie. `$(NAME)` in its text is the parameter NAME. Which
text a path leads to is for a reader to say, which whoever loads a file hands in: nothing is read here.
"""

from __future__ import annotations

import posixpath
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from circuit.definition.fault_text import suggestion
from circuit.definition.loader import MAX_BYTES, parse
from circuit.definition.tree import Node, PathTuple, Tree, path_text
from circuit.errors import DefinitionError, Fault, InvalidRequest
from circuit.expressions.value import is_list, is_object

Reader = Callable[[str], str]
"""The text of a file, by its path from the directory of the workflow file. Raises `ValueError` with what is wrong."""

SECTIONS = ("colours", "places", "agents", "transitions", "regions")
"""What a fragment adds, by name."""

_KEYS = ("fragment", "description", "parameters", "include", *SECTIONS, "place_agents")
_MOST = 100
_PARAMETER = re.compile(r"\$\(([^)\n]*)\)")
_HINT = "write include: [{file: PATH, with: {NAME: VALUE}}]"


def given(files: Iterable[tuple[str, str]]) -> Reader:
    """What reads these texts by their paths, as if they were files beside the one that includes them. Raises
    `InvalidRequest` where two have one path."""
    texts: dict[str, str] = {}
    for path, text in files:
        name = posixpath.normpath(path)
        if name in texts:
            raise InvalidRequest(f"Two files have the path {path[:200]!r}; give each once.")
        texts[name] = text

    def read(path: str) -> str:
        if path not in texts:
            raise ValueError("is not among the files that were given")
        return texts[path]

    return read


@dataclass(slots=True)
class Assembly:
    """A file and all that it includes, as one tree. `starts` are the lines of its text at which the files begin, and
    `written` the files as their authors wrote them, with the values that stand for their parameters."""

    source: str
    read: Reader | None
    aliases: dict[str, str]
    texts: list[str] = field(default_factory=list[str])
    starts: list[int] = field(default_factory=list[int])
    sources: list[str] = field(default_factory=list[str])
    written: list[tuple[list[str], Mapping[str, str]]] = field(
        default_factory=list[tuple[list[str], Mapping[str, str]]]
    )
    length: int = 0
    faults: list[Fault] = field(default_factory=list[Fault])
    elsewhere: list[Fault] = field(default_factory=list[Fault])
    count: int = 0

    def located(self, fault: Fault) -> Fault:
        """The fault with the file in which it lies, and line and column there."""
        part = bisect_right(self.starts, fault.line) - 1
        line = fault.line - self.starts[part] + 1
        lines, values = self.written[part]
        column = _column(lines[line - 1], values, fault.column) if line <= len(lines) else fault.column
        return replace(fault, source=self.sources[part], line=line, column=column)

    def add_text(self, text: str, source: str, raw: str, values: Mapping[str, str]) -> int:
        """Take a text in, which was `raw` before its parameters had values; the offset at which it begins."""
        base = self.length
        self.written.append((_lines(raw), values))
        self.starts.append(1 + sum(len(_lines(one)) for one in self.texts))
        self.texts.append(text)
        self.sources.append(source)
        self.length += len(text) + 1
        return base

    def fault(
        self, tree: Tree, source: str, path: PathTuple, message: str, hint: str = "", *, key: bool = False
    ) -> None:
        """A fault in one of the files, by its own tree."""
        line, column = tree.where(path, key=key)
        self.elsewhere.append(Fault(source, line, column, path_text(path), message, hint))


def assemble(text: str, source: str, aliases: dict[str, str], read: Reader | None) -> tuple[Tree, Assembly]:
    """The tree of a workflow file with its fragments. Raises `DefinitionError` where there is none."""
    assembly = Assembly(source, read, aliases)
    tree, faults = parse(text, source, aliases)
    assembly.faults += faults
    assembly.add_text(tree.text, source, tree.text, {})
    if "fragment" in tree.root.value and "workflow" not in tree.root.value:
        line, column = tree.where(("fragment",), key=True)
        hint = "name it under `include` of a workflow file"
        raise DefinitionError([Fault(source, line, column, "fragment", "this is a fragment, and no workflow", hint)])
    if "include" in tree.root.value:
        _include(assembly, tree.root, tree, source, "", (posixpath.basename(source.replace("\\", "/")),))
        tree = Tree(tree.root, "\n".join(assembly.texts), aliases)
    return tree, assembly


def _include(assembly: Assembly, into: Node, tree: Tree, source: str, folder: str, stack: tuple[str, ...]) -> None:
    """Put what the file of `tree` includes into `into`, the root of the workflow, and take its `include` away."""
    entries: Any = tree.root.value.pop("include")
    children = tree.root.children
    for index, entry in enumerate(entries if is_list(entries) else [entries]):
        path: PathTuple = ("include", index) if is_list(entries) else ("include",)
        given = {"file": entry} if isinstance(entry, str) else entry
        if not is_object(given) or not isinstance(given.get("file"), str) or set(given) - {"file", "with"}:
            assembly.fault(tree, source, path, "this includes nothing", _HINT)
            continue
        where: PathTuple = path if isinstance(entry, str) else (*path, "file")
        name = posixpath.normpath(posixpath.join(folder, given["file"]))
        if posixpath.isabs(name) or name.split("/")[0] == ".." or "\\" in name or "\0" in name:
            message = f"{given['file']!r} leads out of the directory of the workflow file"
            assembly.fault(tree, source, where, message, "keep fragments beside it, or below")
        elif name in stack:
            way = " -> ".join((*stack[stack.index(name) :], name))
            assembly.fault(tree, source, where, f"a file cannot include itself: {way}", "take one of them out")
        elif assembly.read is None:
            message = "a text that is no file includes nothing: there is no directory to look in"
            assembly.fault(tree, source, where, message, "load it from its file, or write the fragment out")
            break
        else:
            _fragment(assembly, into, _Mention(tree, source, path, where, given.get("with") or {}), name, stack)
    del children["include"], tree.root.keys["include"]


@dataclass(frozen=True, slots=True)
class _Mention:
    """Where a file names a fragment, and with which parameters."""

    tree: Tree
    source: str
    path: PathTuple
    where: PathTuple
    given: Any


def _fragment(assembly: Assembly, into: Node, mention: _Mention, name: str, stack: tuple[str, ...]) -> None:
    assembly.count += 1
    source = posixpath.join(posixpath.dirname(assembly.source.replace("\\", "/")), name)

    def refuse(message: str, hint: str = "") -> None:
        assembly.fault(mention.tree, mention.source, mention.where, message, hint)

    if assembly.count > _MOST:
        refuse(f"more than {_MOST} fragments are included", "include fewer")
        return
    assert assembly.read is not None
    try:
        text = assembly.read(name)
    except ValueError as error:
        refuse(f"{name!r} {error}", "the path is looked up from the directory of the file that names it")
        return
    if assembly.length + len(text) > MAX_BYTES:
        refuse(f"the file and its fragments are larger than {MAX_BYTES:,} bytes", "split it up")
        return
    try:
        raw, _ = parse(text, source, assembly.aliases)
        values = _values(assembly, mention, raw, source)
        written = _PARAMETER.sub(lambda match: values.get(match[1], match[0]), raw.text)
        tree, faults = parse(written, source, assembly.aliases)
    except DefinitionError as error:
        assembly.elsewhere += error.faults
        return
    assembly.elsewhere += faults
    for key in tree.root.value:
        if key not in _KEYS:
            assembly.fault(tree, source, (key,), f"a fragment has no {key!r}", suggestion(key, _KEYS, "keys"), key=True)
    if "fragment" not in tree.root.value:
        refuse(f"{name!r} is no fragment", "a fragment begins with `fragment: NAME`")
        return
    if "include" in tree.root.value:
        _include(assembly, into, tree, source, posixpath.dirname(name), (*stack, name))
    base = assembly.add_text(tree.text, source, raw.text, values)
    for section in SECTIONS:
        _merge(assembly, into, tree, source, section, base)
    agents = tree.root.children.get("place_agents")
    if agents is not None and is_list(agents.value):
        _shift(agents, base, set())
        target = _section(into, "place_agents", agents, [])
        target.items += agents.items
        target.value += agents.value


def _values(assembly: Assembly, mention: _Mention, raw: Tree, source: str) -> Mapping[str, str]:
    """The parameters as they are written into the text."""
    declared: Any = raw.root.value.get("parameters") or {}
    given: Any = mention.given
    if not is_object(declared) or not is_object(given):
        own = (mention.tree, mention.source, mention.path)
        whose = own if is_object(declared) else (raw, source, ("parameters",))
        hint = "write NAME: DEFAULT, or NAME: null where one is needed"
        assembly.fault(*whose, "parameters are names and values", hint)
        return {}
    for name in given:
        if name not in declared:
            message, hint = f"there is no parameter {name!r}", suggestion(name, tuple(declared), "parameters")
            where: PathTuple = (*mention.path, "with", name)
            assembly.fault(mention.tree, mention.source, where, message, hint, key=True)
    values: dict[str, str] = {}
    for name, default in declared.items():
        value = given.get(name, default)
        if value is None:
            hint = f"write with: {{{name}: VALUE}}"
            assembly.fault(mention.tree, mention.source, mention.path, f"the parameter {name!r} is needed", hint)
        elif isinstance(value, str | int | float) and str(value).isprintable():
            values[name] = str(value).lower() if isinstance(value, bool) else str(value)
        else:
            message = f"the parameter {name!r} is no text of one line, number or boolean"
            assembly.fault(mention.tree, mention.source, mention.path, message, "give it another value")
    for match in _PARAMETER.finditer(raw.text):
        if match[1] not in declared:
            line, column = raw.position(match.start())
            hint = suggestion(match[1], tuple(declared), "parameters")
            assembly.elsewhere.append(Fault(source, line, column, "", f"there is no parameter {match[1]!r}", hint))
    return values


def _merge(assembly: Assembly, into: Node, tree: Tree, source: str, section: str, base: int) -> None:
    """Put a section of a fragment into that of the file."""
    own = tree.root.children.get(section)
    if own is None or own.value is None:
        return
    present = into.children.get(section)
    if not is_object(own.value) or (present is not None and not is_object(present.value)):
        whose = "a fragment" if not is_object(own.value) else "a file that includes fragments"
        message = f"{section} of {whose} is a mapping of names"
        assembly.fault(tree, source, (section,), message, f"write {section}: {{NAME: ...}} in both", key=True)
        return
    target = _section(into, section, own, {})
    for name, child in own.children.items():
        if name in target.children:
            message = f"there is another {section.removesuffix('s')} {name!r}"
            hint = "give the fragment a parameter for its names, as in $(name)_draft"
            assembly.fault(tree, source, (section, name), message, hint, key=True)
            continue
        seen: set[int] = set()
        _shift(own.keys[name], base, seen)
        _shift(child, base, seen)
        target.keys[name], target.children[name], target.value[name] = own.keys[name], child, child.value


def _section(into: Node, name: str, like: Node, empty: Any) -> Node:
    """The section of the file, made where it has none."""
    if into.children.get(name) is None or into.children[name].value is None:
        into.children[name] = Node(empty, like.start, like.end)
        into.keys[name] = Node(name, like.start, like.end)
        into.value[name] = into.children[name].value
    return into.children[name]


def _shift(node: Node, by: int, seen: set[int]) -> None:
    """Move the offsets of a node, and of all in it, each once: aliases share their nodes."""
    pending = [node]
    while pending:
        one = pending.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        one.start += by
        one.end += by
        pending += [*one.keys.values(), *one.children.values(), *one.items]


def _column(line: str, values: Mapping[str, str], column: int) -> int:
    """Where something stands in a line as it was written, by where it stands with the values of parameters."""
    shift = 0
    for match in _PARAMETER.finditer(line):
        longer = len(values.get(match[1], match[0])) - len(match[0])
        if match.start() + shift + len(match[0]) + longer >= column:
            return max(min(column - shift, match.start() + 1), 1) if match.start() + shift < column else column - shift
        shift += longer
    return column - shift


def _lines(text: str) -> list[str]:
    return re.split(r"\r\n|\n|\r", text)
