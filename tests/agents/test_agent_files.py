"""The tools for files: what they do, and that nothing leads out of their root."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuit.agents.toolbox.files import MOST_LINES, NAMES, file_tools
from circuit.agents.toolbox.root import Root
from circuit.agents.tools import Tool, ToolContext, call_tool
from circuit.definition.tool_document import FILE_TOOLS
from circuit.errors import ToolDenied, ToolError, ToolFailed

AROUND = ToolContext("case.1", "a", "c", "k")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_text("pear\napple\napple\n10 figs\n9 dates\n")
    (root / "sub" / "b.py").write_text("x = 1\ny = 'two'\n")
    (root / "data.json").write_text('{"items": [{"name": "a", "price": 2}, {"name": "b", "price": 5}]}')
    (root / "data.csv").write_text("name,city\nAda,Bonn\nBob,Rome\n")
    (tmp_path / "secret.txt").write_text("secret")
    return root


async def use(home: Path, name: str, *, root: Root | None = None, **arguments: Any) -> Any:
    tools: dict[str, Tool] = {tool.name: tool for tool in file_tools(root or Root(home))}
    return await call_tool(tools[f"fs.{name}"], arguments, AROUND)


async def test_reading_and_writing(home: Path) -> None:
    assert await use(home, "read_file", path="a.txt", offset=2, limit=2) == (
        "2\tapple\n3\tapple\n[2 more lines: read on with offset 4]"
    )
    await use(home, "write_file", path="new/deep/c.txt", content="eins zwei zwei")
    assert (home / "new" / "deep" / "c.txt").read_text() == "eins zwei zwei"
    with pytest.raises(ToolFailed, match="2 times"):
        await use(home, "edit_file", path="new/deep/c.txt", old="zwei", new="drei")
    await use(home, "edit_file", path="new/deep/c.txt", old="zwei", new="drei", every=True)
    assert (home / "new" / "deep" / "c.txt").read_text() == "eins drei drei"
    with pytest.raises(ToolFailed, match="does not stand"):
        await use(home, "edit_file", path="a.txt", old="plum", new="")
    assert sorted(path.name for path in (home / "new" / "deep").iterdir()) == ["c.txt"]


async def test_finding(home: Path) -> None:
    assert await use(home, "list") == ["a.txt", "data.csv", "data.json", "sub/"]
    assert await use(home, "glob", pattern="**/*.py") == ["sub/b.py"]
    assert await use(home, "grep", pattern="^[xy] =") == ["sub/b.py:1:x = 1", "sub/b.py:2:y = 'two'"]
    assert await use(home, "grep", pattern="APPLE", path="a.txt", ignore_case=True) == [
        "a.txt:2:apple",
        "a.txt:3:apple",
    ]
    with pytest.raises(ToolError):
        await use(home, "grep", pattern="(")
    # What would hang a backtracking engine for years.
    (home / "evil.txt").write_text("a" * 2_000)
    assert await use(home, "grep", pattern="(a+)+$x", path="evil.txt") == []


async def test_the_utilities(home: Path) -> None:
    assert await use(home, "head", path="a.txt", lines=1) == "pear"
    assert await use(home, "tail", path="a.txt", lines=1) == "9 dates"
    assert (await use(home, "sort", path="a.txt", numeric=True)).splitlines()[-2:] == ["9 dates", "10 figs"]
    assert (await use(home, "sort", path="a.txt", unique=True)).splitlines() == ["10 figs", "9 dates", "apple", "pear"]
    assert "2\tapple" in await use(home, "uniq", path="a.txt")
    assert (await use(home, "wc", path="a.txt"))["lines"] == 5
    assert "-pear" in await use(home, "diff", old="a.txt", new="sub/b.py")
    assert (await use(home, "stat", path="sub"))["kind"] == "directory"
    assert await use(home, "json_query", path="data.json", query="doc.items.filter(i, i.price > 3).map(i, i.name)") == [
        "b"
    ]
    assert await use(home, "csv_query", path="data.csv", query="rows.filter(r, r.city == 'Bonn').map(r, r.name)") == [
        "Ada"
    ]
    with pytest.raises(ToolError, match="no expression"):
        await use(home, "json_query", path="data.json", query="doc.")
    with pytest.raises(ToolFailed, match="not JSON"):
        await use(home, "json_query", path="a.txt", query="doc")


@pytest.mark.parametrize(
    "path", ["../secret.txt", "/etc/passwd", "sub/../../secret.txt", "a\0b", "link", "dir/secret.txt"]
)
@pytest.mark.parametrize("name", ["read_file", "write_file", "stat"])
async def test_nothing_leads_out(home: Path, path: str, name: str) -> None:
    (home / "link").symlink_to(home.parent / "secret.txt")
    (home / "dir").symlink_to(home.parent)
    with pytest.raises(ToolDenied):
        await use(home, name, path=path, **({"content": "x"} if name == "write_file" else {}))
    assert (home.parent / "secret.txt").read_text() == "secret"


async def test_links_are_not_walked(home: Path) -> None:
    (home / "dir").symlink_to(home.parent)
    assert await use(home, "grep", pattern="secret") == []
    assert "dir/" not in await use(home, "list")


def test_a_link_that_is_put_there_in_between_leads_nowhere(home: Path) -> None:
    """Somebody swaps a directory for a link out of the root, as fast as the machine can, while it is read."""
    root, stop = Root(home), threading.Event()
    (home.parent / "outside").mkdir()
    (home.parent / "outside" / "b.py").write_text("secret")

    def swap() -> None:
        link = home / "link"
        while not stop.is_set():
            link.symlink_to(home.parent / "outside")
            (home / "sub").rename(home / "kept")
            link.rename(home / "sub")
            (home / "sub").rename(home / "link2")
            (home / "kept").rename(home / "sub")
            (home / "link2").unlink()

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        read = tries = 0
        while tries < 3_000 or not read:
            tries += 1
            try:
                text = root.read("sub/b.py")
            except ToolError:
                continue
            assert "secret" not in text
            read += 1
    finally:
        stop.set()
        swapper.join()


@given(path=st.text(st.sampled_from("ab./\\~$ \u2028"), max_size=20))
def test_whatever_a_path_is_it_stays_below(path: str) -> None:
    root = Root(Path("/nonexistent-root"))
    try:
        parts = root._parts(path)
    except ToolError:
        return
    assert ".." not in parts
    assert not any("/" in part for part in parts)


async def test_limits(home: Path) -> None:
    small = Root(home, read_only=("sub/*", "*.md"), extensions=(".txt", ".py", ".md"), limit=100)
    with pytest.raises(ToolDenied, match="read-only"):
        await use(home, "write_file", root=small, path="sub/b.py", content="x")
    with pytest.raises(ToolDenied, match=r"\.txt"):
        await use(home, "read_file", root=small, path="data.json")
    with pytest.raises(ToolFailed, match="100 may be written"):
        await use(home, "write_file", root=small, path="big.txt", content="x" * 101)
    (home / "big.txt").write_text("x" * 101)
    with pytest.raises(ToolFailed, match="100 may be read"):
        await use(home, "read_file", root=small, path="big.txt")
    os.mkfifo(home / "pipe.txt")
    with pytest.raises(ToolFailed, match="not a file"):
        await use(home, "read_file", root=small, path="pipe.txt")


async def test_a_directory_is_protected_with_all_that_lies_in_it(home: Path) -> None:
    for pattern in ("sub", "sub/", "s*"):
        with pytest.raises(ToolDenied, match="read-only"):
            await use(home, "write_file", root=Root(home, read_only=(pattern,)), path="sub/new/c.py", content="x")


def test_what_cannot_be_read_holds_nothing_open(home: Path) -> None:
    os.mkfifo(home / "pipe")
    root, before = Root(home), _descriptors()
    for _ in range(50):
        for path in ("sub", "pipe"):
            with pytest.raises(ToolFailed, match="is not a file"):
                root.read(path)
    assert _descriptors() < before + 50
    with pytest.raises(ToolFailed, match="neither a file nor a directory"):
        root.entry("pipe")


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_names_and_contents_that_are_no_utf8(home: Path) -> None:
    (home / os.fsdecode(b"bad\xff.txt")).write_text("found")
    assert "bad\ufffd.txt" in await use(home, "list")
    assert await use(home, "glob", pattern="bad*") == ["bad\ufffd.txt"]
    assert await use(home, "grep", pattern="found") == ["bad\ufffd.txt:1:found"]
    with pytest.raises(ToolDenied, match="half of a character"):
        await use(home, "write_file", path="\udcff", content="x")
    (home / "latin.txt").write_bytes("Grüße".encode("latin-1"))
    with pytest.raises(ToolFailed, match="not text in UTF-8"):
        await use(home, "edit_file", path="latin.txt", old="G", new="g")
    assert (home / "latin.txt").read_bytes() == "Grüße".encode("latin-1")


async def test_writing_changes_the_content_alone(home: Path) -> None:
    (home / "run.sh").write_text("echo a")
    (home / "run.sh").chmod(0o750)
    await use(home, "edit_file", path="run.sh", old="a", new="b")
    assert (home / "run.sh").stat().st_mode & 0o777 == 0o750
    before = await use(home, "list")
    with pytest.raises(ToolFailed, match="too long"):
        await use(home, "write_file", path="x" * 300, content="x")
    assert await use(home, "list") == before


async def test_lines_and_patterns_are_those_of_other_tools(home: Path) -> None:
    (home / "a.txt").write_text("one\u2028still one\x0c\r\ntwo\n")
    assert await use(home, "tail", path="a.txt", lines=1) == "two"
    assert (await use(home, "wc", path="a.txt"))["lines"] == 2
    (home / "sub" / "deep").mkdir()
    (home / "sub" / "deep" / "b.py").write_text("")
    assert await use(home, "glob", pattern="sub/*") == ["sub/b.py"]
    assert await use(home, "glob", pattern="**/b.py") == ["sub/b.py", "sub/deep/b.py"]
    assert await use(home, "glob", pattern="*.[") == []
    (home / "data.csv").write_text("\ufeffname\nAda\n")
    assert await use(home, "csv_query", path="data.csv", query="rows[0].name") == "Ada"
    (home / "data.json").write_text("\ufeff[1]")
    assert await use(home, "json_query", path="data.json", query="doc[0]") == 1
    for number in range(MOST_LINES):
        (home / f"n{number}").touch()
    assert (await use(home, "list"))[-1].startswith("[4 more")


def test_every_tool_has_a_description_and_a_schema(home: Path) -> None:
    tools = list(file_tools(Root(home)))
    assert tuple(tool.name for tool in tools) == NAMES == FILE_TOOLS
    for tool in tools:
        assert tool.spec.description
        assert tool.spec.parameters["additionalProperties"] is False
        assert "root" not in tool.spec.parameters["properties"]
