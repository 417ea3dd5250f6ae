"""What a process logs of the cases that it works on, at level `info`: how they and their executions begin and end.

What was said and what was wrong in detail stands in the history: the log tells where to look, and no data.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime

from circuit.events import (
    BudgetUsedUp,
    CaseEnded,
    CaseEvent,
    CaseStarted,
    FiringBegun,
    FiringCancelled,
    FiringFailed,
    FiringRetried,
    FiringSuspended,
    InputScreened,
    TransitionFired,
)
from circuit.ids import CaseKey, Numbered

logger = logging.getLogger(__name__)


def chronicle(key: CaseKey, events: Sequence[tuple[datetime, CaseEvent]]) -> None:
    """Log these events of a case, which are committed."""
    if logger.isEnabledFor(logging.INFO):
        for _, event in events:
            _tell(key, event)


def _tell(key: CaseKey, event: CaseEvent) -> None:
    match event:
        case CaseStarted():
            logger.info("case %s of %s begins", key, event.workflow)
        case FiringBegun():
            logger.info("%s begins as execution %s", event.transition, Numbered(key.case, event.firing))
        case FiringSuspended():
            which = Numbered(key.case, event.firing)
            logger.info("%s waits for %s in execution %s", event.transition, event.awaits, which)
        case FiringRetried():
            which = Numbered(key.case, event.firing)
            code = event.error.get("code")
            logger.info("try %d of %s failed in execution %s: %s", event.attempt, event.transition, which, code)
        case BudgetUsedUp():
            which = Numbered(key.case, event.firing)
            logger.info("execution %s is stopped: the budget of %s is used up", which, event.scope)
        case InputScreened():
            which = Numbered(key.case, event.firing)
            kinds = ", ".join(dict.fromkeys(str(one["kind"]) for one in event.found))
            logger.info("screening found %s in execution %s: %s", kinds, which, event.action)
        case FiringFailed():
            where = key if event.firing is None else Numbered(key.case, event.firing)
            what = "" if event.incident is None else f": incident {event.incident} waits for a person"
            logger.info("%s failed in %s: %s%s", event.transition, where, event.error.get("code"), what)
        case FiringCancelled():
            logger.info("%s is cancelled: execution %s", event.transition, Numbered(key.case, event.firing))
        case TransitionFired() if event.firing is not None:
            logger.info("%s is done: execution %s", event.transition, Numbered(key.case, event.firing))
        case CaseEnded():
            logger.info("case %s is %s", key, event.status)
        case _:
            pass
