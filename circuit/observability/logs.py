"""Logs for programs: one JSON object a line, which says which case and which execution it is about.

Whatever is logged while an execution runs is about that execution; beside that, a case or an execution among the
arguments of a message is what it is about. Nothing is written as it was logged: secrets, and what the rules of
redaction name, are taken out of messages and tracebacks by the formatter, which every record goes through last.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, cast

import orjson

from circuit.errors import DatabaseUnreachable
from circuit.ids import CaseKey, Numbered
from circuit.security.redaction import redact
from circuit.security.redactor import Redactor
from circuit.security.rules import Rule
from circuit.tracing import current

LONGEST_SAID = 64 * 1024
"""Characters of a message, or of a traceback, that are logged: they are redacted where others wait."""
AWAY_SECONDS = 10.0
_NOT_SHOWN = "[not shown: it could not be redacted]"

_about: ContextVar[Mapping[str, str] | None] = ContextVar("circuit_about", default=None)
_rules: ContextVar[Sequence[Rule]] = ContextVar("circuit_rules", default=())


@contextmanager
def about(case_id: str, execution_id: str, rules: Sequence[Rule] = ()) -> Generator[None]:
    """What is logged within the block, and in the tasks that it starts, is about this execution, and redacted by these
    rules too."""
    token, ruled = _about.set({"case_id": case_id, "execution_id": execution_id}), _rules.set(rules)
    try:
        yield
    finally:
        _about.reset(token)
        _rules.reset(ruled)


def ruled() -> Sequence[Rule]:
    """The rules of redaction of what goes on here, beside those of the deployment."""
    return _rules.get()


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


class AwayFilter(logging.Filter):
    """Lets the same warning that the database is away through once in `AWAY_SECONDS`: each of a dozen parts of a
    process tries again several times a second, and a reader wants to see that it is away, and what else there is."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        arguments: Any = record.args
        values = cast("tuple[Any, ...]", arguments) if isinstance(arguments, tuple) else ()
        if record.levelno > logging.WARNING or not any(isinstance(value, DatabaseUnreachable) for value in values):
            return True
        # Where it was logged, not what it says: the words of the driver differ from one try to the next.
        key = record.name, str(record.msg)
        said = self._said.get(key)
        if said is not None and 0 <= record.created - said < AWAY_SECONDS:
            return False
        self._said[key] = record.created
        return True


class RedactingFormatter(logging.Formatter):
    """Hands `inner` each record without secrets and without what the rules for logs name."""

    def __init__(self, inner: logging.Formatter, redactor: Redactor, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._inner = inner
        self._redactor = redactor
        self._secrets = tuple(secrets)

    def format(self, record: logging.LogRecord) -> str:
        shown = copy.copy(record)
        shown.msg, shown.args = self._said(record), None
        if record.exc_info:
            # Not `exc_text`, in which another handler may have kept the traceback as it is.
            shown.exc_text, shown.exc_info = self._clean(self.formatException(record.exc_info)), None
        elif record.exc_text:
            shown.exc_text = self._clean(record.exc_text)
        if record.stack_info:
            shown.stack_info = self._clean(record.stack_info)
        return self._inner.format(shown)

    def _said(self, record: logging.LogRecord) -> str:
        try:
            message = record.getMessage()
        except Exception:
            # Whoever reports that arguments do not fit their message would print both.
            return _NOT_SHOWN
        return self._clean(message)

    def _clean(self, text: str) -> str:
        try:
            text, redaction = redact(text, self._secrets), self._redactor.at("logs", ruled())
            if len(text) <= LONGEST_SAID:
                return redaction.text(text)
            # Nothing of what is cut in two is shown.
            begin, stream = text[:LONGEST_SAID], redaction.stream()
            said = begin if stream is None else stream.feed(begin)
            return f"{said} [cut off: it has {len(text):,} characters]"
        except Exception:
            return _NOT_SHOWN


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
        if record.exc_info or record.exc_text:
            line["error"] = record.exc_text or self.formatException(record.exc_info or (None, None, None))
        # A line break within a message is an escape in JSON, so nobody can slip a line of his own in.
        return orjson.dumps(_plain(line)).decode()


def _plain(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
        for name, value in line.items()
    }
