"""The map of files in `docs/explanation/architecture.md`, made from the first sentence of each file's docstring.

`python -m tests.docs.file_map` writes it anew.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/explanation/architecture.md"
BEGIN, END = "<!-- files -->\n", "<!-- /files -->\n"


def sentence(path: Path) -> str:
    """The first sentence of the docstring."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.:!])\s", text)[0].rstrip(".:")


def rendered() -> str:
    """One table per folder, from the top layer down as the folders are named."""
    folders: dict[str, list[Path]] = {}
    for path in sorted((ROOT / "circuit").rglob("*.py")):
        if path.name != "__init__.py" or sentence(path):
            folders.setdefault(path.parent.relative_to(ROOT).as_posix(), []).append(path)
    parts: list[str] = []
    for folder, paths in folders.items():
        rows = [f"| `{path.name}` | {sentence(path).replace('|', chr(92) + '|')} |" for path in paths]
        parts.append("\n".join([f"### `{folder}/`", "| File | What it is |", "|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def written(page: str) -> str:
    """`page` with the map in its place."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return head + BEGIN + rendered() + END + tail


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
