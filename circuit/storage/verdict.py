"""What an error of the database says about a batch: whether it counts, whether it may be sent again, or neither."""

from __future__ import annotations

from enum import Enum, auto

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from circuit.errors import CircuitError, GuardLost, StorageError
from circuit.storage.tables import FENCED, GUARD_LOST, TERMINAL

ROLLED_BACK = frozenset({"40001", "40P01", "25006", "57014"})
"""The server says that nothing of the batch counts, and that the same may work later: serialisation, deadlock, a
server that is read-only at present, a time that ran out. (40003 is the one of its class that leaves it open.)"""
LOCK_HELD = "55P03"
GAVE_WAY = frozenset({"40001", "40P01", LOCK_HELD})
"""It was rolled back for others to go on: they may be through at once."""
OUT_OF_RESOURCES = "53"
"""The class of errors about disk, memory and connections: rolled back, and waited out."""
CUT_OFF = ("08", "57P", "40003", "25P03", "58")
"""The server ended the session, or failed as a machine: whether the batch was committed is not known."""


class Verdict(Enum):
    """What to do with a batch that was answered with an error."""

    AGAIN = auto()
    """It was rolled back; the same may work later."""
    LOCKED = auto()
    """It was rolled back: somebody else holds a lock that at least one of its cases needs."""
    UNKNOWN = auto()
    """It may have been committed or not."""
    FENCED = auto()
    """The incarnation is fenced."""
    REFUSED = auto()
    """It was rolled back, and at least one of its writes cannot be done."""


def judge(error: BaseException) -> Verdict:
    """What `error`, raised while a batch was sent, says about the batch."""
    if isinstance(error, asyncpg.PostgresError):
        state = _state(error)
        if state == FENCED:
            return Verdict.FENCED
        if state.startswith(CUT_OFF):
            return Verdict.UNKNOWN
        if state == LOCK_HELD:
            return Verdict.LOCKED
        if state in ROLLED_BACK or state.startswith(OUT_OF_RESOURCES):
            return Verdict.AGAIN
        return Verdict.REFUSED
    # asyncpg's DataError is an InterfaceError: a value that the driver cannot encode, so that nothing was sent.
    if isinstance(error, asyncpg.DataError):
        return Verdict.REFUSED
    if isinstance(error, asyncpg.OutdatedSchemaCacheError):
        return Verdict.AGAIN
    if isinstance(error, OSError | EOFError | TimeoutError | asyncpg.InterfaceError | asyncpg.InternalClientError):
        return Verdict.UNKNOWN
    return Verdict.REFUSED


def _state(error: BaseException) -> str:
    return getattr(error, "sqlstate", None) or ""


def refusal(error: BaseException, what: str) -> CircuitError:
    """The error of a write that was refused when it was sent alone; `what` names it."""
    if isinstance(error, asyncpg.PostgresError):
        state = _state(error)
        details = {"sqlstate": state}
        if state in (GUARD_LOST, TERMINAL) or state == "23505":
            return GuardLost(f"{what} was written by somebody else meanwhile: {error}", details=details)
        return StorageError(f"{what} cannot be written: {error}", details=details)
    return StorageError(f"{what} cannot be written: {error}")
