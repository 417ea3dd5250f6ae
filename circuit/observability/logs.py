"""Logs for programs: one JSON object a line, which says which case and which execution it is about.

Whatever is logged while an execution runs is about that execution; beside that, a case or an execution among the
arguments of a message is what it is about.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, cast

import orjson

from circuit.ids import CaseKey, Numbered
from circuit.tracing import current

_about: ContextVar[Mapping[str, str] | None] = ContextVar("circuit_about", default=None)


@contextmanager
def about(case_id: str, execution_id: str) -> Generator[None]:
    """What is logged within the block, and in the tasks that it starts, is about this execution."""
    token = _about.set({"case_id": case_id, "execution_id": execution_id})
    try:
        yield
    finally:
        _about.reset(token)


class AboutFilter(logging.Filter):
    """Notes on each record what it is about, at the place where it is logged."""

    def filter(self, record: logging.LogRecord) -> bool:
        found = dict(_about.get() or {})
        span = current()
        context = None if span is None else span.context
        if context is not None:
            found |= {"trace_id": f"{context.trace:032x}", "span_id": f"{context.span:016x}"}
        arguments: Any = record.args
        for value in cast("tuple[Any, ...]", arguments) if isinstance(arguments, tuple) else ():
            if isinstance(value, CaseKey):
                found["case_id"] = str(value)
            elif isinstance(value, Numbered):
                found |= {"case_id": str(value.case), "execution_id": str(value)}
        record.about = found
        return True


class JSONFormatter(logging.Formatter):
    """A record as one line of JSON: `at`, `level`, `logger`, `message`, `case_id`, `execution_id`, `error`."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line: dict[str, Any] = {
            "at": at,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "about", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        # A line break within a message is an escape in JSON, so nobody can slip a line of his own in.
        return orjson.dumps(_plain(line)).decode()


def _plain(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
        for name, value in line.items()
    }
