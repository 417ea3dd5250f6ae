"""Where what is asked comes from, for the audit log: whoever lets a request in says it once, for all that it causes."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

LOCAL_ORIGIN = "local"
"""A program on this machine, without a server between: the command line, or Python."""

_origin: ContextVar[str] = ContextVar("circuit_origin", default=LOCAL_ORIGIN)


def origin() -> str:
    """Where the present request comes from."""
    return _origin.get()


@contextmanager
def coming_from(where: str) -> Generator[None]:
    """What is asked within the block, and in the tasks that it starts, comes from `where`."""
    token = _origin.set(where)
    try:
        yield
    finally:
        _origin.reset(token)
