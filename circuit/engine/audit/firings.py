"""I2 and I3: each firing ended at most once and stands where its events say; a live one holds its tokens."""

from __future__ import annotations

from circuit.engine.audit.case import AuditedCase, Faults
from circuit.engine.audit.fault import LOST
from circuit.engine.audit.replay import Replayed
from circuit.storage import rows
from circuit.storage.records import ExecutionStatus, FiringState
from circuit.storage.rows import Row


def check(case: AuditedCase) -> Faults:
    """Compare `firing`, `execution` and `incident` with the history."""
    yield from _firings(case)
    yield from _executions(case)
    yield from _incidents(case)


def _firings(case: AuditedCase) -> Faults:
    left = dict(case.replay.firings)
    for row in case.rows("firing"):
        number: int = row["number"]
        told = left.pop(number, None)
        if told is None:
            yield case.fault("I2", "firing", "no event says that it began", number=number)
            continue
        for wrong in _differences(row, told):
            yield case.fault("I2", "firing", wrong, number=number)
        if told.live:
            held = {(ref.number, ref.version) for ref in told.reserved}
            frozen = {(number, version) for number, version in rows.document(row["request"])["consumed"]}
            if held != frozen:
                yield case.fault("I3", "firing", "its request names other tokens than it reserved", number=number)
    for number in left:
        yield case.fault("I2", "firing", "history says that it began, and there is no row", LOST, number=number)


def _differences(row: Row, told: Replayed) -> list[str]:
    state = FiringState(row["state"])
    wrong: list[str] = []
    if row["transition"] != told.transition:
        wrong.append(f"it is one of {row['transition']}; its events say {told.transition}")
    if told.live and not state.live:
        wrong.append(f"it is {state}, and no event says how it ended")
    if not told.live and state is not told.state:
        wrong.append(f"it is {state}; its last event says {told.state}")
    if row["attempt"] != told.attempt:
        wrong.append(f"it is at attempt {row['attempt']}; its events say {told.attempt}")
    # A firing that lost its process too often gets a last start, to say so in its stream.
    # One that waits for shared places has not had a start yet.
    unstarted = row["start"] == 0 and row["state"] in (FiringState.OFFERED, FiringState.CANCELLED)
    if not unstarted and row["start"] not in (told.start, told.start + 1 if told.crashed else told.start):
        wrong.append(f"it is at start {row['start']}; its events say {told.start}")
    return wrong


def _executions(case: AuditedCase) -> Faults:
    left = dict(case.replay.firings)
    for row in case.rows("execution"):
        number: int = row["firing"]
        told = left.pop(number, None)
        if told is None:
            yield case.fault("I2", "execution", "there is no such firing in the history", firing=number)
            continue
        status = ExecutionStatus(row["status"])
        if status is not told.execution:
            yield case.fault(
                "I2", "execution", f"it is {status}; its firing's events say {told.execution}", firing=number
            )
        if (status is ExecutionStatus.RUNNING) != (row["finished_at"] is None):
            yield case.fault("I2", "execution", f"it is {status} and ended at {row['finished_at']}", firing=number)
    for number in left:
        yield case.fault("I2", "execution", "its firing began, and there is no row", LOST, firing=number)


def _incidents(case: AuditedCase) -> Faults:
    left = dict(case.replay.incidents)
    for row in case.rows("incident"):
        number: int = row["number"]
        told = left.pop(number, None)
        if told is None:
            yield case.fault("I2", "incident", "no event says that it was raised", number=number)
        elif told != (row["resolved_at"] is None):
            said = "open" if told else "resolved"
            yield case.fault("I2", "incident", f"by its events it is {said}, and its row says otherwise", number=number)
    for number in left:
        yield case.fault("I2", "incident", "an event raised it, and there is no row", LOST, number=number)
