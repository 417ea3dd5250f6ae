"""The cases that went wrong in a worker: each is read anew after a while, and given up after too many times.

A passing error of the database does not count; a lost guard or a fault of ours does, so that one case cannot keep a
worker busy for ever. A case that is given up shows `attention` with an incident, and waits for somebody.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from circuit.engine.kinship import KIN
from circuit.engine.service import Backoff
from circuit.errors import ActionFailed, CircuitError
from circuit.events import FiringFailed
from circuit.ids import CaseKey
from circuit.storage.records import (
    CaseRow,
    CaseStatus,
    CaseWrite,
    CommandResult,
    CommandRow,
    CommandState,
    FiringRow,
    FiringState,
    IncidentRow,
    Mail,
)

logger = logging.getLogger(__name__)

MOST_TRIES = 8
LONGEST_WAIT_SECONDS = 2.5
"""So all the waits of a case that is tried `MOST_TRIES` times take less than 18 s."""
FORGET_SECONDS = 60.0
"""A case that did well for so long begins to count anew."""
WHOLE_CASE = "(case)"
"""Stands for the transition of an incident that is about no transition in particular."""
TOLD_ONCE = ("child_ended", "cancel")
"""The kinds of commands by which cases tell each other what has happened: nobody says it again."""


@dataclass(slots=True)
class _Trouble:
    backoff: Backoff
    last: float
    tries: int = 0
    at: float | None = None
    spent: BaseException | None = None


class Troubles:
    """Which cases went wrong, how often, and when each is due. Instants are those of the event loop's clock."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random()
        self._troubles: dict[CaseKey, _Trouble] = {}

    def add(self, key: CaseKey, error: BaseException, now: float) -> None:
        """A case went wrong."""
        trouble = self._troubles.get(key)
        if trouble is None or now - trouble.last > FORGET_SECONDS:
            trouble = self._troubles[key] = _Trouble(Backoff(longest=LONGEST_WAIT_SECONDS, rng=self._rng), now)
        trouble.last = now
        ours = not isinstance(error, CircuitError)
        if ours or not error.retryable:
            trouble.tries += 1
        traceback = error if ours else None
        if trouble.tries >= MOST_TRIES:
            trouble.at, trouble.spent = None, error
            logger.error("case %s failed %d times and is given up: %s", key, trouble.tries, error, exc_info=traceback)
            return
        trouble.at = now + trouble.backoff.next()
        level = logging.ERROR if ours else logging.WARNING
        logger.log(level, "case %s is read anew: %s: %s", key, type(error).__name__, error, exc_info=traceback)

    def knows(self, key: CaseKey) -> bool:
        """Whether this case went wrong, is due, or is to be given up."""
        return key in self._troubles

    def forget(self, key: CaseKey) -> None:
        """All is well with this case, or it is not ours any more."""
        self._troubles.pop(key, None)

    def due(self, now: float) -> list[CaseKey]:
        """The cases that are to be read now. Each stays due until `add` or `forget` is called for it, or `taken`."""
        return [key for key, trouble in self._troubles.items() if trouble.at is not None and trouble.at <= now]

    def spent(self) -> list[tuple[CaseKey, BaseException]]:
        """The cases that failed too many times, each with its last error: they are to be given up."""
        return [(key, trouble.spent) for key, trouble in self._troubles.items() if trouble.spent is not None]

    def leave(self, key: CaseKey) -> None:
        """The case cannot even be given up: it is left alone, until somebody asks something of it."""
        trouble = self._troubles.get(key)
        if trouble is not None:
            trouble.at = trouble.spent = None

    def taken(self, key: CaseKey) -> None:
        """The case is being read: it is not due any more, and how often it went wrong is still known."""
        trouble = self._troubles.get(key)
        if trouble is not None:
            trouble.at = None

    def next_in(self, now: float) -> float | None:
        """In how many seconds the next case is due, or None."""
        return min((trouble.at - now for trouble in self._troubles.values() if trouble.at is not None), default=None)


@dataclass(frozen=True, slots=True)
class Remains:
    """What is known of a case that is given up: its row, its live firings as far as they can be read, its open
    incidents (None if they cannot be read), the commands that wait for an answer, and the kinds of its events that go
    to the outbox."""

    key: CaseKey
    row: CaseRow
    firings: Sequence[FiringRow]
    incidents: Sequence[IncidentRow] | None
    commands: Sequence[CommandRow]
    leaving: Collection[str] = ()


def surrender(remains: Remains, error: BaseException, now: datetime, due_at: datetime) -> CaseWrite:
    """The step by which a case is given up: it shows `attention` with an open incident, and what somebody asked of it
    is refused. What another case has told it stays for whoever tries it again. It comes up again at `due_at`, for
    another release may do better, and when somebody asks for it.

    `error` is named by its type only: nobody knows what its message holds, and the log has it.
    """
    key, row = remains.key, remains.row
    told = ActionFailed(
        f"Circuit failed {MOST_TRIES} times in a row to work on case {key} ({type(error).__name__}); the worker's log"
        f" says why. `circuit retry {key}` has it tried again."
    )
    # What waits for a retry would make the case look as if it went on by itself; it starts when the case is tried.
    offered = [firing for firing in remains.firings if firing.state is FiringState.OFFERED and firing.retry_at]
    refused = [command for command in remains.commands if not _told(command)]
    write = CaseWrite(
        key,
        row.seq,
        replace(row, status=CaseStatus.ATTENTION),
        firings_changed=[replace(firing, retry_at=None) for firing in offered],
        commands_settled=[
            CommandResult(command.id, CommandState.REFUSED, {"error": told.as_dict()}) for command in refused
        ],
        release=True,
        due_at=due_at,
        mail=Mail() if any(command.kind == "message" for command in refused) else None,
    )
    told_before = (
        row.status is CaseStatus.ATTENTION
        if remains.incidents is None
        else any(_ours(incident) for incident in remains.incidents)
    )
    if told_before:
        return write
    number = row.next_incident
    name = _about(remains.firings)
    write.row = replace(write.row, seq=row.seq + 1, next_incident=number + 1)
    event = FiringFailed(name, told.as_dict(), incident=number)
    write.events = [(now, event)]
    write.outbox = [write.row.seq] if event.kind in remains.leaving else ()
    write.incidents_opened = [IncidentRow(number, name, None, told.code, told.message, (), now)]
    return write


def _ours(incident: IncidentRow) -> bool:
    """Whether this open incident was raised by `surrender`: any other blocks tokens."""
    return incident.resolved_at is None and not incident.blocks and incident.firing is None


def _told(command: CommandRow) -> bool:
    """Whether this is what another case has told this one."""
    return command.kind in TOLD_ONCE and command.principal == KIN


def _about(firings: Iterable[FiringRow]) -> str:
    """The transition that the case was busy with, if it is certain which."""
    names = {firing.transition for firing in firings if firing.state.live}
    return names.pop() if len(names) == 1 else WHOLE_CASE
