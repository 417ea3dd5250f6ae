"""Traces, and figures by the same way: what a piece of work says of itself to OpenTelemetry, without knowing it.

Whoever begins a piece of work that is traced has a `Span`; what begins within it finds it by `current` and is below
it. Where nothing is traced there is no current span, and that is all that tracing costs there. Only
`circuit.observability` knows the library, and only a process that is told to trace imports it.

A case has one span for its whole life, however many workers it goes through. Nobody holds that open: its ids follow
from the case's id, so that whatever is done for the case can stand below it, and whoever commits the end of the case
makes the span, from its start to its end.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol
from uuid import UUID

Value = str | bool | int | float | Sequence[str]
Attributes = Mapping[str, Value]

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
LONGEST_TRACEPARENT = 200
TRACEPARENT = "traceparent"
"""The header, and in capitals the variable, in which a context is handed on."""


class Kind(StrEnum):
    """Which side of a call a span is: `internal` is neither."""

    INTERNAL = "internal"
    CLIENT = "client"
    SERVER = "server"


class Context(NamedTuple):
    """Which span of which trace. `sampled` is None where nobody has decided yet whether the trace is kept."""

    trace: int
    span: int
    sampled: bool | None = True

    @classmethod
    def parse(cls, text: str | None) -> Context | None:
        """The context in a `traceparent` (W3C Trace Context), or None where it is none."""
        found = _TRACEPARENT.fullmatch(text.strip()) if text is not None and len(text) <= LONGEST_TRACEPARENT else None
        if found is None:
            return None
        version, trace, span, flags, more = found.groups()
        if version == "ff" or (version == "00" and more):
            return None
        context = cls(int(trace, 16), int(span, 16), bool(int(flags, 16) & 1))
        return context if context.trace and context.span else None

    @property
    def text(self) -> str:
        """The context as a `traceparent`."""
        return f"00-{self.trace:032x}-{self.span:016x}-{'01' if self.sampled else '00'}"


def context_of(case: UUID, caller: Context | None) -> Context:
    """The span of a case: in the trace of whoever started it, where he told one."""
    made = hashlib.sha256(b"circuit" + case.bytes).digest()
    trace, span = int.from_bytes(made[:16]), int.from_bytes(made[16:24])
    if caller is not None:
        return Context(caller.trace, span, caller.sampled)
    return Context(trace, span, None)


def trace_id_of(case: UUID, traceparent: str | None) -> str:
    """The trace in which a case is that was started in `traceparent`, as backends write it."""
    return f"{context_of(case, Context.parse(traceparent)).trace:032x}"


class Span(Protocol):
    """A piece of work in a trace."""

    @property
    def context(self) -> Context | None:
        """Which span this is; None where no spans are made, and only figures are taken of what goes on."""
        ...

    @property
    def content(self) -> bool:
        """Whether it may hold what was said to models and by them, and to tools and by them."""
        ...

    def shown(self, text: str) -> str:
        """`text` that was said, without what rules of redaction keep out of logs."""
        ...

    def child(self, name: str, attributes: Attributes, kind: Kind = Kind.INTERNAL) -> Span:
        """A piece of this work, which begins now."""
        ...

    def set(self, attributes: Attributes) -> None:
        """Say more of it."""
        ...

    def end(self, error: BaseException | None = None) -> None:
        """It is over, with this error if it failed. Twice is fine."""
        ...

    def active(self) -> AbstractContextManager[None]:
        """What begins in the block is below it, also where it uses OpenTelemetry itself."""
        ...

    def apart(self) -> AbstractContextManager[None]:
        """What uses OpenTelemetry itself in the block does not know of it: nobody whom that asks is told."""
        ...

    def told(self, host: str, port: int) -> bool:
        """Whether a server may hear in which trace it is asked."""
        ...


class Tracer(Protocol):
    """Makes spans. `circuit.observability.telemetry` supplies it."""

    def begin(
        self,
        name: str,
        attributes: Attributes,
        *,
        parent: Context | None,
        kind: Kind = Kind.INTERNAL,
        links: Sequence[Context] = (),
        at: datetime | None = None,
    ) -> Span:
        """A span below `parent` (None: at the root of a trace of its own) that begins now, or `at`. Where the trace is
        not kept it says nothing, but that to whoever is told of it."""
        ...

    def note(
        self,
        name: str,
        attributes: Attributes,
        *,
        parent: Context | None,
        began: datetime,
        ended: datetime,
        links: Sequence[Context] = (),
        own: Context | None = None,
        error: str = "",
    ) -> None:
        """A span of something that is over. `own` is which span it is, where that is known before; `error` the code
        of what it failed with."""
        ...

    def caller(self) -> str | None:
        """The `traceparent` of whoever asks for something now, if he is traced."""
        ...

    async def close(self) -> None:
        """Send what was not sent yet, in bounded time."""
        ...


_active: ContextVar[Span | None] = ContextVar("circuit_span", default=None)


def current() -> Span | None:
    """The piece of work that goes on here, if it is traced."""
    return _active.get()


@contextmanager
def below(span: Span) -> Generator[None]:
    """What begins in the block is a piece of `span`."""
    token = _active.set(span)
    try:
        with span.active():
            yield
    finally:
        _active.reset(token)


@contextmanager
def entered(span: Span) -> Generator[None]:
    """The block is what `span` is of: it ends with it, and fails with it."""
    try:
        with below(span):
            yield
    except BaseException as error:
        span.end(error)
        raise
    span.end()


@contextmanager
def piece(name: str, attributes: Attributes, kind: Kind = Kind.INTERNAL) -> Generator[Span | None]:
    """The block is a piece of what goes on here; None where that is not traced."""
    above = _active.get()
    if above is None:
        yield None
        return
    span = above.child(name, attributes, kind)
    with entered(span):
        yield span
