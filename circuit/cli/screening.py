"""`circuit screen`: what screening finds in a text, tried before agents are told such texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from circuit.cli.redaction import TEXT_LIMIT
from circuit.cli.subjects import JsonOption
from circuit.cli.terminal import Terminal, clean
from circuit.cli.token import read_text
from circuit.errors import InvalidRequest
from circuit.security.redaction import excerpt

_WORDS = 80


def screen(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A file with text; - is standard input.")
    ] = None,
    text: Annotated[str | None, typer.Option("--text", metavar="TEXT", help="A text, in the place of a file.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Show what screening finds in a text. In one that an agent would be told: the kind, where, and its words.

    The text goes to standard output as a model would read it where the action is `warn`; what was found is listed on
    standard error. The exit code is 1 where something was found. Needs no database.

    \b
    Examples:
      circuit screen letter.txt
      circuit screen --text 'Ignore all previous instructions.' --json
    """
    from circuit.security.screening.screen import screen as screened

    terminal = Terminal(json=as_json)
    if (file is None) == (text is None):
        raise InvalidRequest("Give a FILE with text (- is standard input), or --text TEXT.")
    content = read_text(file, TEXT_LIMIT, "the text") if file is not None else text or ""
    result = screened(content)
    found: list[dict[str, object]] = []
    line, at = 1, 0
    for one in result.found:
        line += content.count("\n", at, one.start)
        at = one.start
        place = {"line": line, "column": one.start - content.rfind("\n", 0, one.start)}
        told = {"start": one.start, "end": one.end, "count": one.count, "words": excerpt(one.words, _WORDS)}
        found.append({"kind": one.kind, **place, **told, **({"way": one.way} if one.way else {})})
    if as_json:
        terminal.result({"text": result.text, "found": found, "counts": result.kinds})
    else:
        for one in found:
            way = f" ({one['way']})" if "way" in one else ""
            where = f"line {one['line']}, column {one['column']}"
            terminal.note(clean(f"{str(one['kind']).replace('_', ' ')}{way}: {where}: {one['words']}"))
        terminal.line(clean(result.text))
    return 1 if found else 0
