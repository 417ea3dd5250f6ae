"""Where commands write: standard output for people or for one JSON value, standard error for everything else.

What users and models wrote reaches a terminal only through `clean`, so that no text can move the cursor, change a
title or pass for markup.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

import orjson

if TYPE_CHECKING:
    from rich.console import Console

# Direction overrides make a line read as something that it is not.
_WIDEST = 200
"""A column of plain text is not filled up beyond this."""
_DIRECTION = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
_UNSEEN = {0x200B, *range(0x2060, 0x2065), 0xFEFF, *range(0xE0000, 0xE0080)}


def clean(text: str, *, keep: str = "\n") -> str:
    """`text` with every control character but those in `keep` written as an escape; a tab becomes spaces."""
    if text.isprintable():
        return text
    text = text.replace("\r\n", "\n")
    return "".join(character if character in keep else _visible(character) for character in text)


def _visible(character: str) -> str:
    code = ord(character)
    if character == "\t":
        return "    "
    if code < 0x20 or 0x7F <= code < 0xA0:
        return f"\\x{code:02x}"
    if code in _DIRECTION or code in _UNSEEN or code in (0x2028, 0x2029) or 0xD800 <= code < 0xE000:
        return f"\\u{code:04x}"
    return character


def one_line(text: str, width: int = 0) -> str:
    """`text` on one line, without control characters, cut to `width` characters where that is not 0."""
    line = " ".join(clean(text, keep="\n").split())
    return line if not width or len(line) <= width else line[: width - 3] + "..."


def compact(value: Any, width: int = 0) -> str:
    """`value` as JSON on one line, fit for a terminal."""
    return one_line(orjson.dumps(value, default=str).decode(), width)


def _write(stream: TextIO, text: str) -> None:
    stream.write(text + "\n")
    stream.flush()


class Terminal:
    """The two streams of a command. With `json`, standard output gets one JSON value and nothing else."""

    answered: ClassVar[bool] = False
    """Whether the command that this process runs has given its JSON value."""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self._open = False
        for stream in (sys.stdout, sys.stderr):
            # A terminal that cannot show a character shows its escape: no command fails over an encoding.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    @property
    def _text(self) -> TextIO:
        return sys.stderr if self.json else sys.stdout

    @property
    def interactive(self) -> bool:
        """Whether people's output goes to a terminal that understands control codes."""
        return bool(self._text.isatty()) and not self.console().is_dumb_terminal

    @property
    def width(self) -> int:
        """Columns of the terminal; 100 where there is none."""
        if not self.interactive:
            return 100
        try:
            return max(os.get_terminal_size(self._text.fileno()).columns, 20)
        except (OSError, ValueError):
            return 80

    def console(self) -> Console:
        """A Rich console on people's output, which takes no text for markup."""
        from rich.console import Console

        return Console(file=self._text, markup=False, highlight=False, emoji=False)

    def line(self, text: str = "") -> None:
        """One line for people, written at once. `text` is taken as it is: pass what others wrote through `clean`."""
        self.end()
        _write(self._text, text)

    def note(self, text: str) -> None:
        """One line on standard error."""
        self.end()
        _write(sys.stderr, text)

    def piece(self, text: str) -> None:
        """Text for people as it comes, which others wrote; what comes next goes on behind it."""
        text = clean(text)
        self._text.write(text)
        self._text.flush()
        self._open = not text.endswith("\n") if text else self._open

    def aside(self, text: str) -> None:
        """Text beside what is said, as it comes; shown on a terminal only, and faint there."""
        if self.interactive and text:
            self.console().print(clean(text), style="dim", end="", soft_wrap=True)
            self._open = not text.endswith("\n")

    def end(self) -> None:
        """End a line of pieces, if there is one."""
        if self._open:
            self._open = False
            _write(self._text, "")

    def result(self, value: Any) -> None:
        """The JSON value that the command gives."""
        Terminal.answered = True
        data = orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS, default=str)
        buffer = getattr(sys.stdout, "buffer", None)
        if buffer is None:
            _write(sys.stdout, data.decode())
        else:
            sys.stdout.flush()
            buffer.write(data + b"\n")
            buffer.flush()

    def row(self, value: Any) -> None:
        """One JSON value on a line of its own, of a command that gives one after the other."""
        Terminal.answered = True
        _write(sys.stdout, orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS, default=str).decode())

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], *, whole: str = "") -> None:
        """A table: drawn on a terminal, columns of plain text elsewhere.

        The column `whole` stands on one line however narrow the terminal is, so that it can be copied.
        """
        cells = [[one_line(cell) for cell in row] for row in rows]
        if self.interactive:
            from rich.table import Table
            from rich.text import Text

            table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
            for name in head:
                table.add_column(name, no_wrap=name == whole, min_width=36 if name == whole else None)
            for row in cells:
                table.add_row(*(Text(cell, overflow="fold") for cell in row))
            self.console().print(table)
            return
        # One long cell must not make every row as long.
        widths = [min(_WIDEST, max(len(row[index]) for row in [head, *cells])) for index in range(len(head))]
        for row in [list(head), *cells]:
            self.line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
