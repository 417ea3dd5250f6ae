"""Tools for files below one root: read, write, edit, and what the usual utilities do with text."""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from pydantic import Field

from circuit.agents.function import function_tool
from circuit.agents.toolbox.root import Root
from circuit.agents.tools import Tool
from circuit.errors import ToolArgumentsInvalid, ToolFailed
from circuit.expressions.cel import EvaluationFault, Expression, ExpressionFault, compile_expression
from circuit.threads import Threads

PREFIX = "fs."
_MARK = "\ufeff"
"""May stand at the beginning of a text, and is no part of it."""
MOST_LINES = 2_000
LONGEST_LINE = 2_000
MOST_HITS = 200

FilePath = Annotated[str, Field(description="Path relative to the root, such as notes/today.md.")]
Count = Annotated[int, Field(ge=1, le=MOST_LINES)]


def read_file(root: Root, path: FilePath, offset: Annotated[int, Field(ge=1)] = 1, limit: Count = MOST_LINES) -> str:
    """Read lines of a text file, from line `offset` (counted from 1). The lines come with their numbers."""
    lines = _lines(root, path)
    chosen = lines[offset - 1 : offset - 1 + limit]
    text = "\n".join(f"{number}\t{_cut(line)}" for number, line in enumerate(chosen, offset))
    left = len(lines) - (offset - 1 + len(chosen))
    return text + (f"\n[{left} more lines: read on with offset {offset + len(chosen)}]" if left > 0 else "")


def write_file(root: Root, path: FilePath, content: str) -> str:
    """Write a text file, whole. What was in it before is lost; directories are made."""
    return f"wrote {root.write(path, content)} bytes to {path}"


def edit_file(root: Root, path: FilePath, old: str, new: str, every: bool = False) -> str:
    """Replace the text `old` in a file by `new`. It must stand there exactly once, unless `every` is true."""
    if not old:
        raise ToolArgumentsInvalid("old must not be empty: use write_file for a new file")
    try:
        text = root.read_bytes(path).decode()
    except UnicodeDecodeError:
        # Written back, all else in it would be lost.
        raise ToolFailed(f"{path} is not text in UTF-8, and is not edited") from None
    count = text.count(old)
    if count == 0:
        raise ToolFailed(f"the text to replace does not stand in {path}: read the file and copy it exactly")
    if count > 1 and not every:
        raise ToolFailed(f"the text to replace stands in {path} {count} times: give more of it, or set every")
    root.write(path, text.replace(old, new))
    return f"replaced {count} in {path}"


def list_files(root: Root, path: FilePath = ".") -> list[str]:
    """List what lies in a directory. Directories end with a slash."""
    return _some([_shown(entry.path) + ("/" if entry.directory else "") for entry in root.entries(path)])


def glob(root: Root, pattern: Annotated[str, Field(description="Such as **/*.py or notes/*.md.")]) -> list[str]:
    """Find files by a pattern of their path: * stands for any part of a name, ** for any directories."""
    fits = _pattern(pattern)
    return _some(sorted(_shown(entry.path) for entry in root.walk() if not entry.directory and fits(entry.path)))


def grep(
    root: Root,
    pattern: Annotated[str, Field(description="A regular expression (RE2).")],
    path: FilePath = ".",
    files: Annotated[str, Field(description="Which files, as a pattern.")] = "**",
    ignore_case: bool = False,
) -> list[str]:
    """Find lines that a regular expression fits, in a file or in all files of a directory: PATH:LINE:TEXT."""
    # RE2 takes linear time, whatever a model writes; Python's own engine can be made to hang.
    fits = _expression("line.matches(pattern)", "line", "pattern")
    asked = f"(?i){pattern}" if ignore_case else pattern
    chosen = _pattern(files)
    start = root.entry(path)
    paths = [entry.path for entry in root.walk(path) if not entry.directory] if start.directory else [start.path]
    hits: list[str] = []
    for one in sorted(paths):
        if not chosen(one):
            continue
        try:
            content = root.read_bytes(one)
        except ToolFailed:
            continue
        if b"\0" in content[:8192]:
            continue
        for number, line in enumerate(_split(content.decode("utf-8", "replace")), 1):
            if _evaluate(fits, line=_cut(line), pattern=asked):
                hits.append(f"{_shown(one)}:{number}:{_cut(line)}")
                if len(hits) == MOST_HITS:
                    return [*hits, f"[more than {MOST_HITS} lines: narrow the search]"]
    return hits


def head(root: Root, path: FilePath, lines: Count = 10) -> str:
    """The first lines of a file."""
    return "\n".join(_cut(line) for line in _lines(root, path)[:lines])


def tail(root: Root, path: FilePath, lines: Count = 10) -> str:
    """The last lines of a file."""
    return "\n".join(_cut(line) for line in _lines(root, path)[-lines:])


def sort(root: Root, path: FilePath, reverse: bool = False, numeric: bool = False, unique: bool = False) -> str:
    """The lines of a file in order."""
    lines = _lines(root, path)
    lines = list(dict.fromkeys(lines)) if unique else lines
    lines.sort(key=_number if numeric else str, reverse=reverse)
    return _page(lines)


def uniq(root: Root, path: FilePath) -> str:
    """The lines of a file, neighbours that are the same as one, each with how often it stood there."""
    runs: list[tuple[int, str]] = []
    for line in _lines(root, path):
        if runs and runs[-1][1] == line:
            runs[-1] = (runs[-1][0] + 1, line)
        else:
            runs.append((1, line))
    return _page([f"{count}\t{line}" for count, line in runs])


def wc(root: Root, path: FilePath) -> dict[str, int]:
    """Count lines, words, characters and bytes of a file."""
    content = root.read_bytes(path)
    text = content.decode("utf-8", "replace")
    return {"lines": len(_split(text)), "words": len(text.split()), "characters": len(text), "bytes": len(content)}


def diff(root: Root, old: FilePath, new: FilePath) -> str:
    """What differs between two files, as a unified diff."""
    lines = difflib.unified_diff(_lines(root, old), _lines(root, new), old, new, lineterm="")
    return _page(list(lines)) or "the files are the same"


def stat(root: Root, path: FilePath) -> dict[str, Any]:
    """What a path is: file or directory, its size, and when it was last changed."""
    entry = root.entry(path)
    modified = datetime.fromtimestamp(entry.modified, UTC).isoformat(timespec="seconds")
    return {"path": entry.path, "kind": "directory" if entry.directory else "file", "size": entry.size,
            "modified": modified}  # fmt: skip


def json_query(
    root: Root,
    path: FilePath,
    query: Annotated[str, Field(description="CEL over `doc`, as doc.items.filter(i, i.price > 3).map(i, i.name).")],
) -> Any:
    """Ask something of a JSON file with a CEL expression; `doc` is its value."""
    try:
        doc = json.loads(root.read(path).removeprefix(_MARK))
    except (ValueError, RecursionError) as error:
        raise ToolFailed(f"{path} is not JSON: {error}") from None
    return _evaluate(_expression(query, "doc"), doc=doc)


def csv_query(
    root: Root,
    path: FilePath,
    query: Annotated[str, Field(description="CEL over `rows`, as rows.filter(r, r.city == 'Bonn').map(r, r.name).")],
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ",",
) -> Any:
    """Ask something of a CSV file with a CEL expression; `rows` are objects by the names in its first line."""
    text = io.StringIO(root.read(path).removeprefix(_MARK), newline="")
    try:
        rows = list(csv.DictReader(text, delimiter=delimiter, restkey="more"))
    except csv.Error as error:
        raise ToolFailed(f"{path} is not CSV: {error}") from None
    return _evaluate(
        _expression(query, "rows"), rows=[{key: value or "" for key, value in row.items()} for row in rows]
    )


_TOOLS: dict[str, Callable[..., Any]] = {
    "read_file": read_file, "write_file": write_file, "edit_file": edit_file, "list": list_files, "glob": glob,
    "grep": grep, "head": head, "tail": tail, "sort": sort, "uniq": uniq, "wc": wc, "diff": diff, "stat": stat,
    "json_query": json_query, "csv_query": csv_query,
}  # fmt: skip
NAMES = tuple(PREFIX + name for name in _TOOLS)


def file_tools(root: Root, threads: Threads | None = None) -> Iterator[Tool]:
    """All tools for files below `root`."""
    for name, call in _TOOLS.items():
        bound = partial(call, root)
        bound.__doc__ = call.__doc__  # type: ignore[misc]
        description = " ".join((call.__doc__ or "").split())
        yield function_tool(PREFIX + name, bound, description=description, threads=threads)


def _lines(root: Root, path: str) -> list[str]:
    return _split(root.read(path))


def _split(text: str) -> list[str]:
    """The lines of a text. Python would end some at a form feed or U+2028, too, where no editor counts one."""
    lines = text.replace("\r\n", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


def _shown(path: str) -> str:
    """A path as text: what is no UTF-8 in a name is shown as `\ufffd`."""
    return path if path.isprintable() else path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _some(names: list[str]) -> list[str]:
    left = len(names) - MOST_LINES
    return [*names[:MOST_LINES], f"[{left} more: look in one of the directories]"] if left > 0 else names


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + "…"


def _page(lines: list[str]) -> str:
    left = len(lines) - MOST_LINES
    return "\n".join(_cut(line) for line in lines[:MOST_LINES]) + (f"\n[{left} more lines]" if left > 0 else "")


def _number(line: str) -> float:
    try:
        return float(line.split()[0])
    except (ValueError, IndexError):
        return float("-inf")


def _pattern(pattern: str) -> Callable[[str], bool]:
    """What says whether a path fits a pattern: `*` and `?` stay within a name, `**/` may be nothing."""
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    made = "".join(known.get(part) or re.escape(part) for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern))
    fits = _expression("path.matches(pattern)", "path", "pattern")
    return lambda path: bool(_evaluate(fits, path=_shown(path), pattern=f"^(?s:{made})$"))


def _expression(source: str, *names: str) -> Expression:
    try:
        return compile_expression(source, names)
    except ExpressionFault as fault:
        raise ToolArgumentsInvalid(f"the query is no expression: {fault}") from None


def _evaluate(expression: Expression, **values: Any) -> Any:
    try:
        return expression.evaluate(values)
    except EvaluationFault as fault:
        raise ToolFailed(f"the query has no value: {fault}") from None
