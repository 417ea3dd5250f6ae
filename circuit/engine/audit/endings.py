"""I6: what is over stays over; of a case that has ended nothing lives, and nobody owns it."""

from __future__ import annotations

from circuit.engine.audit.case import AuditedCase, Faults
from circuit.storage.records import CaseStatus, ExecutionStatus, FiringState


def check(case: AuditedCase) -> Faults:
    """Compare the end of the case with its last event, and look for what outlived it."""
    ended = case.replay.ended
    if ended is None:
        if case.status.terminal:
            yield case.fault("I6", "case", f"it is {case.status}, and its history does not end with case_ended")
    elif case.status is not CaseStatus(ended.status):
        yield case.fault("I6", "case", f"it is {case.status}; its last event says {ended.status}")
    elif case.row["finished_at"] != case.replay.ended_at:
        yield case.fault("I6", "case", "it did not finish when its last event says")
    if not case.status.terminal:
        if case.row["finished_at"] is not None:
            yield case.fault("I6", "case", f"it is {case.status} and has an end")
        return
    if case.row["owner"] is not None:
        yield case.fault("I6", "case", f"it is {case.status}, and worker {case.row['owner']} owns it")
    for row in case.rows("firing"):
        if FiringState(row["state"]).live:
            yield case.fault("I6", "firing", f"it is {row['state']}, and its case has ended", number=row["number"])
    for row in case.rows("execution"):
        if row["status"] == ExecutionStatus.RUNNING:
            yield case.fault("I6", "execution", "it is running, and its case has ended", firing=row["firing"])
    for row in case.rows("incident"):
        if row["resolved_at"] is None:
            yield case.fault("I6", "incident", "it is open, and its case has ended", number=row["number"])
    for row in case.rows("awaited_message"):
        told = f"{row['transition']} waits for the message {row['name']}, and its case has ended"
        yield case.fault("I6", "awaited_message", told, transition=row["transition"], name=row["name"], key=row["key"])
