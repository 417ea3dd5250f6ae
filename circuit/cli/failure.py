"""The one place that turns an error into what a command prints and the code that it exits with."""

from __future__ import annotations

import re
import traceback
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from circuit.cli.terminal import Terminal, clean
from circuit.errors import CircuitError, DefinitionError, Fault
from circuit.surface import surface

USAGE = 2
_SOURCE_LIMIT = 4 * 1024 * 1024
_LINE_WIDTH = 160
_SECRET = re.compile(r"(^|\.)(api_key|headers|base_url|url|env|(llm_provider|fallback\[\d+\])\.options)\b")
"""Where a file may hold by mistake what must not be shown again."""


def report(error: BaseException, terminal: Terminal, *, debug: bool = False) -> int:
    """Say on `terminal` what went wrong; the exit code. A traceback only shows with `debug`."""
    if debug:
        terminal.note("".join(traceback.format_exception(error)).rstrip())
    if isinstance(error, CircuitError):
        code, message, details, status = error.code, error.message, error.details, surface(error.code).exit
    elif isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        code, message, details, status = "io_error", f"{where}{error.strerror}", {}, 1
    else:
        code, details, status = "internal_error", {}, 1
        message = f"{type(error).__name__}: {error}"
        if not debug:
            message += " (a fault of Circuit itself; CIRCUIT_LOG_LEVEL=debug shows the traceback)"
    if terminal.json:
        terminal.result(error_object(code, message, details))
    elif isinstance(error, DefinitionError):
        secret = {fault.line for fault in error.faults if _SECRET.search(fault.path)}
        for fault in error.faults:
            terminal.note(fault_text(fault, hidden=secret))
        count = len(error.faults)
        terminal.note(f"error: {count} fault{'' if count == 1 else 's'} in the workflow")
    else:
        terminal.note(f"error: {clean(message)}")
    return status


def report_usage(message: str, hint: str, terminal: Terminal) -> int:
    """Say how a command was misused; the exit code."""
    if terminal.json:
        terminal.result(error_object("usage", message, {"hint": hint} if hint else {}))
    else:
        terminal.note(f"error: {clean(message)}")
        if hint:
            terminal.note(clean(hint))
    return USAGE


def error_object(code: str, message: str, details: dict[str, Any]) -> dict[str, Any]:
    """An error in the shape that it has everywhere: in the API's answers too."""
    timestamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"error": {"code": code, "message": message, "details": details, "timestamp": timestamp}}


def fault_text(fault: Fault, *, hidden: Collection[int] = ()) -> str:
    """`fault` with the line that it lies in, unless that is `hidden`, and a caret under its column."""
    text = clean(str(fault))
    line = None if fault.line in hidden else _source_line(fault)
    if line is None:
        return text
    at = min(max(fault.column - 1, 0), len(line))
    begin = max(0, at - _LINE_WIDTH // 2)
    shown = line[begin : begin + _LINE_WIDTH]
    before = clean(shown[: at - begin], keep="")
    return f"{text}\n    {clean(shown, keep='')}\n    {' ' * len(before)}^"


def _source_line(fault: Fault) -> str | None:
    if fault.line < 1:
        return None
    try:
        path = Path(fault.source)
        if not path.is_file() or path.stat().st_size > _SOURCE_LIMIT:
            return None
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, ValueError):
        return None
    return lines[fault.line - 1] if fault.line <= len(lines) and lines[fault.line - 1].strip() else None
